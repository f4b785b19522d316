"""What every table that stores does, whatever is behind it."""

from __future__ import annotations

import dataclasses

import pytest

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, KVPTable, Standing, TableRefused, Verdict
from tests.tables.helpers import COLLISIONS, NOW, TTL, kept, key_of, numbered, row

KIB = 1024


def test_a_stored_value_is_read_back(table: KVPTable) -> None:
    record, value = row(b"123")
    assert table.store(record, value, NOW) is Verdict.ACCEPTED
    assert table.read(record.kvpid) == b"123"
    assert table[record.kvpid] == b"123"
    assert table.record(record.kvpid) == record
    assert len(table) == 1


def test_the_idioms_of_a_mapping_work(table: KVPTable) -> None:
    kvpid = KVPID(key_of(b"123"), key_of(b"123"))
    assert kvpid not in table
    table[kvpid] = b"123"
    assert kvpid in table
    assert list(table) == [kvpid]
    assert table.record(kvpid).is_original
    del table[kvpid]
    assert kvpid not in table
    with pytest.raises(KeyError):
        table[kvpid]
    with pytest.raises(KeyError):
        del table[kvpid]


def test_a_clock_stamps_what_an_assignment_stores(make_table) -> None:
    table = make_table(clock=lambda: NOW + 0.5)
    kvpid = KVPID(key_of(b"123"), key_of(b"123"))
    table[kvpid] = b"123"
    assert table.record(kvpid).timestamp == NOW


def test_every_field_of_a_record_survives(table: KVPTable) -> None:
    record, value = kept(b"abc", key=key_of(b"file"), group="192.0.2.0/24", last_update=NOW - 5)
    table.store(record, value, NOW)
    assert table.records_by_key(record.key) == [record]


def test_an_empty_value_is_a_value(table: KVPTable) -> None:
    record, value = row(b"")
    assert table.store(record, value, NOW) is Verdict.ACCEPTED
    assert table.read(record.kvpid) == b""


def test_an_assignment_that_is_refused_raises_with_the_verdict(make_table) -> None:
    table = make_table(0)
    with pytest.raises(TableRefused) as caught:
        table[KVPID(key_of(b"1"), key_of(b"1"))] = b"1"
    assert caught.value.verdict is Verdict.FULL


def test_wrong_bytes_are_refused(table: KVPTable) -> None:
    record, _value = row(b"123")
    assert table.store(record, b"124", NOW) is Verdict.WRONG_BYTES
    wrong_blake3 = dataclasses.replace(record, blake3=bytes(32))
    assert table.store(wrong_blake3, b"123", NOW) is Verdict.WRONG_BYTES
    assert len(table) == 0


def test_a_value_larger_than_the_limit_is_refused(table: KVPTable) -> None:
    largest = row(bytes(config.VALUE_BYTES_MAX))
    larger = row(bytes(config.VALUE_BYTES_MAX + 1))
    assert table.store_many([largest, larger], NOW) == [Verdict.ACCEPTED, Verdict.TOO_LARGE]
    assert table.judge(larger[0], NOW) is Verdict.TOO_LARGE


def test_what_has_expired_is_refused(table: KVPTable) -> None:
    record, value = row(b"old", ttl=10)
    assert table.judge(record, NOW + 10) is Verdict.EXPIRED
    assert table.store(record, value, NOW + 10) is Verdict.EXPIRED
    assert table.store(record, value, NOW + 9) is Verdict.ACCEPTED


def test_rows_of_a_key_come_oldest_first(table: KVPTable) -> None:
    key = key_of(b"file")
    rows = [row(value, key=key) for value in (b"c", b"a", b"b")]
    table.store_many(rows, NOW)
    assert table.records_by_key(key) == [record for record, _value in rows]
    assert table.indices(key) == [record.index for record, _value in rows]


def test_keys_come_in_order_and_once(table: KVPTable) -> None:
    key = key_of(b"file")
    rows = [row(value) for value in numbered(40)] + [row(b"x", key=key), row(b"y", key=key)]
    table.store_many(rows, NOW)
    assert list(table.keys()) == sorted(record.kvpid for record, _value in rows)


def test_rows_of_a_range_come_in_key_order_and_no_key_is_cut(table: KVPTable) -> None:
    values = numbered(30)
    table.store_many([row(value) for value in values], NOW)
    key = sorted(key_of(value) for value in values)[9]
    table.store_many([row(b"more %d" % n, key=key) for n in range(3)], NOW)
    everything = table.records_between(0, 2**160, 1000)
    assert len(everything) == 33
    assert [r.key for r in everything] == sorted(r.key for r in everything)
    assert everything == [r for k in dict.fromkeys(r.key for r in everything)
                          for r in table.records_by_key(k)]  # fmt: skip
    page = table.records_between(0, 2**160, 11)
    assert page == everything[: len(page)]
    assert len(page) == 13  # all four rows of the tenth key
    low, end = everything[5].key.integer, everything[20].key.integer
    assert table.records_between(low, end, 1000) == everything[5:20]
    assert table.records_between(low + 1, low + 1, 1000) == []
    assert table.records_between(end, end + 1, 5) == [everything[20]]


def test_a_renewal_is_held_and_takes_the_later_expiry(table: KVPTable) -> None:
    record, value = row(b"123")
    table.store(record, value, NOW)
    later = dataclasses.replace(record, timestamp=NOW + 100, last_update=NOW + 100)
    assert table.judge(later, NOW + 100) is Verdict.HELD
    assert table.store(later, value, NOW + 100) is Verdict.HELD
    assert table.record(record.kvpid) == later
    assert table.store(record, value, NOW + 100) is Verdict.HELD
    assert table.record(record.kvpid).expires == NOW + 100 + TTL
    assert len(table) == 1


def test_a_renewal_takes_the_higher_standing_and_the_deposit(table: KVPTable) -> None:
    record, value = row(b"123", standing=Standing.CACHED)
    table.store(record, value, NOW)
    promised, _value = kept(b"123", ttl=10 * TTL)
    table.store(promised, value, NOW)
    table.store(record, value, NOW)
    assert table.record(record.kvpid) == promised
    assert table.kept_bytes == promised.cost


def test_a_renewal_needs_no_bytes(table: KVPTable) -> None:
    held, value = row(b"123")
    table.store(held, value, NOW)
    later = dataclasses.replace(held, timestamp=NOW + 100)
    promised = kept(b"123", ttl=10 * TTL)[0]
    missing = row(b"124")[0]
    lie = dataclasses.replace(held, size=4, timestamp=NOW + 100 * TTL)
    late = dataclasses.replace(missing, time_to_live=50)
    assert table.renew_many([later, missing, lie, late], NOW + 50) == [
        Verdict.HELD,
        Verdict.NOT_SENT,
        Verdict.WRONG_BYTES,
        Verdict.EXPIRED,
    ]
    assert table.record(held.kvpid) == later
    assert table.renew_many([promised, held], NOW + 50) == [Verdict.HELD] * 2
    assert table.record(held.kvpid) == promised
    assert table.renew_many([], NOW) == []
    assert table.read(held.kvpid) == value
    assert len(table) == 1


def test_a_renewal_without_bytes_keeps_to_the_share(make_table) -> None:
    table = make_table(16 * (512 + 16))
    values = numbered(12)
    table.store_many([kept(value, b"greedy") for value in values[:8]], NOW)
    record, value = row(values[8])
    table.store(record, value, NOW)
    assert table.renew_many([kept(values[8], b"greedy")[0]], NOW) == [Verdict.FULL]
    assert table.record(record.kvpid) == record
    assert table.kept_bytes == 8 * (512 + 16)


def test_only_a_deposit_extends_what_a_deposit_keeps(table: KVPTable) -> None:
    record, value = kept(b"123")
    table.store(record, value, NOW)
    stranger, _value = row(b"123", timestamp=NOW + 500)
    assert table.store(stranger, value, NOW + 500) is Verdict.HELD
    assert table.record(record.kvpid).expires == record.expires


def test_an_expired_row_is_renewed_as_if_it_were_new(table: KVPTable) -> None:
    record, value = kept(b"123", ttl=10)
    table.store(record, value, NOW)
    copy, _value = row(b"123", timestamp=NOW + 20)
    assert table.store(copy, value, NOW + 20) is Verdict.HELD
    assert table.record(record.kvpid) == copy
    assert table.kept_bytes == 0


def test_the_same_row_twice_in_one_batch_is_stored_once(table: KVPTable) -> None:
    assert table.store_many([row(b"1"), row(b"1")], NOW) == [Verdict.ACCEPTED, Verdict.HELD]
    assert len(table) == 1


def test_equal_bytes_under_two_keys_are_two_rows(table: KVPTable) -> None:
    first, second = row(b"info", key=key_of(b"file")), row(b"info")
    table.store_many([first, second], NOW)
    assert len(table) == 2
    assert table.remove(first[0].kvpid) == 1
    assert table.read(second[0].kvpid) == b"info"
    assert table.remove(second[0].kvpid) == 1
    with pytest.raises(KeyError):
        table.read(second[0].kvpid)


def test_two_values_with_one_sha1_live_side_by_side(table: KVPTable) -> None:
    values = [(COLLISIONS / f"sha-mbles-{number}.bin").read_bytes() for number in (1, 2)]
    (first, one), (second, two) = rows = [row(value) for value in values]
    assert one != two
    assert first.kvpid == second.kvpid
    assert table.store_many(rows, NOW) == [Verdict.ACCEPTED, Verdict.ACCEPTED]
    assert len(table) == 2
    assert table.read(first.kvpid) == one
    assert table.read(first.kvpid, second.blake3[:8]) == two
    assert list(table.keys()) == [first.kvpid]
    assert table.remove(first.kvpid, first.blake3) == 1
    assert table.read(first.kvpid) == two


def test_a_selector_that_matches_nothing_reads_nothing(table: KVPTable) -> None:
    record, value = row(b"123")
    table.store(record, value, NOW)
    assert table.read(record.kvpid, record.blake3[:8]) == value
    with pytest.raises(KeyError):
        table.read(record.kvpid, bytes(8))
    assert table.remove(record.kvpid, bytes(8)) == 0


def test_a_stranger_s_key_takes_four_values_of_a_depositor_and_64_in_all(table: KVPTable) -> None:
    key = key_of(b"file")
    values = iter(numbered(200))

    def offer(depositor: bytes) -> Verdict:
        return table.store(*kept(next(values), depositor, key=key), NOW)

    assert [offer(b"a") for _ in range(5)] == [Verdict.ACCEPTED] * 4 + [Verdict.PER_KEY]
    others = [offer(bytes([number])) for number in range(15) for _ in range(4)]
    assert others == [Verdict.ACCEPTED] * 60
    assert offer(b"b") is Verdict.PER_KEY
    assert table.store(*row(next(values), key=key, standing=Standing.ORIGINAL), NOW) == 0
    assert len(table.records_by_key(key)) == 65


def test_values_without_a_deposit_count_by_address_group(table: KVPTable) -> None:
    key = key_of(b"file")
    values = iter(numbered(100))

    def offer(group: str, standing: Standing = Standing.REPLICA) -> Verdict:
        return table.store(*row(next(values), key=key, group=group, standing=standing), NOW)

    for group in ("192.0.2.0/24", ""):
        mixed = [Standing.CACHED, Standing.REPLICA] * 3
        verdicts = [offer(group, standing) for standing in mixed]
        assert verdicts == [Verdict.ACCEPTED] * 4 + [Verdict.PER_KEY] * 2
    assert offer("198.51.100.0/24") is Verdict.ACCEPTED
    assert table.store(*kept(next(values), key=key, group="192.0.2.0/24"), NOW) == 0


def test_own_values_take_no_place_from_others_of_the_key(table: KVPTable) -> None:
    key = key_of(b"file")
    own = [row(value, key=key, standing=Standing.ORIGINAL) for value in numbered(5)]
    table.store_many(own, NOW)
    assert table.store(*row(b"another's", key=key), NOW) is Verdict.ACCEPTED


def test_a_kept_value_takes_the_place_of_the_oldest_without_a_deposit(table: KVPTable) -> None:
    key = key_of(b"file")
    values = numbered(100)
    junk = [row(value, key=key, group=f"g{n}") for n, value in enumerate(values[:63])]
    first = kept(values[63], b"first", key=key)
    assert set(table.store_many([first, *junk], NOW)) == {Verdict.ACCEPTED}
    heard = []
    table.value_changed_observer.register(lambda *change: heard.append(change))
    assert table.store(*row(values[64], key=key, group="another"), NOW) is Verdict.PER_KEY
    second = kept(values[65], b"second", key=key)
    assert table.judge(second[0], NOW) is Verdict.ACCEPTED
    assert table.store(*second, NOW) is Verdict.ACCEPTED
    assert heard == [(junk[0][0].kvpid, False), (second[0].kvpid, True)]
    assert len(table.records_by_key(key)) == 64


def test_a_kept_value_never_takes_the_place_of_a_kept_one(table: KVPTable) -> None:
    key = key_of(b"file")
    values = numbered(66)
    rows = [kept(value, b"%d" % n, key=key) for n, value in enumerate(values)]
    verdicts = table.store_many(rows, NOW)
    assert verdicts == [Verdict.ACCEPTED] * 64 + [Verdict.PER_KEY] * 2


def test_a_value_may_be_displaced_in_the_batch_that_brought_it(make_table) -> None:
    key = key_of(b"file")
    values = numbered(140)
    table = make_table(80 * (512 + 16))
    table.store_many([row(value) for value in values[130:]], NOW)
    junk = [row(value, key=key, group=f"g{n}") for n, value in enumerate(values[:64])]
    real = [kept(value, b"%d" % n, key=key) for n, value in enumerate(values[64:128])]
    verdicts = table.store_many([*junk, *real[:30]], NOW)
    assert verdicts == [Verdict.ACCEPTED] * 94
    left = [record for record, _value in [*junk[30:], *real[:30]]]
    assert table.records_by_key(key) == left
    for record in left:
        assert table.read(record.kvpid)
    assert len(table) == 74


def test_above_half_full_replicas_keep_to_the_eighth_of_their_group(make_table) -> None:
    cost = 512 + 16
    table = make_table(64 * cost)
    values = iter(numbered(200))

    def offer(group: str, standing: Standing = Standing.REPLICA) -> Verdict:
        return table.store(*row(next(values), group=group, standing=standing), NOW)

    flood = [offer("flood") for _ in range(33)]
    assert flood == [Verdict.ACCEPTED] * 32 + [Verdict.FULL]
    assert [offer("other") for _ in range(9)] == [Verdict.ACCEPTED] * 8 + [Verdict.FULL]
    assert offer("flood", Standing.CACHED) is Verdict.ACCEPTED
    assert [offer("") for _ in range(9)] == [Verdict.ACCEPTED] * 9
    keep = kept(next(values), b"honest", group="flood")
    assert table.store(*keep, NOW) is Verdict.ACCEPTED
    (held,) = table.records_by_key(key_of(numbered(1)[0]))
    renewal = dataclasses.replace(held, timestamp=NOW + 5)
    assert table.judge(renewal, NOW + 5) is Verdict.HELD
    for record in [table.record(kvpid) for kvpid in list(table)]:
        table.remove(record.kvpid)
    assert [offer("flood") for _ in range(33)] == flood


def test_values_that_prove_themselves_have_no_limit_of_a_depositor(table: KVPTable) -> None:
    verdicts = table.store_many([kept(value) for value in numbered(70)], NOW)
    assert set(verdicts) == {Verdict.ACCEPTED}


def test_expired_rows_free_their_places_under_a_key(table: KVPTable) -> None:
    key = key_of(b"file")
    table.store_many([kept(value, key=key, ttl=10) for value in numbered(4)], NOW)
    assert table.store(*kept(b"more", key=key), NOW + 9) is Verdict.PER_KEY
    assert table.store(*kept(b"more", key=key), NOW + 10) is Verdict.ACCEPTED


def test_a_quota_of_zero_stores_nothing(make_table) -> None:
    table = make_table(0)
    for standing in Standing:
        assert table.store(*row(b"", standing=standing), NOW) is Verdict.FULL
    assert len(table) == table.used_bytes == 0


def test_a_full_table_refuses_equals_and_counts_overhead(make_table) -> None:
    table = make_table(2 * (512 + 16))
    verdicts = table.store_many([row(value) for value in numbered(3)], NOW)
    assert verdicts == [Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.FULL]
    assert table.used_bytes == 2 * (512 + 16)


def test_cached_copies_go_first_then_the_expired_then_far_replicas(make_table) -> None:
    node_key = KeyBytes(bytes(20))
    table = make_table(5 * (512 + 16), node_key=node_key)
    values = sorted(numbered(6), key=key_of)
    near, far, cached, old = values[0], values[-1], values[1], values[2]
    table.store_many(
        [row(near), row(far), row(cached, standing=Standing.CACHED), kept(old, ttl=10)], NOW
    )
    table.store(*row(values[3], standing=Standing.ORIGINAL), NOW)
    gone = []
    table.value_changed_observer.register(
        lambda kvpid, is_added: is_added or gone.append(kvpid.key)
    )
    for value in (b"first", b"second", b"third", b"fourth"):
        table.store(*row(value.ljust(16), standing=Standing.ORIGINAL), NOW + 20)
    assert gone == [key_of(value) for value in (cached, old, far, near)]
    assert table.judge(row(b"fifth".ljust(16), standing=Standing.ORIGINAL)[0], NOW) is Verdict.FULL


def test_a_kept_value_never_goes_before_its_time(make_table) -> None:
    table = make_table(2 * (512 + 16))
    record, value = kept(bytes(16))
    table.store(record, value, NOW)
    table.store(*row(b"o" * 16, standing=Standing.ORIGINAL, ttl=10 * TTL), NOW)
    newcomer = row(b"n" * 16, standing=Standing.ORIGINAL, ttl=10 * TTL)
    assert table.store(*newcomer, record.expires - 1) is Verdict.FULL
    assert table.read(record.kvpid) == value
    assert table.store(*newcomer, record.expires) is Verdict.ACCEPTED


@pytest.mark.parametrize("by", ["depositor", "group"])
def test_above_half_full_nobody_keeps_more_than_an_eighth(make_table, by: str) -> None:
    cost = 512 + 16
    table = make_table(64 * cost)
    values = iter(numbered(200))

    def keep(depositor: bytes, group: str) -> Verdict:
        return table.store(*kept(next(values), depositor, group=group), NOW)

    assert [keep(b"%d" % n, f"{n}") for n in range(32)] == [Verdict.ACCEPTED] * 32
    name = [(b"one", f"g{n}") if by == "depositor" else (b"o%d" % n, "one") for n in range(9)]
    assert [keep(*who) for who in name] == [Verdict.ACCEPTED] * 8 + [Verdict.FULL]
    assert keep(b"another", "another") is Verdict.ACCEPTED


def test_address_groups_are_counted_only_where_there_is_one(make_table) -> None:
    table = make_table(64 * (512 + 16))
    rows = [kept(value, b"%d" % n) for n, value in enumerate(numbered(64))]
    assert table.store_many(rows, NOW) == [Verdict.ACCEPTED] * 64


def test_an_upgrade_beyond_the_share_is_not_promised(make_table) -> None:
    table = make_table(16 * (512 + 16))
    values = numbered(12)
    table.store_many([kept(value, b"greedy") for value in values[:8]], NOW)
    record, value = row(values[8])
    table.store(record, value, NOW)
    assert table.store(*kept(values[8], b"greedy"), NOW) is Verdict.FULL
    assert table.record(record.kvpid).standing is Standing.REPLICA


def test_a_renewal_is_held_however_full_the_table_is(make_table) -> None:
    table = make_table(16 * (512 + 16))
    values = numbered(16)
    table.store_many([kept(value, b"first") for value in values[:8]], NOW)
    table.store_many([row(value, standing=Standing.ORIGINAL) for value in values[8:]], NOW)
    copy = row(values[0], standing=Standing.CACHED)
    later = kept(values[0], b"first", timestamp=NOW + 5)
    for offer in (copy, later):
        assert table.judge(offer[0], NOW) is Verdict.HELD
        assert table.store(*offer, NOW) is Verdict.HELD


def test_a_nameless_keep_of_a_held_row_counts_to_the_nameless(make_table) -> None:
    table = make_table(16 * (512 + 16))
    values = numbered(12)
    table.store_many([kept(value, b"") for value in values[:8]], NOW)
    record, value = row(values[8], depositor=b"")
    table.store(record, value, NOW)
    offer = row(values[8], standing=Standing.KEPT, depositor=b"another")
    assert table.judge(offer[0], NOW) is Verdict.FULL
    assert table.store(*offer, NOW) is Verdict.FULL


def test_a_row_renewed_in_a_batch_no_longer_makes_room_for_the_next(make_table) -> None:
    table = make_table(2 * (512 + 16))
    expired = row(bytes(16), ttl=10)
    table.store_many([expired, row(b"o" * 16, standing=Standing.ORIGINAL)], NOW)
    renewal = row(bytes(16), timestamp=NOW + 20)
    batch = [row(bytes(600)), renewal, row(b"n" * 16)]
    assert table.store_many(batch, NOW + 20) == [Verdict.FULL, Verdict.HELD, Verdict.FULL]
    assert table.records_by_key(expired[0].key) == [renewal[0]]


def test_expire_removes_the_oldest_expiry_first_and_no_live_row(table: KVPTable) -> None:
    rows = [row(value, ttl=ttl) for value, ttl in zip(numbered(3), (30, 10, 20), strict=True)]
    table.store_many(rows, NOW)
    assert table.expire(NOW + 9) == 0
    assert table.expire(NOW + 20, limit=1) == 1
    assert rows[1][0].kvpid not in table
    assert table.expire(NOW + 20) == 1
    assert list(table) == [rows[0][0].kvpid]
    assert table.used_bytes == rows[0][0].cost


def test_reads_do_not_look_at_the_clock(table: KVPTable) -> None:
    record, value = row(b"123", ttl=1)
    table.store(record, value, NOW)
    table.judge(row(b"another")[0], NOW + 10**9)
    assert table.read(record.kvpid) == value


def test_judge_says_what_store_answers_and_changes_nothing(make_table) -> None:
    table = make_table(2 * (512 + 16))
    table.store(*row(bytes(16), standing=Standing.CACHED), NOW)
    table.store(*row(b"r" * 16), NOW)
    offers = [row(b"c" * 16, standing=Standing.CACHED), row(b"k" * 16, standing=Standing.ORIGINAL)]
    judged = [table.judge(record, NOW) for record, _value in offers]
    assert judged == [Verdict.FULL, Verdict.ACCEPTED]
    assert len(table) == 2
    assert [table.store(*offer, NOW) for offer in offers] == judged


def test_is_acceptable_asks_as_in_2012(make_table) -> None:
    table = make_table(4 * KIB)
    record, value = row(b"123")
    assert table.is_acceptable(record.kvpid, 3, NOW)
    assert not table.is_acceptable(record.kvpid, 5 * KIB, NOW)
    table.store(record, value, NOW)
    assert not table.is_acceptable(record.kvpid, 3, NOW)


def test_observers_hear_of_each_row_after_it_can_be_read(table: KVPTable) -> None:
    heard = []

    def listen(kvpid: KVPID, is_added: bool) -> None:
        heard.append((kvpid, is_added, kvpid in table))

    table.value_changed_observer.register(listen)
    record, value = row(b"123")
    table.store(record, value, NOW)
    table.store(record, value, NOW)
    table.remove(record.kvpid)
    assert heard == [(record.kvpid, True, True), (record.kvpid, False, False)]
