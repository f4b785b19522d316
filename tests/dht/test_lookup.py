"""Shortlist: whom a walk asks, whom it waits for, when it ends; and walks of real nodes."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytestag.config import ALPHA
from bytestag.dht.lookup import CANDIDATES_MAX, Shortlist
from bytestag.dht.protocol import Answer
from bytestag.dht.routing import Contact
from bytestag.keys import KeyBytes
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster

GOAL = KeyBytes(bytes(20))


def contact(distance):
    return Contact(KeyBytes(distance.to_bytes(20, "big")), ("10.0.0.1", 4000))


def contacts(*distances):
    return [contact(distance) for distance in distances]


def distances(found):
    return [c.long_id for c in found]


def shortlist(*known, **options):
    made = Shortlist(GOAL, **options)
    made.add(contacts(*known))
    return made


def answer(walk, *which):
    for distance in which:
        walk.receive_answer(contact(distance), [])


# --- Asking --------------------------------------------------------------------------------------


def test_the_closest_are_asked_first_and_alpha_at_a_time():
    walk = shortlist(5, 3, 9, 1, 7, alpha=2)
    assert distances(walk.contacts_to_ask()) == [1, 3]
    assert walk.contacts_to_ask() == []
    answer(walk, 3)
    assert distances(walk.contacts_to_ask()) == [5]


def test_only_the_k_closest_are_asked():
    walk = shortlist(*range(1, 10), k=3, alpha=8)
    assert distances(walk.contacts_to_ask()) == [1, 2, 3]
    walk.receive_failure(contact(2))
    assert distances(walk.contacts_to_ask()) == [4]


def test_a_slow_contact_frees_its_place_for_two_and_its_answer_still_counts():
    walk = shortlist(1, 2, 3, 5, alpha=1)
    walk.contacts_to_ask()
    walk.receive_slow(contact(1))
    assert distances(walk.contacts_to_ask()) == [2, 3]
    walk.receive_answer(contact(1), contacts(4))
    assert distances(walk.closest()) == [1]
    assert walk.answered == 1


def test_a_late_contact_is_not_waited_for_and_the_next_takes_its_rank():
    walk = shortlist(1, 2, 3, k=2)
    walk.contacts_to_ask()
    walk.receive_slow(contact(1))
    answer(walk, 2)
    assert not walk.is_finished
    assert walk.contacts_to_ask() == []
    walk.receive_late(contact(1))
    assert distances(walk.contacts_to_ask()) == [3]
    answer(walk, 3)
    assert walk.is_finished
    assert distances(walk.closest()) == [2, 3]


def test_when_all_are_late_the_walk_still_waits_for_the_first_answer():
    walk = shortlist(1, 2)
    walk.contacts_to_ask()
    for c in contacts(1, 2):
        walk.receive_slow(c)
        walk.receive_late(c)
    assert not walk.is_finished
    answer(walk, 2)
    assert walk.is_finished


def test_a_contact_that_failed_never_comes_back_whoever_mentions_it():
    walk = shortlist(1, 2)
    walk.contacts_to_ask()
    walk.receive_failure(contact(1))
    walk.receive_answer(contact(2), contacts(1))
    assert walk.contacts_to_ask() == []
    assert walk.is_finished
    assert distances(walk.closest()) == [2]
    assert (walk.asked, walk.answered) == (2, 1)


def test_nobody_is_asked_twice_and_the_asker_not_at_all():
    walk = shortlist(1, 2, exclude=contact(9).id)
    walk.contacts_to_ask()
    walk.receive_answer(contact(1), contacts(1, 2, 9, 9, 3))
    assert distances(walk.contacts_to_ask()) == [3]


def test_a_hundred_candidates_are_kept_the_closest():
    walk = shortlist(*range(1000, 400, -1))
    assert len(walk._candidates) == len(walk._by_id) == CANDIDATES_MAX == 100
    assert distances(walk.contacts_to_ask())[0] == 401
    walk.receive_failure(contact(9999))
    walk.receive_slow(contact(9999))


# --- The end -------------------------------------------------------------------------------------


def test_a_walk_that_knows_nobody_is_over():
    assert shortlist().is_finished


def test_to_store_the_k_closest_must_have_answered():
    walk = shortlist(*range(1, 30), k=3)
    walk.contacts_to_ask()
    answer(walk, 2, 3)
    assert not walk.is_finished
    answer(walk, 1)
    assert walk.is_finished


def test_to_find_the_beta_closest_suffice():
    walk = shortlist(*range(1, 30), is_thorough=False, beta=3, alpha=8)
    walk.contacts_to_ask()
    answer(walk, 2, 3, 4)
    assert not walk.is_finished
    walk.receive_slow(contact(1))
    assert walk.is_finished


def test_a_closer_contact_that_is_mentioned_last_is_asked_before_the_end():
    walk = shortlist(5, 6, 7, k=3)
    walk.contacts_to_ask()
    answer(walk, 5, 6)
    walk.receive_answer(contact(7), contacts(1))
    assert not walk.is_finished
    assert distances(walk.contacts_to_ask()) == [1]


def test_when_all_have_failed_the_walk_is_over_and_empty():
    walk = shortlist(1, 2)
    for c in walk.contacts_to_ask():
        walk.receive_failure(c)
    assert walk.is_finished
    assert walk.closest() == []
    assert (walk.asked, walk.answered) == (2, 0)


BEHAVIOUR = st.sampled_from(["answers", "answers", "slow", "late", "late answers", "fails"])


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.dictionaries(st.integers(1, 5_000), BEHAVIOUR, min_size=1, max_size=90),
    st.booleans(),
    st.integers(1, 8),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_a_walk_always_ends_with_the_k_closest_of_those_that_answer(nodes, thorough, k, alpha, rng):
    walk = Shortlist(GOAL, k=k, alpha=alpha, beta=min(k, 3), is_thorough=thorough)
    first = {d: nodes[d] for d in rng.sample(sorted(nodes), min(3, len(nodes)))}
    walk.add(contacts(*first))
    waiting, steps = [], 0
    everybody = contacts(*sorted(nodes))
    while not walk.is_finished:
        steps += 1
        assert steps < 1_000
        waiting += [(distance, 0) for distance in distances(walk.contacts_to_ask())]
        assert sum(c.state.name == "ASKED" for c in walk._nearest()) <= max(alpha, ALPHA)
        distance, stage = waiting.pop(rng.randrange(len(waiting)))
        match nodes[distance], stage:
            case ("fails", _) | ("late", 2):
                walk.receive_failure(contact(distance))
            case ("answers", _) | ("slow", 1) | ("late answers", 2):
                walk.receive_answer(contact(distance), everybody)
            case _, 0:
                walk.receive_slow(contact(distance))
                waiting.append((distance, 1))
            case _:
                walk.receive_late(contact(distance))
                waiting.append((distance, 2))
    found = distances(walk.closest())
    open_late = {distance for distance, _ in waiting}
    able = sorted(
        d for d, how in nodes.items() if how not in ("late", "fails") and d not in open_late
    )
    if thorough and found:
        assert found == [d for d in able if nodes[d] != "late answers" or d in found][:k]
    if found:
        assert all(found[0] <= d for d in able if nodes[d] == "answers")
    else:
        assert all(how in ("late", "fails") for how in first.values())


# --- Walks of real nodes -------------------------------------------------------------------------


@pytest.mark.slow
def test_the_silent_among_the_closest_do_not_shorten_what_a_store_finds():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(40)
            target = KeyBytes.new_hash(b"target")
            asker = cluster.clients[5]
            others = [c for c in cluster.clients if c is not asker]
            others.sort(key=lambda c: c.identity.node_id.distance_int(target))
            dead = others[:6]
            for client in dead:
                cluster.crash(client)
            outcome = await asker.dht_network.lookup(target)
            alive = [c.identity.node_id for c in others[6:26]]
            assert [c.node_id for c in outcome.contacts] == alive
            assert not outcome.is_complete

    run(main, conditions=Conditions(latency=0.02))


def test_nodes_that_always_name_a_closer_one_hold_a_walk_for_its_time_at_most():
    async def main(world):
        async with Cluster(world) as cluster:
            client = await cluster.start()
            target = KeyBytes(bytes(20))
            asked = 0

            def begin_ask(named, method, target, on_end, on_slow):
                nonlocal asked
                asked += 1
                return asyncio.get_running_loop().call_later(
                    0.1, on_end, Answer(named, named.long_id)
                )

            def closer(referrer, reply, wants):
                return contacts(reply * 9 // 10)

            client.protocol.begin_ask = begin_ask
            client.protocol.referrals.contacts = closer
            client.protocol.router.closest = lambda *args: contacts(2**159)
            began = client.runtime.monotonic()
            await client.dht_network.lookup(target)
            assert client.runtime.monotonic() - began <= client.config.lookup_seconds + 0.1
            assert 150 < asked < 250

    run(main, conditions=Conditions(latency=0.02))
