"""Due rows: in order, after a restart too, and never in memory."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from bytestag.config import MIB
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.due import DueTable
from tests.tables.helpers import key_of

B3 = bytes(32)


def entry(number: int, due_time: float) -> tuple[KVPID, bytes, float]:
    key = KeyBytes(number.to_bytes(20, "big"))
    return KVPID(key, key), B3, due_time


def test_rows_come_by_time_and_then_key(database: Database) -> None:
    due = DueTable(database)
    due.put_many([entry(3, 10), entry(1, 20), entry(2, 10), entry(4, 31)])
    assert [row[:3] for row in due.take_due(30, 10)] == [entry(2, 10), entry(3, 10), entry(1, 20)]
    assert len(due) == 4


def test_what_is_taken_is_leased_and_comes_again(database: Database) -> None:
    due = DueTable(database)
    due.put_many([entry(1, 10), entry(2, 10)])
    assert len(due.take_due(10, 1, lease_seconds=100)) == 1
    assert [row.kvpid for row in due.take_due(10, 5, lease_seconds=100)] == [entry(2, 10)[0]]
    assert due.take_due(109, 5) == []
    assert [row.due_time for row in due.take_due(110, 5)] == [110, 110]


def test_rescheduled_and_removed_rows_are_not_taken(database: Database) -> None:
    due = DueTable(database)
    due.put_many([entry(1, 10), entry(2, 10), entry(3, 10)])
    due.reschedule(entry(1, 0)[0], B3, 50)
    assert due.remove(entry(2, 0)[0], B3) == 1
    assert due.remove(entry(2, 0)[0]) == 0
    assert due.next_time() == 10
    assert [row.kvpid for row in due.take_due(10, 5)] == [entry(3, 10)[0]]
    assert due.next_time() == 50


def test_add_keeps_the_time_that_put_replaces(database: Database) -> None:
    due = DueTable(database)
    due.put_many([entry(1, 10)])
    due.add_many([entry(1, 99), entry(2, 99)])
    assert due.next_time() == 10
    due.put_many([entry(1, 98)])
    assert due.next_time() == 98


def test_queues_do_not_know_each_other(database: Database) -> None:
    publish, repair = DueTable(database), DueTable(database, "repair")
    publish.put_many([entry(1, 10)])
    assert (len(publish), len(repair)) == (1, 0)
    assert repair.next_time() is None
    assert repair.take_due(100, 5) == []


def test_two_values_with_one_sha1_are_due_apart(database: Database) -> None:
    due = DueTable(database)
    kvpid = KVPID(key_of(b"x"), key_of(b"x"))
    due.put_many([(kvpid, B3, 1.5), (kvpid, b"\1" * 32, 2.5)])
    assert len(due) == 2
    assert due.remove(kvpid) == 2


@pytest.mark.postgres
def test_two_nodes_over_one_postgres_take_different_rows(postgres_url: str) -> None:
    databases = [Database(postgres_url) for _ in range(2)]
    first, second = (DueTable(database) for database in databases)
    first.put_many([entry(number, 10) for number in range(10)])
    taken = [row.kvpid for due in (first, second) for row in due.take_due(10, 5)]
    assert len(set(taken)) == 10
    for database in databases:
        database.close()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_million_due_keys_stay_on_disk_and_in_order_over_a_restart(tmp_path: Path) -> None:
    count, rng = 1_000_000, random.Random(5)
    path = tmp_path / "due.db"
    database = Database(path)
    due = DueTable(database)
    tracemalloc.start()
    due.put_many(entry(number, 0.0) for number in range(20_000))  # four transactions
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()  # it makes all of this ten times slower
    assert peak < 16 * MIB
    due.put_many(entry(number << 100, float(rng.randrange(1000))) for number in range(count))
    database.close()
    database = Database(path)
    due = DueTable(database)
    assert len(due) == count + 20_000 - 1
    tracemalloc.start()
    previous: tuple[float, KVPID] | None = None
    for _batch in range(10):
        for row in due.take_due(500, 1000, lease_seconds=10_000):
            assert previous is None or previous < (row.due_time, row.kvpid)
            previous = row.due_time, row.kvpid
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert previous is not None
    assert previous[0] == 0
    assert peak < 16 * MIB
    database.close()
