"""The tables that the shared suite runs over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bytestag.tables.aggregated import AggregatedKVPTable
from bytestag.tables.base import KVPTable
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.database_engine import Database
from bytestag.tables.memory import MemoryKVPTable

MakeTable = Callable[..., KVPTable]


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
