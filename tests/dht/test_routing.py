"""The routing table: exact neighbours, order of last sight, spares, diversity, bounds."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kademlia.node import Node
from kademlia.routing import RoutingTable as StockTable

from bytestag.config import K
from bytestag.dht.routing import (
    GROUP_IN_BUCKET_MAX,
    GROUP_IN_TABLE_MAX,
    KEY_END,
    SPARES_MAX,
    Contact,
    RoutingTable,
    address_group,
)
from bytestag.keys import KeyBytes

OWN = Contact(KeyBytes(bytes(20)), ("10.0.0.1", 4000))
IDS = st.integers(1, KEY_END - 1)


def key(number):
    return KeyBytes(number.to_bytes(20, "big"))


def contact(number, host="10.0.0.2", seen=0.0):
    return Contact(key(number), (host, 4000), last_seen=seen)


def table_of(numbers, own=0, ksize=K):
    table = RoutingTable(Contact(key(own), ("10.0.0.1", 4000)), ksize)
    for number in numbers:
        table.add_contact(contact(number))
    return table


# --- Neighbours ----------------------------------------------------------------------------------


@given(st.sets(IDS, min_size=1, max_size=400), IDS, IDS, st.integers(1, 30))
def test_the_closest_are_exactly_the_closest_that_are_in_the_table(ids, own, target, count):
    table = table_of(ids - {own}, own)
    members = sorted((c.long_id for c in table), key=lambda number: number ^ target)
    assert [c.long_id for c in table.closest(key(target), count)] == members[:count]


@given(st.sets(st.integers(1, 2**10), min_size=1, max_size=200), st.integers(0, 2**10))
def test_it_is_exact_among_crowded_ids_too(ids, target):
    crowded = {number << 150 for number in ids if number << 150 < KEY_END}
    table = table_of(crowded, ksize=4)
    members = sorted((c.long_id for c in table), key=lambda n: n ^ (target << 149))
    found = table.closest(key(min(target << 149, KEY_END - 1)), 7)
    if target << 149 < KEY_END:
        assert [c.long_id for c in found] == members[:7]


@given(st.sets(IDS, max_size=100), st.integers(0, 100))
def test_whether_so_many_are_known_is_found_without_counting_all(ids, count):
    table = table_of(ids)
    assert table.knows(count) == (len(table) >= count)
    assert table.is_empty == (not table.knows(1))


def test_those_that_are_not_accepted_are_left_out_without_losing_others():
    ids = [random.Random(1).getrandbits(160) for _ in range(300)]
    table = table_of(ids)
    odd = [c.long_id for c in table if c.long_id % 2]
    found = table.closest(key(ids[0]), 20, lambda c: bool(c.long_id % 2))
    assert [c.long_id for c in found] == sorted(odd, key=lambda n: n ^ ids[0])[:20]


@given(
    st.sets(IDS, min_size=1, max_size=200), st.sets(st.integers(0, 199)), IDS, st.integers(1, 30)
)
def test_those_that_answered_come_first_and_others_only_if_those_are_too_few(
    ids, silent, target, count
):
    table = table_of(ids)
    members = sorted(table, key=lambda c: c.long_id ^ target)
    for number in silent & set(range(len(members))):
        members[number].fails = 1
    others = [c for c in members if c.fails]
    sound = [c for c in members if not c.fails]
    assert table.closest_sound(key(target), count) == [*sound, *others][:count]


def test_a_contact_is_doubted_from_its_silence_to_its_answer():
    table = table_of([5])
    assert not table.doubts(key(5))
    assert not table.doubts(key(6))
    table.has_failed(key(5), 3)
    assert table.doubts(key(5))
    table.add_contact(contact(5))
    assert not table.doubts(key(5))


def test_find_neighbors_is_exact_where_kademlias_own_is_not():
    rng = random.Random(5)
    ids = [rng.getrandbits(160) for _ in range(300)]
    ours, stock = table_of(ids), StockTable(None, K, Node(bytes(20)))
    for contact_ in ours:
        stock.add_contact(Node(contact_.id, *contact_.address))
    members = [node.long_id for bucket in stock.buckets for node in bucket.get_nodes()]
    wrong = 0
    for _ in range(100):
        target = rng.getrandbits(160)
        exact = sorted(members, key=lambda number: number ^ target)[:K]
        wrong += [n.long_id for n in stock.find_neighbors(Node(key(target)))] != exact
        mine = sorted((c.long_id for c in ours), key=lambda number: number ^ target)[:K]
        assert [c.long_id for c in ours.find_neighbors(Node(key(target)))] == mine
    assert wrong > 10


def test_the_asker_is_excluded_by_its_address():
    table = table_of([])
    for number in range(1, 5):
        table.add_contact(contact(number, f"10.0.0.{number}"))
    asker = Node(key(9), "10.0.0.2", 4000)
    assert {c.long_id for c in table.find_neighbors(Node(key(2)), exclude=asker)} == {1, 3, 4}


# --- Order and spares ----------------------------------------------------------------------------


def test_a_contact_that_answers_again_becomes_the_most_recently_seen():
    table = table_of([1, 2, 3])
    table.add_contact(contact(1))
    assert [c.long_id for c in table] == [2, 3, 1]


def one_bucket(hosts=("10.0.0.2",) * K, spares=(), own=0):
    """Return a table whose far half is one full bucket with spares: 2^159 + 1, + 2 …"""
    table = RoutingTable(Contact(key(own), ("10.0.0.1", 4000)))
    table.split_bucket(0)
    bucket = table.buckets[1]
    bucket.depth = lambda: 5  # as if its contacts shared five bits
    for number, host in enumerate((*hosts, *spares), 1):
        table.add_contact(contact(2**159 + number, host, float(number)))
    return table, bucket


def numbers(contacts):
    return [c.long_id - 2**159 for c in contacts.values()]


def test_a_full_bucket_names_the_least_recently_seen_to_be_pinged():
    table, bucket = one_bucket()
    table.add_contact(contact(2**159 + 1, seen=30.0))
    assert table.add_contact(contact(2**159 + 21, seen=31.0)).long_id == 2**159 + 2
    assert table.contact(key(2**159 + 21)) is None
    assert numbers(bucket.replacement_nodes) == [21]


def test_the_freshest_spare_takes_the_place_of_one_that_failed():
    table, bucket = one_bucket(spares=["10.0.0.2"] * 3)
    assert numbers(bucket.replacement_nodes) == [21, 22, 23]
    assert table.has_failed(key(2**159 + 5), fails_max=3)
    assert numbers(bucket.nodes) == [n for n in range(1, 21) if n != 5] + [23]
    assert numbers(bucket.replacement_nodes) == [21, 22]


def test_without_a_spare_a_contact_is_given_several_chances_and_an_answer_clears_them():
    table, _ = one_bucket(hosts=["10.0.0.2"] * 3)
    name = key(2**159 + 1)
    assert not table.has_failed(name, 3)
    assert not table.has_failed(name, 3)
    table.add_contact(contact(2**159 + 1))
    assert [table.has_failed(name, 3) for _ in range(3)] == [False, False, True]
    assert table.contact(name) is None
    assert not table.has_failed(name, 3)


def test_spares_are_bounded_and_the_oldest_go_first():
    _, bucket = one_bucket(spares=["10.0.0.2"] * 50)
    assert numbers(bucket.replacement_nodes) == list(range(51, 71))
    assert len(bucket.replacement_nodes) == SPARES_MAX


def test_after_a_split_spares_take_the_places_that_became_free():
    table, bucket = one_bucket(spares=["10.0.0.2"] * 3)
    del bucket.depth
    bucket.range = (2**159, KEY_END - 1)
    table.split_bucket(1)
    assert len(table) == K  # all share the first bits: one half is full again
    assert sum(len(b.replacement_nodes) for b in table.buckets) == 3
    table.buckets[1].depth = lambda: 5
    table.remove_contact(contact(2**159 + 1))
    table.remove_contact(contact(2**159 + 2))
    assert numbers(table.buckets[1].nodes) == [*range(3, 21), 22, 23]


def test_wants_says_whether_somebody_new_could_be_of_use():
    table, _ = one_bucket(spares=["10.0.0.2"] * (SPARES_MAX - 1))
    assert not table.wants(OWN.id)
    assert not table.wants(key(2**159 + 1))  # in the table
    assert not table.wants(key(2**159 + 25))  # a spare
    assert table.wants(key(2**159 + 500))
    table.add_contact(contact(2**159 + 400))
    assert not table.wants(key(2**159 + 500))
    assert table.wants(key(7))


def test_a_bucket_that_was_looked_into_is_not_lonely():
    table = table_of([2**159, 1])
    table.split_bucket(0)
    table.touch(key(1), 500.0)
    assert [b.range[0] for b in table.lonely_buckets(before=400.0)] == [2**159]


# --- Diversity -----------------------------------------------------------------------------------


def test_groups_are_of_global_addresses_only():
    assert address_group("8.8.8.8") == "8.8.8.0/24"
    assert address_group("2a00:1450:4001:82a::200e") == "2a00:1450:4001::/48"
    for host in ("10.0.0.1", "127.0.0.1", "192.168.1.1", "fe80::1", "::1"):
        assert address_group(host) == ""


def test_a_network_has_few_contacts_in_a_bucket_and_in_the_table():
    rng = random.Random(2)
    ids = [rng.getrandbits(160) for _ in range(200)]
    table = RoutingTable(OWN)
    for n, number in enumerate(ids):
        table.add_contact(contact(number, f"8.8.8.{n}"))
    assert len(table) == GROUP_IN_BUCKET_MAX
    for n, number in enumerate(ids[:50]):
        table.add_contact(contact(number + 1, f"10.0.0.{n}"))
    for n, number in enumerate(ids):
        table.add_contact(contact(number, f"8.8.8.{n}"))
    of_group = [c for c in table if c.address[0].startswith("8.")]
    assert len(of_group) == GROUP_IN_TABLE_MAX
    assert len(table) > 40


def group_counts(table):
    buckets = [
        sum(address_group(c.address[0]) == "8.8.8.0/24" for c in b.nodes.values())
        for b in table.buckets
    ]
    return max(buckets), sum(buckets)


def test_spares_of_one_network_do_not_take_more_places_than_it_may_have():
    table, bucket = one_bucket(spares=[f"8.8.8.{n}" for n in range(10)])
    for number in range(1, 11):
        table.has_failed(key(2**159 + number), 1)
    assert group_counts(table) == (GROUP_IN_BUCKET_MAX, GROUP_IN_BUCKET_MAX)
    assert len(bucket.replacement_nodes) == 8


def test_a_removed_contact_makes_room_for_another_of_its_network():
    table = table_of([])
    for number in (1, 2, 3):
        table.add_contact(contact(number, "8.8.8.8"))
    assert group_counts(table)[1] == 2
    table.remove_contact(contact(1))
    table.add_contact(contact(3, "8.8.8.8"))
    assert [c.long_id for c in table] == [2, 3]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "fail", "remove", "again"]), st.integers(0, 90))))
def test_whatever_happens_the_counts_the_order_and_the_limits_hold(steps):
    table, now = table_of([], ksize=4), 0.0
    for action, number in steps:
        now += 1
        name = (number * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276B + 1) % KEY_END
        host = f"8.8.{number % 3}.{number}" if number % 2 else f"10.0.0.{number}"
        match action:
            case "add" | "again":
                table.add_contact(contact(name, host, now))
            case "fail":
                table.has_failed(key(name), 2)
            case "remove":
                table.remove_contact(contact(name))
        seen: dict[str, int] = {}
        for bucket in table.buckets:
            order = [c.last_seen for c in bucket.nodes.values()]
            assert order == sorted(order)
            assert len(order) <= 4
            assert not bucket.nodes.keys() & bucket.replacement_nodes.keys()
            local: dict[str, int] = {}
            for c in bucket.nodes.values():
                assert bucket.range[0] <= c.long_id <= bucket.range[1]
                if group := address_group(c.address[0]):
                    local[group] = local.get(group, 0) + 1
                    seen[group] = seen.get(group, 0) + 1
            assert all(count <= GROUP_IN_BUCKET_MAX for count in local.values())
        assert all(count <= GROUP_IN_TABLE_MAX for count in seen.values())
        assert seen == table._groups


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 19, 21])
def test_an_id_of_another_length_is_refused(length):
    with pytest.raises(ValueError):
        Contact(bytes(length), ("10.0.0.1", 4000))


def test_the_own_id_never_enters():
    table = table_of([0, 1], own=1)
    assert [c.long_id for c in table] == [0]


@pytest.mark.slow
def test_the_table_is_bounded_however_many_are_met():
    rng = random.Random(3)
    table = RoutingTable(OWN)
    sizes = []
    for _ in range(4):
        for _ in range(10_000):
            table.add_contact(contact(rng.getrandbits(160)))
        sizes.append(len(table))
    assert sizes[-1] < 1_500
    assert sizes[-1] - sizes[0] < 400
    assert sum(len(b.replacement_nodes) for b in table.buckets) <= SPARES_MAX * len(table.buckets)
