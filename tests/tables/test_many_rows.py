"""Many rows with one statement: all of them, once, in both dialects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bytestag.tables import many_rows
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.due import DueTable
from bytestag.tables.many_rows import chunks, insert_many, marks
from bytestag.tables.schema import shared_parts
from bytestag.tables.shared import SharedFilesKVPTable
from tests.tables.helpers import NOW, key_of

_p = shared_parts.c
COLUMNS = (_p.file, _p.number, _p.sha1, _p.blake3, _p.size)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def either(request, tmp_path: Path) -> Iterator[Database]:
    is_postgres = request.param == "postgres"
    url = request.getfixturevalue("postgres_url") if is_postgres else tmp_path / "rows.db"
    database = Database(url)
    yield database
    database.close()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 300])
def test_every_row_is_inserted_once(either: Database, monkeypatch, count: int) -> None:
    if count < 300:
        monkeypatch.setattr(many_rows, "ROWS_PER_STATEMENT", 2)
    rows = [(1, number, os.urandom(20), os.urandom(32), number) for number in range(count)]
    ending = " RETURNING number"
    returned = either.write(lambda connection: insert_many(connection, COLUMNS, rows, ending))
    assert sorted(returned) == [(number,) for number in range(count)]
    with either.read() as connection:
        found = connection.execute(sa.select(*COLUMNS).order_by(_p.number)).all()
        assert [tuple(row) for row in found] == rows


def test_marks_are_those_of_the_driver(either: Database) -> None:
    with either.read() as connection:
        statement = f"SELECT 2 IN {marks(connection, 3)}"
        assert connection.exec_driver_sql(statement, (1, 2, 3)).scalar()
        assert not connection.exec_driver_sql(statement, (1, 4, 3)).scalar()


def test_chunks_are_full_but_the_last() -> None:
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []


def test_a_row_that_comes_twice_at_once_is_due_once(either: Database) -> None:
    due = DueTable(either)
    row = KVPID(key_of(b"a"), key_of(b"a"))
    due.put_many([(row, b"b3", 10.0), (row, b"b3", 20.0)])
    due.add_many([(row, b"b3", 1.0), (row, b"b3", 2.0)])
    assert [found.due_time for found in due.take_due(100, 10)] == [20.0]


def test_a_directory_is_shared_over_either(either: Database, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    for number in range(600):
        (tmp_path / "share" / str(number)).write_bytes(b"%d" % number)
        os.utime(tmp_path / "share" / str(number), (1_000_000_000, 1_000_000_000))
    table = SharedFilesKVPTable(either, wall=lambda: NOW)
    table.add_path(tmp_path / "share")
    assert table.scan().hashed == 600
    assert table.scan().hashed == 0
    assert all(table.read_row(row) for row in table.share_records(tmp_path / "share"))
    table.close()
