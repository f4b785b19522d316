"""What a database adds: durability, bounds on disk, verification, and many at once."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from bytestag.config import KIB, MIB
from bytestag.errors import NoSpace, StorageError
from bytestag.keys import KeyBytes
from bytestag.tables import database
from bytestag.tables.base import KVPRecord, KVPTable, Standing, Verdict
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.database_engine import Database
from bytestag.tables.database_rows import RowWriter
from bytestag.tables.memory import MemoryKVPTable
from tests.tables.helpers import NOW, TTL, kept, key_of, numbered, row

WRITER = """
import sys
from tests.tables.helpers import NOW, row
from bytestag.tables.database import DatabaseKVPTable
table = DatabaseKVPTable(sys.argv[1], None)
for number in range(1_000_000):
    rows = [row(b"%d/%d " % (number, part) * 200) for part in range(4)]
    table.store_many(rows, NOW)
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "values.db"


def _files_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(path.name + "*"))


def test_rows_and_sums_survive_a_restart(path: Path) -> None:
    rows = [row(value) for value in numbered(10)] + [kept(b"kept")]
    table = DatabaseKVPTable(path, MIB)
    table.store_many(rows, NOW)
    table.close()
    again = DatabaseKVPTable(path, MIB)
    assert [again.read(record.kvpid) for record, _value in rows] == [value for _, value in rows]
    assert again.used_bytes == sum(record.cost for record, _value in rows)
    assert again.kept_bytes == rows[-1][0].cost
    again.close()


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_loses_no_acknowledged_row(path: Path) -> None:
    rng = random.Random(7)
    for _round in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        wanted = rng.randrange(5, 60)
        acknowledged = [int(process.stdout.readline()) for _ in range(wanted)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
        process.stdout.close()
        process.wait()
        table = DatabaseKVPTable(path, None)
        for number in acknowledged:
            for part in range(4):
                record, value = row(b"%d/%d " % (number, part) * 200)
                assert table.read(record.kvpid) == value
        assert table.database.quick_check() == []
        assert table.used_bytes == sum(
            record.cost for kvpid in table for record in table.records_by_key(kvpid.key)
        )
        table.close()


def test_rotten_bytes_are_dropped_and_the_next_row_is_read(path: Path) -> None:
    table = DatabaseKVPTable(path)
    (rotten, value), (sound, _) = row(b"sound" * 20), row(b"sound" * 20, key=key_of(b"file"))
    other, other_value = row(b"other")
    table.store_many([(rotten, value), (sound, value), (other, other_value)], NOW)
    gone = []
    table.value_changed_observer.register(lambda *change: gone.append(change))
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE blobs SET value = zeroblob(100) WHERE length(value) = 100")
    raw.close()
    with pytest.raises(KeyError):
        table.read(rotten.kvpid)
    assert rotten.kvpid not in table
    assert gone == [(rotten.kvpid, False)]
    assert table.verify() == [sound.kvpid]
    assert list(table) == [other.kvpid]
    assert table.used_bytes == other.cost
    table.close()


def test_verify_looks_at_one_part_of_the_rows_at_a_time(path: Path) -> None:
    table = DatabaseKVPTable(path)
    table.store_many([row(value) for value in numbered(10)], NOW)
    with sqlite3.connect(path) as raw:
        raw.execute("DELETE FROM blobs")
    raw.close()
    assert len(table.verify(part=0, parts=2)) == 5
    assert len(table.verify(part=1, parts=2)) == 5
    table.close()


def test_equal_bytes_are_kept_once_and_as_long_as_any_row_needs_them(path: Path) -> None:
    table = DatabaseKVPTable(path)
    value = bytes(100 * KIB)
    rows = [row(value, key=key_of(b"%d" % n), ttl=n, depositor=b"%d" % n) for n in range(1, 4)]
    table.store_many(rows[:2], NOW)
    table.store_many(rows[2:], NOW)

    def blobs() -> int:
        with table.database.read() as connection:
            return connection.exec_driver_sql("SELECT count(*) FROM blobs").scalar_one()

    assert blobs() == 1
    assert table.expire(NOW + 2) == 2
    assert table.read(rows[2][0].kvpid) == value
    assert table.expire(NOW + 3) == 1
    assert blobs() == 0
    table.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", [pytest.param(100, marks=pytest.mark.long), 3000, 9000, 256 * KIB])
def test_the_files_stay_within_the_quota_and_its_slack(path: Path, size: int) -> None:
    quota = 8 * MIB
    table = DatabaseKVPTable(path, quota)
    rng = random.Random(size)
    count = 3 * quota // (size + 512)
    for _batch in range(0, count, 64):
        rows = [row(rng.randbytes(size), standing=Standing.CACHED) for _ in range(32)]
        rows += [row(rng.randbytes(size), standing=Standing.REPLICA) for _ in range(32)]
        table.store_many(rows, NOW)
        assert table.used_bytes <= quota
        assert _files_bytes(path) <= quota + quota // 20 + 24 * MIB
    assert table.used_bytes > quota * 0.9
    table.close()


def test_the_bound_on_the_file_answers_full_and_reads_go_on(path: Path) -> None:
    table = DatabaseKVPTable(Database(path, file_bytes_max=MIB), None)
    rows = [row(bytes([n]) * 200 * KIB) for n in range(10)]
    verdicts = [table.store(*one, NOW) for one in rows]
    assert verdicts[0] is Verdict.ACCEPTED
    assert verdicts[-1] is Verdict.FULL
    for (record, value), verdict in zip(rows, verdicts, strict=True):
        if verdict is Verdict.ACCEPTED:
            assert table.read(record.kvpid) == value
    assert len(table) == verdicts.count(Verdict.ACCEPTED)
    table.database.close()


def test_a_full_disk_is_no_space_and_acknowledges_nothing(path: Path) -> None:
    table = DatabaseKVPTable(Database(path), None)
    record, value = row(b"before")
    table.store(record, value, NOW)

    def fill_the_disk(connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    table.database.write(fill_the_disk)
    with pytest.raises(NoSpace) as caught:
        table.store(*row(bytes(200 * KIB)), NOW)
    assert caught.value.hint
    assert table.read(record.kvpid) == value
    assert len(table) == 1
    table.database.close()


def test_a_failing_write_fails_alone_in_its_shared_transaction(database: Database) -> None:
    table = DatabaseKVPTable(database)
    entered, go_on = threading.Event(), threading.Event()

    def hold_the_writer(_connection) -> None:
        entered.set()
        go_on.wait(10)

    def fail(_connection) -> None:
        raise ZeroDivisionError

    holding = database.submit(hold_the_writer)
    entered.wait(10)
    failing = database.submit(fail)
    storing = threading.Thread(target=table.store, args=(*row(b"123"), NOW))
    storing.start()
    go_on.set()
    storing.join(10)
    holding.result(10)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert len(table) == 1


@pytest.mark.slow
def test_many_threads_store_without_exceeding_the_quota(path: Path) -> None:
    quota = 100 * (512 + 16)
    table = DatabaseKVPTable(path, quota)
    values = numbered(400)
    verdicts: list[Verdict] = []

    def store(part: list[bytes]) -> None:
        verdicts.extend([table.store(*row(value), NOW) for value in part])

    threads = [threading.Thread(target=store, args=(values[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts.count(Verdict.ACCEPTED) == 100 == len(table)
    assert verdicts.count(Verdict.FULL) == 300
    assert table.used_bytes == quota
    table.close()


def test_a_batch_larger_than_a_transaction_keeps_its_order(path: Path) -> None:
    table = DatabaseKVPTable(path)
    rows = [row(value) for value in numbered(700)]
    rows[300] = (rows[300][0], b"wrong")
    verdicts = table.store_many(rows + rows[:1], NOW)
    assert verdicts[300] is Verdict.WRONG_BYTES
    assert verdicts[-1] is Verdict.HELD
    assert verdicts.count(Verdict.ACCEPTED) == 699
    table.close()


def test_a_new_node_key_orders_eviction_anew(path: Path, monkeypatch) -> None:
    monkeypatch.setattr(database, "PAGE_ROWS", 2)
    values = sorted(numbered(3), key=key_of)
    quota = 3 * (512 + 16)
    DatabaseKVPTable(path, quota, node_key=KeyBytes(bytes(20))).close()
    table = DatabaseKVPTable(path, quota, node_key=KeyBytes(bytes(20)))
    table.store_many([row(value) for value in values], NOW)
    table.close()
    table = DatabaseKVPTable(path, quota, node_key=KeyBytes(b"\xff" * 20))
    table.store(*row(b"o" * 16, standing=Standing.ORIGINAL), NOW)
    left = {kvpid.key for kvpid in table}
    assert key_of(values[0]) not in left
    assert key_of(values[2]) in left
    table.close()


def test_a_new_node_key_takes_many_small_transactions(path: Path, monkeypatch) -> None:
    table = DatabaseKVPTable(path)
    table.store_many([row(value) for value in numbered(10)], NOW)
    table.close()
    commits: list[sa.Connection] = []

    def note(connection: sa.Connection) -> None:
        commits.append(connection)

    sa.event.listen(sa.Engine, "commit", note)
    try:
        monkeypatch.setattr(database, "PAGE_ROWS", 2)
        DatabaseKVPTable(path, node_key=KeyBytes(b"\xff" * 20)).close()
    finally:
        sa.event.remove(sa.Engine, "commit", note)
    assert len(commits) > 5


def test_a_smaller_quota_after_a_restart_makes_room_as_values_come(path: Path) -> None:
    table = DatabaseKVPTable(path, MIB)
    table.store_many([row(value, standing=Standing.CACHED) for value in numbered(100)], NOW)
    table.close()
    quota = 10 * (512 + 16)
    table = DatabaseKVPTable(path, quota)
    assert table.store(*row(b"r" * 16), NOW) is Verdict.ACCEPTED
    assert table.used_bytes <= quota
    table.close()


def test_a_closed_table_refuses_to_write(path: Path) -> None:
    table = DatabaseKVPTable(path)
    table.close()
    table.close()
    with pytest.raises(StorageError):
        table.store(*row(b"123"), NOW)


@pytest.mark.postgres
def test_two_nodes_over_one_postgres_share_one_quota(postgres_url: str) -> None:
    quota = 50 * (512 + 16)
    tables: list[KVPTable] = [DatabaseKVPTable(postgres_url, quota) for _ in range(2)]
    values = numbered(100)
    verdicts: list[Verdict] = []

    def store(table: KVPTable, part: list[bytes]) -> None:
        verdicts.extend([table.store(*row(value), NOW) for value in part])

    # Both nodes offer every value: each is stored once, and the quota is one.
    threads = [threading.Thread(target=store, args=(table, values)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts.count(Verdict.ACCEPTED) == 50 == len(tables[0]) == len(tables[1])
    assert tables[0].used_bytes == quota
    for table in tables:
        table.close()


def test_memory_evicts_as_much_for_a_smaller_quota(path: Path) -> None:
    table = MemoryKVPTable(MIB)
    table.store_many([row(value, standing=Standing.CACHED) for value in numbered(100)], NOW)
    table.max_size = 10 * (512 + 16)
    assert table.store(*row(b"r" * 16), NOW) is Verdict.ACCEPTED
    assert table.used_bytes == table.max_size


def test_a_renewal_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    table = DatabaseKVPTable(tmp_path / "a.db")
    record, value = row(b"123")
    table.store(record, value, NOW)
    statements = []

    def listen(connection, cursor, sql, *_others) -> None:
        statements.append(sql)

    sa.event.listen(sa.Engine, "before_cursor_execute", listen)
    try:
        assert table.renew_many([record], NOW) == [Verdict.HELD]
        assert not [sql for sql in statements if sql.startswith(("UPDATE", "INSERT", "DELETE"))]
        table.renew_many([dataclasses.replace(record, timestamp=NOW + 1)], NOW)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)
    assert [sql for sql in statements if sql.startswith("UPDATE records")]
    assert not [sql for sql in statements if "blobs" in sql]
    table.close()


def test_what_goes_between_two_looks_of_verify_was_not_bad(path: Path, monkeypatch) -> None:
    table = DatabaseKVPTable(path)
    rows = [row(value, ttl=100 + n) for n, value in enumerate(numbered(3))]
    table.store_many(rows, NOW)
    real = database._value

    def expire_first(connection: sa.Connection, record: KVPRecord) -> bytes | None:
        monkeypatch.undo()
        table.expire(NOW + 101)
        return real(connection, dataclasses.replace(record, blake3=b"gone"))

    monkeypatch.setattr(database, "_value", expire_first)
    assert table.verify() == []
    assert len(table) == 1
    table.close()


def test_a_row_that_came_again_meanwhile_is_not_dropped(path: Path, monkeypatch) -> None:
    table = DatabaseKVPTable(path)
    record, value = row(b"123")
    table.store(record, value, NOW)

    def bad_once(_connection: sa.Connection, _record: KVPRecord) -> None:
        monkeypatch.undo()

    monkeypatch.setattr(database, "_value", bad_once)
    with pytest.raises(KeyError):
        table.read(record.kvpid)
    assert table.read(record.kvpid) == value
    table.close()


def test_a_full_file_makes_room_for_what_goes_before(path: Path) -> None:
    table = DatabaseKVPTable(Database(path, file_bytes_max=4 * MIB), 8 * MIB)
    size = 12_500  # takes two pages of 8 KiB
    copies = [row(random.Random(n).randbytes(size), standing=Standing.CACHED) for n in range(400)]
    verdicts = [table.store(*copy, NOW) for copy in copies]
    assert verdicts[0] is Verdict.ACCEPTED
    assert verdicts[-1] is Verdict.FULL
    assert table.used_bytes < 6 * MIB
    for number in range(100):
        value = random.Random(1000 + number).randbytes(size)
        assert table.store(*kept(value, b"%d" % number), NOW) is Verdict.ACCEPTED
    assert table.kept_bytes == 100 * (512 + size)
    assert table.used_bytes == sum(
        record.cost for kvpid in table for record in table.records_by_key(kvpid.key)
    )
    table.database.close()


def test_sums_of_those_who_left_are_not_kept(path: Path) -> None:
    table = DatabaseKVPTable(path, MIB)
    rows = [kept(value, b"%d" % n, group=f"{n}") for n, value in enumerate(numbered(20))]
    rows += [row(b"r%d" % n, group=f"{n}") for n in range(20)]
    table.store_many(rows, NOW)
    table.expire(NOW + TTL)
    with table.database.read() as connection:
        names = connection.exec_driver_sql("SELECT name FROM totals ORDER BY name").scalars().all()
    assert names == [f"standing/{standing}" for standing in Standing]
    table.store_many(rows, NOW)
    assert table.kept_bytes == 20 * (512 + 16)
    table.close()


@pytest.mark.postgres
def test_a_node_that_waited_for_another_sees_what_that_one_kept(postgres_url: str) -> None:
    cost = 512 + 16
    first, second = (DatabaseKVPTable(postgres_url, 16 * cost) for _ in range(2))
    values = iter(numbered(20))
    for number in range(8):
        first.store(*kept(next(values), b"%d" % number), NOW)
    entered, go_on = threading.Event(), threading.Event()

    def keep_and_wait(connection: sa.Connection) -> list[Verdict]:
        writer = RowWriter(first.database, connection, 16 * cost, KeyBytes(bytes(20)), NOW)
        verdicts = writer.store([kept(next(values), b"greedy") for _ in range(2)])
        entered.set()
        go_on.wait(10)
        return verdicts

    holding = first.database.submit(keep_and_wait)
    entered.wait(10)
    verdicts: list[Verdict] = []
    waiting = threading.Thread(
        target=lambda: verdicts.append(second.store(*kept(b"w" * 16, b"greedy"), NOW))
    )
    waiting.start()
    is_waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    found = 0
    while not found:
        with first.database.read() as connection:
            found = connection.exec_driver_sql(is_waiting).scalar_one()
    go_on.set()
    assert holding.result(10) == [Verdict.ACCEPTED] * 2
    waiting.join(10)
    assert verdicts == [Verdict.FULL]
    for table in (first, second):
        table.close()


@pytest.mark.slow
def test_a_smaller_quota_gives_the_disk_its_room_back(path: Path) -> None:
    table = DatabaseKVPTable(path, 64 * MIB, node_key=KeyBytes(bytes(20)))
    safe = [kept(random.Random(n).randbytes(256 * KIB), b"%d" % n) for n in range(8)]
    table.store_many(safe, NOW)
    rows = [
        row(random.Random(n).randbytes(256 * KIB), standing=Standing(n % 2)) for n in range(99, 250)
    ]
    table.store_many(rows, NOW)
    table.close()
    before = _files_bytes(path)
    table = DatabaseKVPTable(path, 4 * MIB, clock=lambda: NOW)
    assert 3 * MIB < table.used_bytes <= 4 * MIB
    assert [table.read(record.kvpid) for record, _ in safe] == [value for _, value in safe]
    assert table.store(*kept(random.Random(999).randbytes(400 * KIB)), NOW) is Verdict.ACCEPTED
    assert table.database.quick_check() == []
    table.close()
    assert _files_bytes(path) <= 17 * MIB < before
    table = DatabaseKVPTable(path, 0, clock=lambda: NOW)
    assert table.used_bytes == table.kept_bytes > 0
    table.close()


def _leave_open(path: Path, crashed: Path) -> KVPRecord:
    """Make the files of a process that ended at once."""
    table = DatabaseKVPTable(path)
    table.store_many([row(value, timestamp=NOW + 1) for value in numbered(400, 200)], NOW)
    table.close()
    table = DatabaseKVPTable(path)
    record, value = row(b"last")
    table.store(record, value, NOW)
    for suffix in ("", "-wal"):
        shutil.copy(str(path) + suffix, str(crashed) + suffix)
    table.close()
    return record


def test_a_file_that_was_not_closed_is_checked_and_goes_on(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bytestag")
    crashed = path.with_name("crashed.db")
    record = _leave_open(path, crashed)
    assert caplog.messages == []
    table = DatabaseKVPTable(crashed)
    assert caplog.messages == [f"= {crashed} was not closed: checking it"]
    assert table.read(record.kvpid) == b"last"
    assert len(table) == 401
    table.close()


def test_a_file_that_broke_when_it_was_not_closed_is_set_aside(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "bytestag")
    crashed = path.with_name("crashed.db")
    _leave_open(path, crashed)
    with crashed.open("r+b") as file:
        file.seek(20 * 8 * KIB)
        file.write(b"\xff" * 8 * KIB)
    broken = crashed.stat().st_size
    table = DatabaseKVPTable(crashed)
    assert len(table) == 0
    assert table.store(*row(b"new"), NOW) is Verdict.ACCEPTED
    table.close()
    aside = path.with_name("crashed.db.bad")
    assert aside.stat().st_size >= broken
    (line,) = caplog.messages
    assert line.startswith(f"! {crashed} is broken (")
    assert line.endswith(f"it is now {aside}, and a new one begins empty")
