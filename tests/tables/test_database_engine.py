"""The engine: migrations, group commit, the settings that durability rests on."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from bytestag.config import MIB
from bytestag.errors import StorageError
from bytestag.tables import schema
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import CTIME_IGNORED
from tests.tables.helpers import kept, numbered, row

NO_ROOM = """
import resource, signal, sys
from tests.tables.helpers import NOW, row
from bytestag.errors import StorageError
from bytestag.tables.database import DatabaseKVPTable
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
table = DatabaseKVPTable(sys.argv[1], None)
before, value = row(b"before")
table.store(before, value, NOW)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    table.store(*row(bytes(400_000)), NOW)
except StorageError as error:
    assert error.hint
    assert table.read(before.kvpid) == value
    assert len(table) == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    table.store(*row(bytes(400_000)), NOW)
    assert len(table) == 2
    print("refused, read, went on")
table.close()
"""


def _add_colour(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE state ADD COLUMN colour TEXT")


def _fail_half_way(connection: sa.Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE half (way INTEGER)")
    raise ZeroDivisionError


def _version(url: Path | str) -> int:
    database = Database(url, migrations=(*schema.MIGRATIONS, _add_colour))
    with database.read() as connection:
        version = schema.version(connection)
        connection.exec_driver_sql("SELECT colour FROM state")
    database.close()
    return version


def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Database(path).close()
    Database(path).close()
    assert _version(path) == len(schema.MIGRATIONS) + 1
    assert _version(path) == len(schema.MIGRATIONS) + 1


@pytest.mark.postgres
def test_migrations_run_once_each_on_postgres(postgres_url: str) -> None:
    Database(postgres_url).close()
    assert _version(postgres_url) == len(schema.MIGRATIONS) + 1
    with pytest.raises(StorageError, match="schema"):
        Database(postgres_url)


def test_a_migration_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    Database(path).close()
    with pytest.raises(ZeroDivisionError):
        Database(path, migrations=(*schema.MIGRATIONS, _add_colour, _fail_half_way))
    database = Database(path)
    with database.read() as connection:
        assert schema.version(connection) == len(schema.MIGRATIONS)
        assert not sa.inspect(connection).has_table("half")
    database.close()


def test_the_replicas_of_an_older_database_are_summed_by_address_group(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    table = DatabaseKVPTable(path)
    rows = [row(value, group=f"g{n % 2}") for n, value in enumerate(numbered(5))]
    table.store_many([*rows, row(b"no group"), kept(b"kept", group="g0")], 0)
    of_replicas = sa.select(schema.totals.c.name, schema.totals.c.cost).where(
        schema.totals.c.name.startswith("replicas/")
    )

    def make_older(connection: sa.Connection) -> list[tuple[str, int]]:
        found = connection.execute(of_replicas).all()
        connection.execute(
            sa.delete(schema.totals).where(schema.totals.c.name.startswith("replicas/"))
        )
        connection.execute(sa.update(schema.schema_version).values(version=1))
        return sorted((name, cost) for name, cost in found)

    before = table.database.write(make_older)
    table.close()
    assert before == [("replicas/g0", 3 * 528), ("replicas/g1", 2 * 528)]
    database = Database(path)
    with database.read() as connection:
        assert sorted(map(tuple, connection.execute(of_replicas))) == before
    database.close()


def test_an_older_database_gets_the_columns_of_shares_that_came_later(tmp_path: Path) -> None:
    assert _migrated(tmp_path / "a.db") == ([b""], [CTIME_IGNORED])


@pytest.mark.postgres
def test_an_older_postgres_database_does_so_too(postgres_url: str) -> None:
    assert _migrated(postgres_url) == ([b""], [CTIME_IGNORED])


def _migrated(url: str | Path) -> tuple[list[bytes], list[int]]:
    """Return the columns that came later, of a share and a file from before them."""
    database = Database(url)

    def make_older(connection: sa.Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE shared_paths DROP COLUMN described")
        empty = dict.fromkeys(("path", "sha1", "blake3", "info_sha1", "info_blake3"), b"")
        numbers = ("share", "size", "mtime_ns", "ctime_ns", "inode", "is_dirty", "timestamp")
        file = empty | dict.fromkeys(numbers, 1)
        connection.execute(sa.insert(schema.shared_files).values(file))
        connection.exec_driver_sql("ALTER TABLE shared_files DROP COLUMN ctime_ns")
        row = {"path": b"/x", "manifest_size": 0}
        names = ("manifest_sha1", "manifest_blake3", "info_blake3")
        old = sa.table("shared_paths", *map(sa.column, (*row, *names)))
        connection.execute(sa.insert(old).values(**row, **dict.fromkeys(names, b"")))
        connection.execute(sa.update(schema.schema_version).values(version=2))

    database.write(make_older)
    database.close()
    database = Database(url)
    with database.read() as connection:
        described = connection.execute(sa.select(schema.shared_paths.c.described)).scalars().all()
        times = connection.execute(sa.select(schema.shared_files.c.ctime_ns)).scalars().all()
    database.close()
    return list(described), list(times)


def test_a_newer_schema_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    _version(path)
    newest = len(schema.MIGRATIONS)
    with pytest.raises(StorageError, match=rf"schema {newest + 1}.*up to {newest}") as caught:
        Database(path)
    assert "update" in (caught.value.hint or "")


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageError):
        Database(path)


def test_sqlite_runs_with_the_settings_that_durability_rests_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "with space, # and ?.db")

    def pragma(connection: sa.Connection, name: str) -> object:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    wanted = {
        "journal_mode": "wal",
        "synchronous": 2,
        "auto_vacuum": 2,
        "wal_autocheckpoint": 0,
        "busy_timeout": 5000,
        "journal_size_limit": 4 * MIB,
        "trusted_schema": 0,
    }
    for name, value in wanted.items():
        assert database.write(lambda connection, name=name: pragma(connection, name)) == value
    assert (tmp_path / "with space, # and ?.db").exists()
    database.close()


def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(StorageError), database.read() as connection:
        connection.exec_driver_sql("DELETE FROM state")


def test_writes_that_wait_together_share_a_transaction(database: Database) -> None:
    seen: list[sa.Connection] = []
    entered, go_on = threading.Event(), threading.Event()

    def hold_the_writer(connection: sa.Connection) -> None:
        seen.append(connection)
        entered.set()
        go_on.wait(10)

    futures = [database.submit(hold_the_writer)]
    entered.wait(10)
    futures += [database.submit(seen.append, values=8) for _ in range(50)]
    go_on.set()
    for future in futures:
        future.result(10)
    transactions = list(dict.fromkeys(map(id, seen)))
    assert [list(map(id, seen)).count(one) for one in transactions] == [1, 32, 18]


def test_an_io_error_is_a_storage_error_and_reads_go_on(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path / "a.db")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.stdout == "refused, read, went on\n", done.stderr


def test_the_log_is_cut_when_the_database_closes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = Database(path)
    database.write(lambda connection: connection.exec_driver_sql("DELETE FROM state"))
    database.close()
    assert os.listdir(tmp_path) == ["a.db"]


@pytest.mark.postgres
def test_readers_on_postgres_see_one_state_and_cannot_write(postgres_url: str) -> None:
    database = Database(postgres_url)
    insert = sa.insert(schema.state).values(name="a", value=b"")
    count = sa.select(sa.func.count()).select_from(schema.state)
    with database.read() as connection:
        assert connection.execute(count).scalar() == 0
        database.write(lambda writer: writer.execute(insert))
        assert connection.execute(count).scalar() == 0
    with database.read() as connection:
        assert connection.execute(count).scalar() == 1
    with pytest.raises(StorageError), database.read() as connection:
        connection.exec_driver_sql("DELETE FROM state")
    database.close()


def test_a_cancelled_write_is_not_done_and_the_writer_goes_on(database: Database) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def hold_the_writer(_connection: sa.Connection) -> None:
        entered.set()
        go_on.wait(10)

    done: list[sa.Connection] = []
    database.submit(hold_the_writer)
    entered.wait(10)
    cancelled = database.submit(done.append)
    assert cancelled.cancel()
    go_on.set()
    assert database.submit(lambda _connection: 1).result(10) == 1
    assert done == []


@pytest.mark.postgres
def test_postgres_has_no_bound_on_a_file(postgres_url: str) -> None:
    database = Database(postgres_url, file_bytes_max=MIB)
    assert not database.is_at_page_limit
    database.give_back()
    database.close()
