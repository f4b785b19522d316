"""DatabaseKVPTable: a table in SQLite or PostgreSQL (shell).

A value is acknowledged only after the commit that holds its bytes, its row and the quota's sums.
Its bytes are verified before they are stored and again after they are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bytestag import config
from bytestag.config import GIB, MIB
from bytestag.errors import NoSpace
from bytestag.keys import KeyBytes
from bytestag.tables import admission, database_reads
from bytestag.tables.base import (
    KVPID,
    KVPRecord,
    KVPTable,
    Standing,
    Verdict,
    bytes_match,
    still_match,
)
from bytestag.tables.database_engine import BATCH_BYTES_MAX, BATCH_VALUES_MAX, Database
from bytestag.tables.database_reads import COLUMNS, to_record
from bytestag.tables.database_rows import Change, RowWriter
from bytestag.tables.schema import blobs, records, state

_Outcome = tuple[list[Verdict], list[Change]]
_logger = logging.getLogger(__name__)
_c = records.c

PAGE_ROWS = 1000
FILE_SLACK_BYTES = 12 * MIB  # of the 24 MiB on top of the quota; the write-ahead log has the rest
_NODE_KEY = "records/node_key"


class DatabaseKVPTable(KVPTable):
    """A KVPTable in a database.

    ``database`` is a path, a URL, or an open :class:`Database` to share with other tables; with a
    path, the file with its log stays below ``max_size`` + 5 % + 24 MiB. Rows farthest from
    ``node_key`` are evicted first.
    """

    def __init__(
        self,
        database: Database | str | Path,
        max_size: int | None = 10 * GIB,
        clock: Callable[[], float] | None = None,
        *,
        node_key: KeyBytes = admission.NODE_KEY_UNKNOWN,
    ) -> None:
        super().__init__(clock)
        self.max_size = max_size
        self._node_key = node_key
        self._is_owner = not isinstance(database, Database)
        self.database = database if isinstance(database, Database) else _open(database, max_size)
        if self.database.is_sqlite:
            self._adopt_node_key()
        if self._is_owner:
            self._keep_to_quota()

    # --- Size ------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        return self._ledger().used

    @property
    def kept_bytes(self) -> int:
        return self._ledger().kept

    def __len__(self) -> int:
        return self._ledger().rows.total()

    # --- Reading ---------------------------------------------------------------------------------

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        with self.database.read() as connection:
            return database_reads.rows_of_key(connection, key)

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        bad = []
        try:
            with self.database.read() as connection:
                for record in database_reads.rows_of_key(connection, kvpid.key):
                    if record.index == kvpid.index and record.blake3.startswith(selector):
                        value = _value(connection, record)
                        if value is not None:
                            return value
                        bad.append(record)
        finally:
            for record in bad:
                self._drop_bad(record)
        raise KeyError(kvpid)

    def read_row(self, record: KVPRecord) -> bytes:
        with self.database.read() as connection:
            value = _value(connection, record)
        return self.read(record.kvpid, record.blake3) if value is None else value

    def records_between(self, low: int, end: int, limit: int) -> list[KVPRecord]:
        with self.database.read() as connection:
            return database_reads.rows_between(connection, low, end, limit)

    def keys(self) -> Iterator[KVPID]:
        query = sa.select(_c.key, _c.sha1).distinct().order_by(_c.key, _c.sha1).limit(PAGE_ROWS)
        page = self._key_page(query)
        while page:
            yield from page
            key, sha1 = page[-1]
            after = sa.or_(_c.key > key, sa.and_(_c.key == key, _c.sha1 > sha1))
            page = self._key_page(query.where(_c.key >= key, after))

    def records_by_keys(self, keys: Iterable[KeyBytes]) -> dict[KeyBytes, list[KVPRecord]]:
        with self.database.read() as connection:
            return database_reads.rows_of_keys(connection, keys)

    def judge(self, record: KVPRecord, now: float) -> Verdict:
        return self.judge_many([record], now)[0]

    def judge_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        with self.database.read() as connection:
            rows = database_reads.rows_of_keys(connection, {record.key for record in records})
            held = (admission.find(rows[record.key], record) for record in records)
            asking = [*records, *(row for row in held if row is not None)]
            ledger = database_reads.ledger_of(connection, asking)

            def can_evict(standing: Standing, cost: int) -> bool:
                lower = database_reads.lower_cost(ledger, standing)
                return cost <= lower + database_reads.expired_cost(connection, standing, now)

            return [
                admission.judge(record, now, rows[record.key], ledger, self.max_size, can_evict)
                for record in records
            ]

    # --- Writing ---------------------------------------------------------------------------------

    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        verdicts: list[Verdict] = []
        batches: list[tuple[list[int], Future[_Outcome]]] = []
        batch: list[int] = []
        batch_bytes = 0
        for number, (record, value) in enumerate(rows):
            verdict = _check(record, value)
            verdicts.append(verdict)
            if verdict is not Verdict.ACCEPTED:
                continue
            if len(batch) == BATCH_VALUES_MAX or batch_bytes + len(value) > BATCH_BYTES_MAX:
                batches.append((batch, self._submit_store([rows[i] for i in batch], now)))
                batch, batch_bytes = [], 0
            batch.append(number)
            batch_bytes += len(value)
        if batch:
            batches.append((batch, self._submit_store([rows[i] for i in batch], now)))
        for numbers, future in batches:
            found = self._verdicts(future, [rows[i] for i in numbers], now)
            for number, verdict in zip(numbers, found, strict=True):
                verdicts[number] = verdict
        return verdicts

    def renew_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        if not records:
            return []
        return self.database.write(
            lambda connection: self._writer(connection, now).renew(records), values=len(records)
        )

    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        hashes = {
            record.blake3
            for record in self.records_by_key(kvpid.key)
            if record.index == kvpid.index and record.blake3.startswith(selector)
        }
        is_row = sa.and_(_c.key == kvpid.key, _c.sha1 == kvpid.index, _c.blake3.in_(hashes))
        return self._delete(is_row) if hashes else 0

    def expire(self, now: float, limit: int = 1000) -> int:
        return self._delete(_c.expires <= now, limit)

    def verify(self, part: int = 0, parts: int = 1) -> list[KVPID]:
        """Hash the bytes of every row (or of one in ``parts``); drop and return the bad."""
        bad: list[KVPID] = []
        last_id = -1
        while True:
            query = sa.select(*COLUMNS, _c.id).where(_c.id > last_id, _c.id % parts == part)
            with self.database.read() as connection:
                page = connection.execute(query.order_by(_c.id).limit(PAGE_ROWS)).all()
            if not page:
                return bad
            last_id = page[-1].id
            for record in map(to_record, page):
                with self.database.read() as connection:
                    value = _value(connection, record)
                if value is None and self._drop_bad(record):
                    bad.append(record.kvpid)

    def close(self) -> None:
        if self._is_owner:
            self.database.close()

    # --- Helpers ---------------------------------------------------------------------------------

    def _submit_store(
        self, rows: list[tuple[KVPRecord, bytes]], now: float, max_size: int | None = None
    ) -> Future[_Outcome]:
        def work(connection: sa.Connection) -> _Outcome:
            writer = self._writer(connection, now, max_size)
            return writer.store(rows), writer.changes

        size = sum(len(value) for _record, value in rows)
        return self.database.submit(work, values=len(rows), size=size)

    def _verdicts(
        self, future: Future[_Outcome], rows: list[tuple[KVPRecord, bytes]], now: float
    ) -> list[Verdict]:
        try:
            verdicts, changes = future.result()
        except NoSpace:
            if not self.database.is_at_page_limit:
                raise
            verdicts, changes = self._store_in_full_file(rows, now)
        self._tell(changes)
        return verdicts

    def _store_in_full_file(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> _Outcome:
        """Store rows in the place of others: our own bound on the file came before the quota."""
        used = self.used_bytes
        try:
            return self._submit_store(rows, now, used - min(used // 16, BATCH_BYTES_MAX)).result()
        except NoSpace:
            return [Verdict.FULL] * len(rows), []

    def _delete(self, condition: sa.ColumnElement[bool], limit: int | None = None) -> int:
        def work(connection: sa.Connection) -> tuple[int, list[Change]]:
            writer = self._writer(connection, now=0)
            return writer.delete(condition, limit), writer.changes

        count, changes = self.database.write(work)
        self._tell(changes)
        return count

    def _writer(
        self, connection: sa.Connection, now: float, max_size: int | None = None
    ) -> RowWriter:
        max_size = self.max_size if max_size is None else max_size
        return RowWriter(self.database, connection, max_size, self._node_key, now)

    def _tell(self, changes: list[Change]) -> None:
        for kvpid, is_added in changes:
            self.value_changed_observer(kvpid, is_added)

    def _ledger(self) -> admission.Ledger:
        with self.database.read() as connection:
            return database_reads.ledger_of(connection)

    def _drop_bad(self, record: KVPRecord) -> bool:
        """Drop a row if its bytes are bad when the writer looks again; return whether it was."""
        is_row = sa.and_(_c.key == record.key, _c.sha1 == record.index, _c.blake3 == record.blake3)

        def work(connection: sa.Connection) -> tuple[int, list[Change]]:
            if _value(connection, record) is not None:
                return 0, []
            writer = self._writer(connection, now=0)
            return writer.delete(is_row), writer.changes

        count, changes = self.database.write(work)
        self._tell(changes)
        if count:
            _logger.warning("! bytes of %s no longer match their hashes: dropped", record.key)
        return count > 0

    def _key_page(self, query: sa.Select[Any]) -> list[KVPID]:
        with self.database.read() as connection:
            rows = connection.execute(query).all()
        return [KVPID(KeyBytes(key), KeyBytes(sha1)) for key, sha1 in rows]

    def _keep_to_quota(self) -> None:
        """Evict what a smaller quota leaves no room for, but for what is kept."""
        now = self.clock() if self.clock else 0
        while self.database.write(lambda connection: self._writer(connection, now).trim()):
            pass
        self.database.give_back()

    def _adopt_node_key(self) -> None:
        """Recompute the distances if the node's identity changed, a page in each transaction."""
        of_key = state.c.name == _NODE_KEY
        with self.database.read() as connection:
            known = connection.execute(sa.select(state.c.value).where(of_key)).scalar()
        if (known or admission.NODE_KEY_UNKNOWN) == self._node_key:
            return
        last_id = -1
        while (after := self.database.write(partial(self._measure_page, last_id))) is not None:
            last_id = after

        def remember(connection: sa.Connection) -> None:
            connection.execute(sa.delete(state).where(of_key))
            connection.execute(sa.insert(state).values(name=_NODE_KEY, value=self._node_key))

        self.database.write(remember)

    def _measure_page(self, last_id: int, connection: sa.Connection) -> int | None:
        """Recompute the distances of the rows after ``last_id``; return the last id, or None."""
        query = sa.select(_c.id, _c.key).where(_c.id > last_id).order_by(_c.id).limit(PAGE_ROWS)
        page = connection.execute(query).all()
        if not page:
            return None
        distance = sa.update(records).where(_c.id == sa.bindparam("of"))
        connection.execute(
            distance.values(distance=sa.bindparam("rank")),
            [
                {"of": row_id, "rank": admission.distance_rank(key, self._node_key)}
                for row_id, key in page
            ],
        )
        return int(page[-1].id)


_VALUE = sa.select(blobs.c.value).where(blobs.c.blake3 == sa.bindparam("blake3"))


def _value(connection: sa.Connection, record: KVPRecord) -> bytes | None:
    """Return the bytes of a row, or None if they are gone or no longer match it."""
    value: bytes | None = connection.execute(_VALUE, {"blake3": record.blake3}).scalar()
    return value if value is not None and still_match(record, value) else None


def _check(record: KVPRecord, value: bytes) -> Verdict:
    if max(record.size, len(value)) > config.VALUE_BYTES_MAX:
        return Verdict.TOO_LARGE
    return Verdict.ACCEPTED if bytes_match(record, value) else Verdict.WRONG_BYTES


def _open(url: str | Path, max_size: int | None) -> Database:
    if max_size is None:
        return Database(url)
    return Database(url, file_bytes_max=max_size + max_size // 20 + FILE_SLACK_BYTES)
