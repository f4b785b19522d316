"""Several tables as one: what the shared suite does not say about more than one."""

from __future__ import annotations

import dataclasses

import pytest

from bytestag.tables.aggregated import AggregatedKVPTable
from bytestag.tables.base import Verdict
from bytestag.tables.memory import MemoryKVPTable
from tests.tables.helpers import NOW, key_of, row


class Three:
    def __init__(self) -> None:
        self.primary = MemoryKVPTable(10_000)
        self.others = [MemoryKVPTable(), MemoryKVPTable()]
        self.table = AggregatedKVPTable(self.primary, self.others)


@pytest.fixture
def three() -> Three:
    return Three()


def test_the_first_table_that_has_a_value_answers(three: Three) -> None:
    record, value = row(b"shared")
    three.others[1].store(record, value, NOW)
    assert three.table.read(record.kvpid) == value
    assert three.table.record(record.kvpid) == record
    assert list(three.table) == [record.kvpid]


def test_a_row_in_two_tables_is_one_row_of_a_key(three: Three) -> None:
    record, value = row(b"shared")
    three.primary.store(record, value, NOW)
    three.others[0].store(record, value, NOW)
    other, other_value = row(b"another", key=record.key)
    three.others[1].store(other, other_value, NOW)
    assert three.table.records_by_key(record.key) == [record, other]
    assert list(three.table) == sorted([record.kvpid, other.kvpid])


def test_what_another_table_has_is_held_and_not_copied(three: Three) -> None:
    record, value = row(b"shared")
    three.others[0].store(record, value, NOW)
    assert three.table.judge(record, NOW) is Verdict.HELD
    new, new_value = row(b"new")
    assert three.table.store_many([(record, value), (new, new_value)], NOW) == [
        Verdict.HELD,
        Verdict.ACCEPTED,
    ]
    assert list(three.primary) == [new.kvpid]


def test_a_renewal_still_renews_the_primary_s_row(three: Three) -> None:
    record, value = row(b"both")
    three.primary.store(record, value, NOW)
    three.others[0].store(record, value, NOW)
    later = dataclasses.replace(record, timestamp=NOW + 1000)
    assert three.table.judge(later, NOW + 1000) is Verdict.HELD
    assert three.table.store(later, value, NOW + 1000) is Verdict.HELD
    assert three.primary.record(record.kvpid).expires == record.expires + 1000


def test_a_full_primary_still_says_held_for_what_is_shared(three: Three) -> None:
    three.primary.max_size = 0
    record, value = row(b"shared")
    three.others[0].store(record, value, NOW)
    assert three.table.store(record, value, NOW) is Verdict.HELD
    assert three.table.store(*row(b"new"), NOW) is Verdict.FULL


def test_removing_and_expiring_touch_the_primary_alone(three: Three) -> None:
    record, value = row(b"both")
    three.primary.store(record, value, NOW)
    three.others[0].store(record, value, NOW)
    assert three.table.remove(record.kvpid) == 1
    assert record.kvpid in three.table
    assert three.table.expire(record.expires) == 0


def test_changes_of_every_table_are_heard(three: Three) -> None:
    heard = []
    three.table.value_changed_observer.register(lambda *change: heard.append(change))
    for number, table in enumerate([three.primary, *three.others]):
        table.store(*row(b"%d" % number), NOW)
    assert [kvpid.key for kvpid, _is_added in heard] == [key_of(b"%d" % n) for n in range(3)]


def test_a_renewal_reaches_the_primary_s_row_and_no_other() -> None:
    primary, other = MemoryKVPTable(), MemoryKVPTable()
    table = AggregatedKVPTable(primary, [other])
    here, there, both = (row(value) for value in (b"here", b"there", b"both"))
    primary.store_many([here, both], NOW)
    other.store_many([there, both], NOW)
    later = [row(value, timestamp=NOW + 9)[0] for value in (b"here", b"there", b"both", b"none")]
    assert table.renew_many(later, NOW + 9) == [Verdict.HELD] * 3 + [Verdict.NOT_SENT]
    assert primary.record(later[0].kvpid) == later[0]
    assert primary.record(later[2].kvpid) == later[2]
    assert len(primary) == 2
    assert other.record(there[0].kvpid) == there[0]
    assert other.record(both[0].kvpid) == both[0]
