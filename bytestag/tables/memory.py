"""MemoryKVPTable: a table in memory (pure but for one lock).

The reference of what a table does: plain and slow where it evicts, fast otherwise. Simulated nodes
use it, and every other table is tested against it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables import admission
from bytestag.tables.base import (
    KVPID,
    KVPRecord,
    KVPTable,
    Verdict,
    bytes_match,
)

Change = tuple[KVPID, bool]


class MemoryKVPTable(KVPTable):
    """A KVPTable in memory.

    ``max_size`` is the quota in bytes; rows farthest from ``node_key`` are evicted first.
    """

    def __init__(
        self,
        max_size: int | None = None,
        clock: Callable[[], float] | None = None,
        *,
        node_key: KeyBytes = admission.NODE_KEY_UNKNOWN,
    ) -> None:
        super().__init__(clock)
        self.may_block = False
        self.max_size = max_size
        self._node_key = node_key
        self._lock = threading.RLock()
        self._rows: dict[KeyBytes, list[KVPRecord]] = {}
        self._values: dict[tuple[KVPID, bytes], bytes] = {}
        self._ages: dict[tuple[KVPID, bytes], int] = {}
        self._next_age = 0
        self._ledger = admission.Ledger()
        self._first_expiry = math.inf
        """No row expires before this."""

    @property
    def used_bytes(self) -> int:
        return self._ledger.used

    @property
    def kept_bytes(self) -> int:
        return self._ledger.kept

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        with self._lock:
            return list(self._rows.get(key, ()))

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        with self._lock:
            return self._values[kvpid, self.record(kvpid, selector).blake3]

    def records_between(self, low: int, end: int, limit: int) -> list[KVPRecord]:
        found: list[KVPRecord] = []
        with self._lock:
            for key in sorted(key for key in self._rows if low <= key.integer < end):
                if len(found) >= limit:
                    break
                found += self._rows[key]
        return found

    def keys(self) -> Iterator[KVPID]:
        with self._lock:
            keys = sorted(self._rows)
        for key in keys:
            yield from sorted({row.kvpid for row in self.records_by_key(key)})

    def __len__(self) -> int:
        return len(self._values)

    def judge(self, record: KVPRecord, now: float) -> Verdict:
        with self._lock:
            rows = self._rows.get(record.key, [])
            return admission.judge(
                record,
                now,
                rows,
                self._ledger,
                self.max_size,
                lambda standing, cost: (
                    cost
                    <= sum(
                        row.cost for row in self._all() if admission.may_evict(standing, row, now)
                    )
                ),
            )

    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        changes: list[Change] = []
        with self._lock:
            verdicts = [self._store(record, value, now, changes) for record, value in rows]
        self._tell(changes)
        return verdicts

    def renew_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        with self._lock:
            return [self._renew(record, now) for record in records]

    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        with self._lock:
            doomed = [
                row
                for row in self._rows.get(kvpid.key, ())
                if row.index == kvpid.index and row.blake3.startswith(selector)
            ]
            changes = [self._drop(row) for row in doomed]
        self._tell(changes)
        return len(doomed)

    def expire(self, now: float, limit: int = 1000) -> int:
        with self._lock:
            if now < self._first_expiry:
                return 0
            expired = sorted(
                (row for row in self._all() if row.expires <= now),
                key=lambda row: (row.expires, self._age(row)),
            )[:limit]
            changes = [self._drop(row) for row in expired]
            self._first_expiry = min((row.expires for row in self._all()), default=math.inf)
        self._tell(changes)
        return len(expired)

    # --- Changing rows, with the lock held -------------------------------------------------------

    def _store(self, record: KVPRecord, value: bytes, now: float, changes: list[Change]) -> Verdict:
        if max(record.size, len(value)) > config.VALUE_BYTES_MAX:
            return Verdict.TOO_LARGE
        if not bytes_match(record, value):
            return Verdict.WRONG_BYTES
        verdict = self.judge(record, now)
        if verdict is Verdict.HELD:
            held = admission.find(self._rows[record.key], record)
            assert held is not None
            self._replace(held, admission.merge(held, record, now))
        elif verdict is Verdict.ACCEPTED:
            displaced = admission.displaced(record, now, self._rows.get(record.key, []))
            if displaced is not None:
                changes.append(self._drop(displaced))
            changes += [self._drop(row) for row in self._victims(record, now)]
            self._add(record, value)
            changes.append((record.kvpid, True))
        return verdict

    def _renew(self, record: KVPRecord, now: float) -> Verdict:
        verdict = self.judge(record, now)
        if verdict is Verdict.HELD:
            held = admission.find(self._rows[record.key], record)
            assert held is not None
            if held.size != record.size:
                return Verdict.WRONG_BYTES
            self._replace(held, admission.merge(held, record, now))
        return Verdict.NOT_SENT if verdict is Verdict.ACCEPTED else verdict

    def _victims(self, record: KVPRecord, now: float) -> list[KVPRecord]:
        needed = admission.room_needed(record, self._ledger, self.max_size)
        if needed <= 0:
            return []
        candidates = [row for row in self._all() if admission.may_evict(record.standing, row, now)]
        candidates.sort(
            key=lambda row: (
                admission.eviction_class(row, now),
                -admission.distance_rank(row.key, self._node_key),
                self._age(row),
            )
        )
        victims = []
        for row in candidates:
            if needed <= 0:
                break
            victims.append(row)
            needed -= row.cost
        return victims

    def _add(self, record: KVPRecord, value: bytes) -> None:
        name = record.kvpid, record.blake3
        self._rows.setdefault(record.key, []).append(record)
        self._values[name] = bytes(value)
        self._ages[name] = self._next_age
        self._next_age += 1
        self._ledger.add(record)
        self._first_expiry = min(self._first_expiry, record.expires)

    def _replace(self, held: KVPRecord, renewed: KVPRecord) -> None:
        rows = self._rows[held.key]
        rows[rows.index(held)] = renewed
        self._ledger.remove(held)
        self._ledger.add(renewed)

    def _drop(self, row: KVPRecord) -> Change:
        rows = self._rows[row.key]
        rows.remove(row)
        if not rows:
            del self._rows[row.key]
        del self._values[row.kvpid, row.blake3]
        del self._ages[row.kvpid, row.blake3]
        self._ledger.remove(row)
        return row.kvpid, False

    # --- Helpers ---------------------------------------------------------------------------------

    def _all(self) -> Iterator[KVPRecord]:
        for rows in self._rows.values():
            yield from rows

    def _age(self, row: KVPRecord) -> int:
        return self._ages[row.kvpid, row.blake3]

    def _tell(self, changes: list[Change]) -> None:
        for kvpid, is_added in changes:
            self.value_changed_observer(kvpid, is_added)
