"""The due queue, the provider records and the state in memory, for clients and simulated nodes
(pure but for locks).

Same methods and meaning as ``due.DueTable``, ``providers.ProviderTable`` and ``state.StateTable``.
"""

from __future__ import annotations

import heapq
import json
import random
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from bytestag import config
from bytestag.errors import StorageError
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID
from bytestag.tables.entries import (
    CONTACTS_MAX,
    LEASE_SECONDS,
    SEQ_MAX,
    STATE_BYTES_MAX,
    Due,
    KnownContact,
    Provider,
    sample,
)

PROVIDER_ROWS_MAX = 100_000
KEYS_PER_PROVIDER_MAX = PROVIDER_ROWS_MAX // 10


class MemoryDueTable:
    """What is due, by time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[tuple[KVPID, bytes], float] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._times)

    def put_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows; one that waits already gets the new time."""
        with self._lock:
            for kvpid, blake3, due_time in entries:
                self._times[kvpid, blake3] = due_time

    def add_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows that do not wait already."""
        with self._lock:
            for kvpid, blake3, due_time in entries:
                self._times.setdefault((kvpid, blake3), due_time)

    def take_due(self, now: float, limit: int, lease_seconds: float = LEASE_SECONDS) -> list[Due]:
        """Return rows due at ``now``, by time and then key, and lease them."""
        with self._lock:
            ready = [(t, *name) for name, t in self._times.items() if t <= now]
            chosen = [Due(kvpid, blake3, t) for t, kvpid, blake3 in heapq.nsmallest(limit, ready)]
            for due in chosen:
                self._times[due.kvpid, due.blake3] = now + lease_seconds
            return chosen

    def remove(self, kvpid: KVPID, blake3: bytes = b"") -> int:
        """Remove matching rows; return how many."""
        with self._lock:
            gone = [n for n in self._times if n[0] == kvpid and n[1].startswith(blake3)]
            for name in gone:
                del self._times[name]
            return len(gone)

    def next_time(self) -> float | None:
        """Return when the first row is due."""
        with self._lock:
            return min(self._times.values(), default=None)


class _Record(NamedTuple):
    seq: int
    provider: Provider
    keys: tuple[KeyBytes, ...]


class MemoryProviderTable:
    """Provider records, bounded by key, by provider and in all."""

    def __init__(
        self,
        rows_max: int = PROVIDER_ROWS_MAX,
        providers_per_key_max: int = config.PROVIDERS_PER_KEY_MAX,
        keys_per_provider_max: int = KEYS_PER_PROVIDER_MAX,
    ) -> None:
        self._lock = threading.RLock()
        self._rows_max = rows_max
        self._per_key_max = providers_per_key_max
        self._per_provider_max = keys_per_provider_max
        self._records: dict[tuple[bytes, bytes], _Record] = {}
        self._by_key: dict[KeyBytes, dict[tuple[bytes, bytes], None]] = {}  # ordered
        self._of_provider: Counter[bytes] = Counter()

    def __len__(self) -> int:
        with self._lock:
            return self._of_provider.total()

    def put(
        self,
        keys: Collection[KeyBytes],
        provider_id: bytes,
        prefix: bytes,
        seq: int,
        expires: int,
        addresses: bytes,
        record: bytes = b"",
        *,
        now: float = 0.0,
    ) -> int:
        """Store a record in place of an older one; return how many of its keys are held now."""
        with self._lock:
            name = (provider_id, prefix)
            if seq > SEQ_MAX or (name in self._records and self._records[name].seq >= seq):
                return 0
            self._forget(name)
            wanted = sorted(set(keys))
            held = self._with_room(wanted, provider_id)
            if len(held) < len(wanted) and self.expire(now, len(self._records)):
                held = self._with_room(wanted, provider_id)
            if not held:
                return 0
            digest = record if len(held) == len(wanted) else b""
            for key in held:
                self._by_key.setdefault(key, {})[name] = None
            self._of_provider[provider_id] += len(held)
            provider = Provider(provider_id, addresses, expires, digest)
            self._records[name] = _Record(seq, provider, tuple(held))
            return len(held)

    def renew(
        self,
        provider_id: bytes,
        records: Sequence[tuple[bytes, bytes]],
        seq: int,
        expires: int,
        addresses: bytes,
    ) -> list[bool]:
        """Give records a later end; return for each whether it is here, from these addresses."""
        with self._lock:
            return [
                self._renew((provider_id, prefix), record, seq, expires, addresses)
                for prefix, record in records
            ]

    def _renew(
        self, name: tuple[bytes, bytes], record: bytes, seq: int, expires: int, addresses: bytes
    ) -> bool:
        known = self._records.get(name)
        if known is None or known.seq >= seq or seq > SEQ_MAX:
            return False
        if (known.provider.record, known.provider.addresses) != (record, addresses):
            return False
        provider = known.provider._replace(expires=expires)
        self._records[name] = known._replace(seq=seq, provider=provider)
        return True

    def lookup(
        self, key: KeyBytes, now: float, limit: int = 20, rng: random.Random | None = None
    ) -> list[Provider]:
        """Return a random choice of those who serve a key now."""
        with self._lock:
            named = [self._records[name].provider for name in self._by_key.get(key, ())]
            found = [provider for provider in named if provider.expires > now]
            return sample(found[: config.PROVIDERS_PER_KEY_MAX], limit, rng)

    def expire(self, now: float, limit: int = 1000) -> int:
        """Remove records past their time; return how many."""
        with self._lock:
            gone = sorted(
                (known.provider.expires, name)
                for name, known in self._records.items()
                if known.provider.expires <= now
            )[:limit]
            for _expires, name in gone:
                self._forget(name)
            return len(gone)

    def remove(self, provider_id: bytes) -> int:
        """Forget all records of a provider; return how many."""
        with self._lock:
            gone = [name for name in self._records if name[0] == provider_id]
            for name in gone:
                self._forget(name)
            return len(gone)

    def _with_room(self, keys: list[KeyBytes], provider_id: bytes) -> list[KeyBytes]:
        room = min(
            self._rows_max - len(self), self._per_provider_max - self._of_provider[provider_id]
        )
        free = [key for key in keys if len(self._by_key.get(key, ())) < self._per_key_max]
        return free[: max(0, room)]

    def _forget(self, name: tuple[bytes, bytes]) -> None:
        known = self._records.pop(name, None)
        keys = known.keys if known is not None else ()
        for key in keys:
            row = self._by_key[key]
            del row[name]
            if not row:
                del self._by_key[key]
        self._of_provider[name[0]] -= len(keys)
        if not self._of_provider[name[0]]:
            del self._of_provider[name[0]]


class MemoryStateTable:
    """Small named values, and contacts: what a simulated node remembers when it comes back."""

    def __init__(self, contacts_max: int = CONTACTS_MAX) -> None:
        self._lock = threading.Lock()
        self._contacts_max = contacts_max
        self._values: dict[str, bytes] = {}
        self._contacts: dict[KeyBytes, KnownContact] = {}

    def value(self, name: str, default: bytes | None = None) -> bytes | None:
        """Return the bytes stored under a name."""
        with self._lock:
            return self._values.get(name, default)

    def set_value(self, name: str, value: bytes) -> None:
        """Store bytes under a name."""
        if len(value) > STATE_BYTES_MAX:
            raise StorageError(f"the state {name!r} is larger than {STATE_BYTES_MAX} bytes")
        with self._lock:
            self._values[name] = bytes(value)

    def json(self, name: str, default: Any = None) -> Any:
        """Return the JSON value stored under a name."""
        found = self.value(name)
        return default if found is None else json.loads(found)

    def set_json(self, name: str, value: Any) -> None:
        """Store a JSON value under a name."""
        self.set_value(name, json.dumps(value, separators=(",", ":"), sort_keys=True).encode())

    def forget(self, name: str) -> None:
        """Remove a named value, if there is one."""
        with self._lock:
            self._values.pop(name, None)

    def put_contacts(self, known: Iterable[KnownContact]) -> None:
        """Remember contacts, newer knowledge over older; the longest unseen give way."""
        with self._lock:
            for contact in known:
                before = self._contacts.get(contact.node_id)
                if before is None or contact.last_seen >= before.last_seen:
                    self._contacts[contact.node_id] = contact
            if len(self._contacts) > self._contacts_max:
                kept = self._latest(self._contacts_max)
                self._contacts = {contact.node_id: contact for contact in kept}

    def contacts(self, limit: int = CONTACTS_MAX) -> list[KnownContact]:
        """Return contacts, the most recently seen first."""
        with self._lock:
            return self._latest(limit)

    def remove_contact(self, node_id: KeyBytes) -> None:
        """Forget a contact, if it is known."""
        with self._lock:
            self._contacts.pop(node_id, None)

    def _latest(self, limit: int) -> list[KnownContact]:
        order = sorted(self._contacts.values(), key=lambda c: (-c.last_seen, c.node_id))
        return order[:limit]
