"""What one look-up tells about its neighbourhood is true for every key of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.dht.regions import REGIONS_MAX, RegionMap
from bytestag.dht.routing import KEY_END, Contact
from bytestag.keys import KeyBytes

IDS = st.integers(0, KEY_END - 1)


def key(number):
    return KeyBytes(number.to_bytes(20, "big"))


def contact(number, donates=True):
    return Contact(key(number), ("10.0.0.1", 4000), capabilities=int(donates))


def closest(nodes, target):
    return sorted(nodes, key=lambda n: n ^ target)


def look_up(nodes, target, k):
    """Return what a true look-up gives: the k closest, and whether these are all."""
    found = closest(nodes, target)[:k]
    return [contact(n, n % 3 > 0) for n in found], len(nodes) < k


@given(
    st.sets(IDS, min_size=1, max_size=120),
    st.lists(st.tuples(IDS, IDS), min_size=1, max_size=20),
    st.integers(2, 20),
    st.integers(1, 20),
    st.booleans(),
    st.integers(0, 150),
)
def test_an_answer_is_always_the_true_closest(nodes, targets, k, count, only_donors, shift):
    nodes = {n >> shift for n in nodes}
    regions = RegionMap()
    able = {n for n in nodes if n % 3 > 0 or not only_donors}
    answers = 0
    for learnt, asked in targets:
        contacts, is_complete = look_up(nodes, learnt >> shift, k)
        regions.learn(key(learnt >> shift), contacts, is_complete=is_complete)
        for target in (learnt >> shift, asked >> shift, (learnt >> shift) ^ 1):
            found = regions.closest(key(target), count, lambda c: c.is_donor or not only_donors)
            if found is not None:
                answers += 1
                true = closest(able, target)
                assert [c.long_id for c in found] == true[: len(found)]
                assert len(found) >= min(count, len(true))
    assert answers or len(nodes) >= k


def test_a_key_beside_the_target_needs_no_look_up_of_its_own():
    nodes = [n * (KEY_END // 256) for n in range(256)]
    regions = RegionMap()
    contacts, _ = look_up(nodes, nodes[100], 20)
    regions.learn(key(nodes[100]), contacts, is_complete=False)
    beside = nodes[100] + 12345
    assert [c.long_id for c in regions.closest(key(beside), 8, lambda c: True)] == closest(
        nodes, beside
    )[:8] or len(regions.closest(key(beside), 8, lambda c: True)) > 8
    assert regions.closest(key(nodes[200]), 1, lambda c: True) is None
    assert regions.closest(key(beside), 17, lambda c: True) is None


def test_nothing_is_known_before_the_first_look_up_or_from_an_empty_one():
    regions = RegionMap()
    assert regions.closest(key(5), 1, lambda c: True) is None
    regions.learn(key(5), [], is_complete=False)
    assert regions.closest(key(5), 1, lambda c: True) is None
    regions.learn(key(5), [contact(5)], is_complete=False)
    assert regions.closest(key(5), 1, lambda c: True) is None


def test_when_all_nodes_are_known_every_key_has_its_answer():
    regions = RegionMap()
    regions.learn(key(5), [contact(1), contact(2)], is_complete=True)
    assert [c.long_id for c in regions.closest(key(KEY_END - 1), 20, lambda c: True)] == [2, 1]
    assert regions.closest(key(3), 20, lambda c: False) == []


@pytest.mark.slow
def test_the_map_is_bounded():
    regions = RegionMap()
    for number in range(REGIONS_MAX + 100):
        base = number << 140
        regions.learn(key(base), [contact(base), contact(base + 3)], is_complete=False)
    assert len(regions._regions) == REGIONS_MAX


def sweep(nodes, keys, count, k=20):
    """Ask for the closest of each key as a job does; return the answers and the look-ups made."""
    regions, look_ups, answers = RegionMap(), 0, []
    for number in keys:
        while (found := regions.closest(key(number), count, lambda c: True)) is None:
            target = int.from_bytes(regions.gap(key(number)), "big")
            contacts, is_complete = look_up(nodes, target, k)
            look_ups += 1
            assert regions.learn(key(target), contacts, is_complete=is_complete)
        answers.append([c.long_id for c in found[:count]])
    return answers, look_ups


def test_keys_in_order_cost_a_look_up_a_region_and_every_answer_is_exact():
    rng = random.Random(1)
    nodes = [rng.getrandbits(160) for _ in range(2000)]
    keys = sorted(rng.getrandbits(160) for _ in range(3000))
    answers, look_ups = sweep(nodes, keys, 20)
    for number, answer in zip(keys[::50], answers[::50], strict=True):
        assert answer == closest(nodes, number)[:20]
    assert look_ups < 2000 / 20 * 2.2


@given(st.sets(IDS, min_size=1, max_size=200), st.lists(IDS, min_size=1), st.integers(1, 20))
def test_in_any_order_every_answer_is_exact_too(nodes, keys, count):
    answers, _ = sweep(nodes, keys, count)
    assert answers == [closest(nodes, number)[:count] for number in keys]
