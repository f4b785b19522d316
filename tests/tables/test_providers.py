"""Provider records: replaced by newer ones, bounded by key and in all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bytestag.tables.database_engine import Database
from bytestag.tables.entries import Provider
from bytestag.tables.memory_stores import MemoryProviderTable
from bytestag.tables.providers import ProviderTable
from tests.tables.helpers import key_of, numbered

MakeTable = Callable[..., ProviderTable | MemoryProviderTable]
A, B, C = (key_of(value) for value in (b"a", b"b", b"c"))


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def make_table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeTable]:
    """Make a table of each kind, with any bounds."""
    if request.param == "memory":
        yield MemoryProviderTable
        return
    is_sqlite = request.param == "sqlite"
    url = tmp_path / "a.db" if is_sqlite else request.getfixturevalue("postgres_url")
    database = Database(url)
    yield lambda **bounds: ProviderTable(database, **bounds)
    database.close()


def test_a_record_is_found_under_each_of_its_keys(make_table: MakeTable) -> None:
    table = make_table()
    assert table.put([A, B], b"node 1", b"\0", 1, 100, b"addresses", b"record") == 2
    assert table.lookup(A, 50) == [Provider(b"node 1", b"addresses", 100, b"record")]
    assert table.lookup(B, 50) == table.lookup(A, 50)
    assert table.lookup(C, 50) == []
    assert len(table) == 2


def test_a_newer_record_of_a_prefix_replaces_the_older(make_table: MakeTable) -> None:
    table = make_table()
    table.put([A, B], b"node", b"\0", 5, 100, b"old")
    assert table.put([B, C], b"node", b"\0", 5, 300, b"same seq") == 0
    assert table.put([B, C], b"node", b"\0", 4, 300, b"older") == 0
    assert table.put([B, C], b"node", b"\0", 6, 200, b"new") == 2
    assert table.lookup(A, 50) == []
    assert [provider.addresses for provider in table.lookup(B, 50)] == [b"new"]
    table.put([A], b"node", b"\1", 1, 100, b"another prefix")
    assert len(table) == 3


def test_a_renewal_gives_records_that_are_the_same_a_later_end(make_table: MakeTable) -> None:
    table = make_table()
    table.put([A, B], b"node", b"\0", 5, 100, b"there", b"digest")
    table.put([C], b"node", b"\1", 6, 100, b"there", b"other")

    def renew(prefix: bytes, record: bytes, seq: int, addresses: bytes = b"there") -> bool:
        return table.renew(b"node", [(prefix, record)], seq, 200, addresses)[0]

    assert not renew(b"\0", b"digest", 5)
    assert not renew(b"\0", b"changed", 9)
    assert not renew(b"\0", b"digest", 9, b"elsewhere")
    assert not renew(b"\2", b"digest", 9)
    assert not renew(b"\0", b"digest", 2**63)
    assert not table.renew(b"nobody", [(b"\0", b"digest")], 9, 200, b"there")[0]
    assert [provider.expires for provider in table.lookup(A, 50)] == [100]
    both = [(b"\0", b"digest"), (b"\1", b"wrong")]
    assert table.renew(b"node", both, 9, 200, b"there") == [True, False]
    assert [p.expires for key in (A, B, C) for p in table.lookup(key, 50)] == [200, 200, 100]
    assert not renew(b"\0", b"digest", 9)
    assert table.put([A], b"node", b"\0", 9, 300, b"there") == 0


def test_a_record_of_which_keys_were_left_out_is_not_renewed_as_if_it_were_whole(
    make_table: MakeTable,
) -> None:
    table = make_table(keys_per_provider_max=2)
    assert table.put([A, B, C], b"node", b"\0", 5, 100, b"there", b"digest") == 2
    assert table.renew(b"node", [(b"\0", b"digest")], 6, 200, b"there") == [False]
    assert table.put([A, B], b"node", b"\0", 7, 100, b"there", b"digest") == 2
    assert table.renew(b"node", [(b"\0", b"digest")], 8, 200, b"there") == [True]


def test_who_has_no_records_here_costs_the_writer_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    table = ProviderTable(database)
    table.put([A], b"node", b"\0", 5, 100, b"there", b"digest")
    writes, write = [], database.write

    def noted(work: Callable[..., object], **sizes: int) -> object:
        writes.append(work)
        return write(work, **sizes)

    database.write = noted  # type: ignore[method-assign, assignment]
    assert table.renew(b"nobody", [(b"\0", b"digest")] * 32, 9, 200, b"there") == [False] * 32
    assert table.renew(b"node", [(b"\0", b"digest")], 9, 200, b"elsewhere") == [False]
    assert not writes
    assert table.renew(b"node", [(b"\0", b"digest")], 9, 200, b"there") == [True]
    assert len(writes) == 1
    database.close()


def test_the_dead_are_never_found_and_no_more_than_asked_for(make_table: MakeTable) -> None:
    table = make_table()
    for number in range(1, 6):
        table.put([A], b"node %d" % number, b"", 1, number * 10, b"")
    assert sorted(provider.expires for provider in table.lookup(A, 20)) == [30, 40, 50]
    found = table.lookup(A, 20, limit=2)
    assert len(set(found)) == 2
    assert {provider.expires for provider in found} < {30, 40, 50}


def test_long_lived_records_cannot_hide_an_honest_one(make_table: MakeTable) -> None:
    table = make_table()
    table.put([A], b"honest", b"", 1, 100, b"")
    for number in range(8):
        table.put([A], b"sybil %d" % number, b"", 1, 1000, b"")
    rng = random.Random(1)
    answers = [table.lookup(A, 0, 4, rng) for _ in range(100)]
    seen = Counter(provider.provider_id for found in answers for provider in found)
    assert len(seen) == 9
    assert 25 < seen[b"honest"] < 70


def test_equal_dice_choose_equal_providers(make_table: MakeTable) -> None:
    table = make_table()
    for number in range(20):
        table.put([A], b"node %d" % number, b"", 1, 10, b"")
    first, second, other = (table.lookup(A, 0, 8, random.Random(seed)) for seed in (1, 1, 2))
    assert first == second != other


def test_expired_and_removed_records_leave_no_keys(make_table: MakeTable) -> None:
    table = make_table()
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


def test_a_key_has_a_bounded_number_of_providers(make_table: MakeTable) -> None:
    table = make_table(providers_per_key_max=3)
    held = [table.put([A, B] if n == 4 else [A], b"%d" % n, b"", 1, 10, b"") for n in range(5)]
    assert held == [1, 1, 1, 0, 1]
    assert len(table.lookup(A, 0)) == 3
    assert len(table.lookup(B, 0)) == 1


def test_the_table_is_bounded_and_counts_what_it_replaces(make_table: MakeTable) -> None:
    table = make_table(rows_max=10)
    keys = [key_of(value) for value in numbered(20)]
    assert table.put(keys[:8], b"one", b"", 1, 10, b"") == 8
    assert table.put(keys[8:], b"two", b"", 1, 10, b"") == 2
    assert table.put(keys[8:], b"three", b"", 1, 10, b"") == 0
    assert table.put(keys[:3], b"one", b"", 2, 10, b"") == 3
    assert len(table) == 5


def test_what_is_past_its_time_makes_room_for_a_new_record(make_table: MakeTable) -> None:
    table = make_table(rows_max=4, providers_per_key_max=2)
    table.put([A], b"old 1", b"", 1, 10, b"")
    table.put([A], b"old 2", b"", 1, 10, b"")
    assert table.put([A], b"early", b"", 1, 90, b"", now=9) == 0
    assert table.put([A], b"new", b"", 1, 90, b"", now=10) == 1
    assert [provider.provider_id for provider in table.lookup(A, 0)] == [b"new"]
    table.put([B, C, key_of(b"d")], b"old 3", b"", 1, 20, b"", now=10)
    assert table.put([B, C], b"newer", b"", 1, 90, b"", now=20) == 2
    assert len(table) == 3


def test_one_provider_has_a_bounded_number_of_keys(make_table: MakeTable) -> None:
    table = make_table(keys_per_provider_max=5)
    keys = [key_of(value) for value in numbered(8)]
    assert table.put(keys[:4], b"greedy", b"\0", 1, 10, b"") == 4
    assert table.put(keys[4:], b"greedy", b"\1", 1, 10, b"") == 1
    assert table.put(keys[4:], b"greedy", b"\2", 1, 10, b"") == 0
    assert table.put(keys, b"another", b"", 1, 10, b"") == 5
    assert table.put(keys[:2], b"greedy", b"\0", 2, 10, b"") == 2
    assert table.put(keys[4:], b"greedy", b"\2", 1, 10, b"") == 2


def test_a_record_without_an_accepted_key_is_not_remembered(make_table: MakeTable) -> None:
    table = make_table(providers_per_key_max=1)
    table.put([A], b"first", b"", 1, 10, b"")
    assert table.put([A], b"second", b"", 7, 90, b"") == 0
    table.expire(10)
    assert table.put([A], b"second", b"", 7, 90, b"") == 1


def test_a_key_named_twice_counts_once(make_table: MakeTable) -> None:
    table = make_table()
    assert table.put([A, A], b"node", b"", 1, 10, b"") == 1
    assert len(table) == 1


def test_a_number_that_no_database_can_hold_is_not_newer(make_table: MakeTable) -> None:
    table = make_table()
    assert table.put([A], b"node", b"", 2**64 - 1, 100, b"") == 0
    assert table.put([A], b"node", b"", 2**63 - 1, 100, b"") == 1
