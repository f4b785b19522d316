"""AggregatedKVPTable: several tables as one, with one writer (pure).

A node reads what it shares in place and what it keeps for others through one table, and stores
into the primary. What any table has is held; a renewal still reaches the primary's row, else a
value kept for others would die while its publisher renews it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, KVPRecord, KVPTable, Verdict


class AggregatedKVPTable(KVPTable):
    """Combines several KVPTables; ``primary_table`` takes what is stored.

    It owns none of them: closing it closes nothing.
    """

    def __init__(self, primary_table: KVPTable, tables: Sequence[KVPTable]) -> None:
        super().__init__(primary_table.clock)
        self.primary_table = primary_table
        self.tables = tuple(dict.fromkeys([primary_table, *tables]))
        self.max_size = primary_table.max_size
        for table in self.tables:
            table.value_changed_observer.register(self.value_changed_observer)

    @property
    def used_bytes(self) -> int:
        return self.primary_table.used_bytes

    @property
    def kept_bytes(self) -> int:
        return self.primary_table.kept_bytes

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        found: dict[tuple[KVPID, bytes], KVPRecord] = {}
        for table in self.tables:
            for record in table.records_by_key(key):
                found.setdefault((record.kvpid, record.blake3), record)
        return list(found.values())

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        for table in self.tables:
            try:
                return table.read(kvpid, selector)
            except KeyError:
                continue
        raise KeyError(kvpid)

    def read_row(self, record: KVPRecord) -> bytes:
        for table in self.tables:
            try:
                return table.read_row(record)
            except KeyError:
                continue
        raise KeyError(record.kvpid)

    def keys(self) -> Iterator[KVPID]:
        merged = heapq.merge(*(table.keys() for table in self.tables))
        return (kvpid for kvpid, _same in itertools.groupby(merged))

    def __len__(self) -> int:
        """Return the number of rows in all tables; what two of them have counts twice."""
        return sum(len(table) for table in self.tables)

    def judge(self, record: KVPRecord, now: float) -> Verdict:
        verdict = self.primary_table.judge(record, now)
        return Verdict.HELD if self._is_held_elsewhere(record, verdict) else verdict

    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        """Store into the primary what no other table has; renew there what it has itself."""
        verdicts: list[Verdict | None] = []
        for record, value in rows:
            judged = self.primary_table.judge(record, now)
            is_held = self._is_held_elsewhere(record, judged) and len(value) == record.size
            verdicts.append(Verdict.HELD if is_held else None)
        wanted = [row for row, verdict in zip(rows, verdicts, strict=True) if verdict is None]
        stored = iter(self.primary_table.store_many(wanted, now) if wanted else ())
        return [next(stored) if verdict is None else verdict for verdict in verdicts]

    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        return self.primary_table.remove(kvpid, selector)

    def expire(self, now: float, limit: int = 1000) -> int:
        return self.primary_table.expire(now, limit)

    def _is_held_elsewhere(self, record: KVPRecord, verdict: Verdict) -> bool:
        """Whether another table has what the primary, says its verdict, has not."""
        if verdict in (Verdict.HELD, Verdict.EXPIRED, Verdict.TOO_LARGE):
            return False
        return any(
            row.index == record.index and row.blake3.startswith(record.blake3)
            for table in self.tables[1:]
            for row in table.records_by_key(record.key)
        )
