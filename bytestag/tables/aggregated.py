"""AggregatedKVPTable: several tables as one, with one writer (pure).

A node reads what it shares in place and what it keeps for others through one table, and stores
into the primary. What any table has is held; a renewal still reaches the primary's row, else a
value kept for others would die while its publisher renews it.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, Asked, KVPRecord, KVPTable, ReadRow, Verdict

T = TypeVar("T")
R = TypeVar("R")
_LAST_WORDS = (Verdict.HELD, Verdict.EXPIRED, Verdict.TOO_LARGE)
"""Verdicts of the primary that stand, whoever else has the row."""


class AggregatedKVPTable(KVPTable):
    """Combines several KVPTables; ``primary_table`` takes what is stored.

    It owns none of them: closing it closes nothing.
    """

    def __init__(self, primary_table: KVPTable, tables: Sequence[KVPTable]) -> None:
        super().__init__(primary_table.clock)
        self.primary_table = primary_table
        self.tables = tuple(dict.fromkeys([primary_table, *tables]))
        self.may_block = any(table.may_block for table in self.tables)
        self.max_size = primary_table.max_size
        for table in self.tables:
            table.value_changed_observer.register(self.value_changed_observer)

    @property
    def used_bytes(self) -> int:
        return self.primary_table.used_bytes

    @property
    def kept_bytes(self) -> int:
        return self.primary_table.kept_bytes

    @property
    def _readable(self) -> tuple[KVPTable, ...]:
        """The tables that may have something: not a primary that stores nothing."""
        return self.tables[1:] if self.max_size == 0 else self.tables

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        found: dict[tuple[KVPID, bytes], KVPRecord] = {}
        for table in self._readable:
            for record in table.records_by_key(key):
                found.setdefault((record.kvpid, record.blake3), record)
        return list(found.values())

    def records_by_keys(self, keys: Iterable[KeyBytes]) -> dict[KeyBytes, list[KVPRecord]]:
        merged: dict[KeyBytes, dict[tuple[KVPID, bytes], KVPRecord]] = {key: {} for key in keys}
        for table in self._readable:
            for key, records in table.records_by_keys(merged.keys()).items():
                for record in records:
                    merged[key].setdefault((record.kvpid, record.blake3), record)
        return {key: list(found.values()) for key, found in merged.items()}

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        for table in self._readable:
            try:
                return table.read(kvpid, selector)
            except KeyError:
                continue
        raise KeyError(kvpid)

    def read_row(self, record: KVPRecord) -> bytes:
        tables = self._readable
        for table in reversed(tables) if record.is_original else tables:  # likely ones first
            try:
                return table.read_row(record)
            except KeyError:
                continue
        raise KeyError(record.kvpid)

    def read_rows(self, records: Sequence[KVPRecord]) -> list[bytes | None]:
        return self._first(records, lambda table, left: table.read_rows(left))

    def read_remembered(self, asked: Sequence[Asked]) -> list[ReadRow | None]:
        return self._first(asked, lambda table, left: table.read_remembered(left))

    def _first(
        self, items: Sequence[T], read: Callable[[KVPTable, list[T]], Sequence[R | None]]
    ) -> list[R | None]:
        """Return for each item what the first table gives that has it."""
        found: list[R | None] = [None] * len(items)
        for table in self._readable:
            left = [number for number, row in enumerate(found) if row is None]
            rows = read(table, [items[number] for number in left])
            for number, row in zip(left, rows, strict=True):
                found[number] = row
        return found

    def keys(self) -> Iterator[KVPID]:
        merged = heapq.merge(*(table.keys() for table in self.tables))
        return (kvpid for kvpid, _same in itertools.groupby(merged))

    def __len__(self) -> int:
        """Return the number of rows in all tables; what two of them have counts twice."""
        return sum(len(table) for table in self.tables)

    def judge(self, record: KVPRecord, now: float) -> Verdict:
        return self.judge_many([record], now)[0]

    def judge_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        judged = self.primary_table.judge_many(records, now)
        elsewhere = self._held_elsewhere(records)
        return [
            Verdict.HELD if is_held and verdict not in _LAST_WORDS else verdict
            for verdict, is_held in zip(judged, elsewhere, strict=True)
        ]

    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        """Store into the primary what no other table has; renew there what it has itself."""
        elsewhere = self._held_elsewhere([record for record, _ in rows])
        skipped = {
            number
            for number, ((record, value), is_held) in enumerate(zip(rows, elsewhere, strict=True))
            if is_held
            and len(value) == record.size
            and self.primary_table.judge(record, now) not in _LAST_WORDS
        }
        wanted = [row for number, row in enumerate(rows) if number not in skipped]
        stored = iter(self.primary_table.store_many(wanted, now) if wanted else ())
        return [Verdict.HELD if i in skipped else next(stored) for i in range(len(rows))]

    def renew_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        """Renew the primary's rows; what only another table has is held, and stays as it is."""
        renewed = self.primary_table.renew_many(records, now)
        elsewhere = self._held_elsewhere(records)
        last_words = (*_LAST_WORDS, Verdict.WRONG_BYTES)
        return [
            Verdict.HELD if is_held and verdict not in last_words else verdict
            for verdict, is_held in zip(renewed, elsewhere, strict=True)
        ]

    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        return self.primary_table.remove(kvpid, selector)

    def expire(self, now: float, limit: int = 1000) -> int:
        return self.primary_table.expire(now, limit)

    def _held_elsewhere(self, records: Sequence[KVPRecord]) -> list[bool]:
        """Say for each row whether a table that is not the primary has it."""
        keys = {record.key for record in records}
        tables = [table.records_by_keys(keys) for table in self.tables[1:]]
        return [
            any(
                row.index == record.index and row.blake3.startswith(record.blake3)
                for found in tables
                for row in found[record.key]
            )
            for record in records
        ]
