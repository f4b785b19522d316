"""A census names millions of valid identities, and knows who is close to whom."""

import random

import pytest

from bytestag.errors import UsageError
from bytestag.sim.census import NODES_MAX, Census


def test_each_node_has_a_valid_identity_of_its_own_and_an_address():
    census = Census(500, seed=1)
    assert len({census.node_id(index) for index in range(500)}) == 500
    for index in (0, 22, 23, 499):
        identity = census.identity(index)
        assert identity.node_id == census.node_id(index)
        assert census.index_of(census.address(index)) == index


def test_addresses_of_nobody_are_nobodys():
    census = Census(300)
    for address in (("10.0.1.44", 4000), ("10.0.0.1", 4001), ("11.0.0.1", 4000), ("::1", 4000)):
        assert census.index_of(address) is None


def test_the_same_seed_gives_the_same_nodes_and_another_seed_others():
    assert Census(50, seed=3).node_id(49) == Census(50, seed=3).node_id(49)
    assert Census(50, seed=3).node_id(49) != Census(50, seed=4).node_id(49)


def test_ranks_are_those_of_the_sorted_ids():
    census = Census(1000, seed=2)
    ids = sorted(census.node_id(index) for index in range(1000))
    assert [census.node_id(census.index_at(rank)) for rank in range(1000)] == ids
    for depth in range(12):
        for prefix in range(0, 1 << depth, 3):
            first, end = census.ranks(prefix, depth)
            inside = [i for i, id_ in enumerate(ids) if int(id_.hex(), 16) >> 160 - depth == prefix]
            assert list(range(first, end)) == inside


def test_the_closest_are_the_true_ones():
    census = Census(700, seed=5)
    chance = random.Random(1)
    ids = [census.node_id(index) for index in range(700)]
    for accept in (lambda index: True, lambda index: index % 3 == 0):
        for _ in range(20):
            key = chance.randbytes(20)
            goal = int.from_bytes(key, "big")
            order = sorted(range(700), key=lambda i, g=goal: int.from_bytes(ids[i], "big") ^ g)
            assert census.closest(key, 20, accept) == [i for i in order if accept(i)][:20]
    assert len(census.closest(bytes(20), 1000)) == 700


def test_progress_is_told():
    told = []
    Census(1000, report=lambda done, of: told.append((done, of)))
    assert told[-1] == (1000, 1000)


@pytest.mark.parametrize("nodes", [0, NODES_MAX + 1])
def test_there_are_as_many_nodes_as_addresses_at_most(nodes):
    with pytest.raises(UsageError):
        Census(nodes)
