"""The due queue and the provider records in memory: for clients and simulated nodes (pure).

Same methods and meaning as ``due.DueTable`` and ``providers.ProviderTable``.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID
from bytestag.tables.due import LEASE_SECONDS, Due
from bytestag.tables.providers import Provider

PROVIDER_ROWS_MAX = 100_000


class MemoryDueTable:
    """What is due, by time."""

    def __init__(self) -> None:
        self._times: dict[tuple[KVPID, bytes], float] = {}

    def __len__(self) -> int:
        return len(self._times)

    def put_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows; one that waits already gets the new time."""
        for kvpid, blake3, due_time in entries:
            self._times[kvpid, blake3] = due_time

    def add_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows that do not wait already."""
        for kvpid, blake3, due_time in entries:
            self._times.setdefault((kvpid, blake3), due_time)

    def take_due(self, now: float, limit: int, lease_seconds: float = LEASE_SECONDS) -> list[Due]:
        """Return rows due at ``now``, by time and then key, and lease them."""
        ready = [(t, *name) for name, t in self._times.items() if t <= now]
        chosen = [Due(kvpid, blake3, t) for t, kvpid, blake3 in heapq.nsmallest(limit, ready)]
        for due in chosen:
            self._times[due.kvpid, due.blake3] = now + lease_seconds
        return chosen

    def remove(self, kvpid: KVPID, blake3: bytes = b"") -> int:
        """Remove matching rows; return how many."""
        gone = [n for n in self._times if n[0] == kvpid and n[1].startswith(blake3)]
        for name in gone:
            del self._times[name]
        return len(gone)

    def next_time(self) -> float | None:
        """Return when the first row is due."""
        return min(self._times.values(), default=None)


class MemoryProviderTable:
    """Provider records, bounded by key and in all."""

    def __init__(self) -> None:
        self._records: dict[tuple[bytes, bytes], tuple[int, tuple[KeyBytes, ...]]] = {}
        self._by_key: dict[KeyBytes, dict[tuple[bytes, bytes], Provider]] = {}
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def put(
        self,
        keys: Collection[KeyBytes],
        provider_id: bytes,
        prefix: bytes,
        seq: int,
        expires: int,
        addresses: bytes,
        record: bytes = b"",
    ) -> int:
        """Store a record in place of an older one; return how many of its keys are held now."""
        name = (provider_id, prefix)
        if name in self._records and self._records[name][0] >= seq:
            return 0
        self._forget(name)
        held = []
        for key in keys:
            row = self._by_key.get(key, {})
            if len(row) < config.PROVIDERS_PER_KEY_MAX and self._rows < PROVIDER_ROWS_MAX:
                row[name] = Provider(provider_id, addresses, expires, record)
                self._by_key[key] = row
                self._rows += 1
                held.append(key)
        self._records[name] = (seq, tuple(held))
        return len(held)

    def lookup(self, key: KeyBytes, now: float, limit: int = 20) -> list[Provider]:
        """Return providers of a key whose time has not run out, the longest-lived first."""
        found = [p for p in self._by_key.get(key, {}).values() if p.expires > now]
        return sorted(found, key=lambda p: -p.expires)[:limit]

    def expire(self, now: float, limit: int = 1000) -> int:
        """Remove records past their time; return how many."""
        gone = {
            name
            for row in self._by_key.values()
            for name, provider in row.items()
            if provider.expires <= now
        }
        for name in list(gone)[:limit]:
            self._forget(name)
        return min(len(gone), limit)

    def _forget(self, name: tuple[bytes, bytes]) -> None:
        for key in self._records.pop(name, (0, ()))[1]:
            row = self._by_key[key]
            del row[name]
            self._rows -= 1
            if not row:
                del self._by_key[key]
