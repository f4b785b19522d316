"""DueTable: what is due for publishing or repair, ordered by time (shell).

A million keys wait in the database and never in memory, and they wait there after a restart too.
What is taken is leased, not removed: if nobody reschedules or removes it, it is due again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import sqlalchemy as sa

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.entries import LEASE_SECONDS, Due
from bytestag.tables.many_rows import chunks, insert_many
from bytestag.tables.schema import due

WRITE_ROWS = 5000  # in key order where the caller has them so: few pages are written twice

_c = due.c
_COLUMNS = (_c.queue, _c.key, _c.sha1, _c.blake3, _c.due_time)
_OLD_TIME = " ON CONFLICT DO NOTHING"
_NEW_TIME = " ON CONFLICT (queue, key, sha1, blake3) DO UPDATE SET due_time = excluded.due_time"


class DueTable:
    """One queue of due rows; queues with different names do not know each other."""

    def __init__(self, database: Database, queue: str = "publish") -> None:
        self._database = database
        self._queue = queue

    def put_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows; one that waits already gets the new time."""
        self._write(_NEW_TIME, entries)

    def add_many(self, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        """Schedule rows that do not wait already; the others keep their time."""
        self._write(_OLD_TIME, entries)

    def take_due(self, now: float, limit: int, lease_seconds: float = LEASE_SECONDS) -> list[Due]:
        """Return rows due at ``now``, by time and then key, and lease them to the caller.

        They come again after ``lease_seconds`` unless they are rescheduled or removed.
        """
        query = (
            sa.select(_c.key, _c.sha1, _c.blake3, _c.due_time)
            .where(_c.queue == self._queue, _c.due_time <= now)
            .order_by(_c.due_time, _c.key, _c.sha1, _c.blake3)
            .limit(limit)
        )
        lease = sa.update(due).where(
            _c.queue == self._queue,
            _c.key == sa.bindparam("of_key"),
            _c.sha1 == sa.bindparam("of_sha1"),
            _c.blake3 == sa.bindparam("of_blake3"),
        )

        def work(connection: sa.Connection) -> list[Due]:
            if not self._database.is_sqlite:
                locked = query.with_for_update(skip_locked=True)
                taken = [_to_due(row) for row in connection.execute(locked)]
            else:
                taken = [_to_due(row) for row in connection.execute(query)]
            if taken:
                connection.execute(
                    lease.values(due_time=now + lease_seconds), [_name(row) for row in taken]
                )
            return taken

        return self._database.write(work)

    def reschedule(self, kvpid: KVPID, blake3: bytes, due_time: float) -> None:
        """Set when a row is due next."""
        self.put_many([(kvpid, blake3, due_time)])

    def remove(self, kvpid: KVPID, blake3: bytes = b"") -> int:
        """Forget a row, or all rows of ``kvpid`` without a BLAKE3; return how many."""
        is_row = [_c.queue == self._queue, _c.key == kvpid.key, _c.sha1 == kvpid.index]
        if blake3:
            is_row.append(_c.blake3 == blake3)
        statement = sa.delete(due).where(*is_row)
        return self._database.write(lambda connection: connection.execute(statement).rowcount)

    def next_time(self) -> float | None:
        """Return when the first row is due; None if none waits."""
        with self._database.read() as connection:
            query = sa.select(sa.func.min(_c.due_time)).where(_c.queue == self._queue)
            found: float | None = connection.execute(query).scalar()
            return found

    def __len__(self) -> int:
        with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(due).where(_c.queue == self._queue)
            return int(connection.execute(query).scalar_one())

    def _write(self, ending: str, entries: Iterable[tuple[KVPID, bytes, float]]) -> None:
        for chunk in chunks(entries, WRITE_ROWS):
            times = {(kvpid, blake3): due_time for kvpid, blake3, due_time in chunk}  # each once
            rows = [
                (self._queue, kvpid.key, kvpid.index, blake3, float(due_time))
                for (kvpid, blake3), due_time in times.items()
            ]
            write = partial(insert_many, columns=_COLUMNS, rows=rows, ending=ending)
            self._database.write(write, values=len(rows))


def _to_due(row: Any) -> Due:
    return Due(KVPID(KeyBytes(row.key), KeyBytes(row.sha1)), row.blake3, row.due_time)


def _name(row: Due) -> dict[str, bytes]:
    return {"of_key": row.kvpid.key, "of_sha1": row.kvpid.index, "of_blake3": row.blake3}
