"""Provider records: replaced by newer ones, bounded by key and in all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bytestag.tables.database_engine import Database
from bytestag.tables.providers import Provider, ProviderTable
from tests.tables.helpers import key_of, numbered

A, B, C = (key_of(value) for value in (b"a", b"b", b"c"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    is_sqlite = request.param == "sqlite"
    url = tmp_path / "a.db" if is_sqlite else request.getfixturevalue("postgres_url")
    database = Database(url)
    yield database
    database.close()


def test_a_record_is_found_under_each_of_its_keys(any_database: Database) -> None:
    table = ProviderTable(any_database)
    assert table.put([A, B], b"node 1", b"\0", 1, 100, b"addresses", b"record") == 2
    assert table.lookup(A, 50) == [Provider(b"node 1", b"addresses", 100, b"record")]
    assert table.lookup(B, 50) == table.lookup(A, 50)
    assert table.lookup(C, 50) == []
    assert len(table) == 2


def test_a_newer_record_of_a_prefix_replaces_the_older(any_database: Database) -> None:
    table = ProviderTable(any_database)
    table.put([A, B], b"node", b"\0", 5, 100, b"old")
    assert table.put([B, C], b"node", b"\0", 5, 300, b"same seq") == 0
    assert table.put([B, C], b"node", b"\0", 4, 300, b"older") == 0
    assert table.put([B, C], b"node", b"\0", 6, 200, b"new") == 2
    assert table.lookup(A, 50) == []
    assert [provider.addresses for provider in table.lookup(B, 50)] == [b"new"]
    table.put([A], b"node", b"\1", 1, 100, b"another prefix")
    assert len(table) == 3


def test_the_longest_lived_come_first_and_the_dead_never(any_database: Database) -> None:
    table = ProviderTable(any_database)
    for number in range(1, 6):
        table.put([A], b"node %d" % number, b"", 1, number * 10, b"")
    assert [provider.expires for provider in table.lookup(A, 20, limit=2)] == [50, 40]
    assert [provider.expires for provider in table.lookup(A, 20)] == [50, 40, 30]


def test_expired_and_removed_records_leave_no_keys(any_database: Database) -> None:
    table = ProviderTable(any_database)
    table.put([A, B], b"node 1", b"", 1, 10, b"")
    table.put([A], b"node 2", b"", 1, 20, b"")
    table.put([A, C], b"node 3", b"", 1, 30, b"")
    assert table.expire(9) == 0
    assert table.expire(20, limit=1) == 1
    assert len(table) == 3
    assert table.expire(20) == 1
    assert table.remove(b"node 3") == 1
    assert len(table) == 0
    assert table.lookup(A, 0) == []


def test_a_key_has_a_bounded_number_of_providers(any_database: Database) -> None:
    table = ProviderTable(any_database, providers_per_key_max=3)
    held = [table.put([A, B] if n == 4 else [A], b"%d" % n, b"", 1, 10, b"") for n in range(5)]
    assert held == [1, 1, 1, 0, 1]
    assert len(table.lookup(A, 0)) == 3
    assert len(table.lookup(B, 0)) == 1


def test_the_table_is_bounded_and_counts_what_it_replaces(any_database: Database) -> None:
    table = ProviderTable(any_database, rows_max=10)
    keys = [key_of(value) for value in numbered(20)]
    assert table.put(keys[:8], b"one", b"", 1, 10, b"") == 8
    assert table.put(keys[8:], b"two", b"", 1, 10, b"") == 2
    assert table.put(keys[8:], b"three", b"", 1, 10, b"") == 0
    assert table.put(keys[:3], b"one", b"", 2, 10, b"") == 3
    assert len(table) == 5
