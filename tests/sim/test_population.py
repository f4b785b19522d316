"""Nodes come to life when they are spoken to, with the tables that they would have."""

import asyncio
import random
import statistics

import pytest

from benchmarks.hops import watched_walks
from benchmarks.monte_carlo import Model, Rule
from bytestag.config import K
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.errors import Unreachable
from bytestag.keys import KeyBytes
from bytestag.sim.census import Census
from bytestag.sim.network import Conditions
from bytestag.sim.population import Population
from bytestag.sim.world import run
from tests.dht.helpers import add_values, values

CALM = Conditions(latency=0.02)
CENSUS = Census(3000, seed=1)


def populated(main, census=CENSUS, seed=1, **options):
    async def begin(world):
        async with Population(world, census, **options) as population:
            return await main(world, population)

    return run(begin, seed=seed, conditions=CALM)


def table_of(index, seed=1):
    async def main(world, population):
        client = await population.wake(index)
        buckets = client.protocol.router.buckets
        return [(b.range, list(b.nodes), list(b.replacement_nodes)) for b in buckets]

    return populated(main, seed=seed)


def test_a_newborn_has_the_buckets_that_the_table_s_rule_makes():
    own = CENSUS.identity(7).node_id
    true = RoutingTable(Contact(own, ("10.0.0.7", 4000)))
    for index in range(3000):
        true.add_contact(Contact(CENSUS.node_id(index), CENSUS.address(index)))
    table = table_of(7)
    assert [range_ for range_, _, _ in table] == [bucket.range for bucket in true.buckets]
    for (_, nodes, spares), bucket in zip(table, true.buckets, strict=True):
        assert len(nodes) == len(bucket.nodes)
        assert len(spares) == len(bucket.replacement_nodes)
        known = set(bucket.nodes) | set(bucket.replacement_nodes)
        if len(known) < K:
            assert set(nodes) == known


def test_a_birth_follows_from_the_seed():
    assert table_of(11) == table_of(11)
    assert table_of(11) != table_of(11, seed=2)


def test_a_look_up_finds_the_true_closest_and_wakes_few():
    async def main(world, population):
        for index in (1, 500, 2999):
            client = await population.wake(index)
            target = KeyBytes.new_hash(b"%d" % index)
            outcome = await client.dht_network.lookup(target)
            closest = [i for i in population.closest(target, K + 1) if i != index][:K]
            assert [c.id for c in outcome.contacts] == [CENSUS.node_id(i) for i in closest]
        assert population.births < 200
        return world.network.trace

    assert populated(main) == populated(main)


def test_the_dead_never_answer_and_look_ups_go_round_them():
    async def main(world, population):
        dead = [index for index in range(3000) if population.is_dead(index)]
        assert 1300 < len(dead) < 1700
        with pytest.raises(Unreachable):
            await population.wake(dead[0])
        alive = next(index for index in range(3000) if not population.is_dead(index))
        client = await population.wake(alive)
        target = KeyBytes.new_hash(b"target")
        outcome = await client.dht_network.lookup(target)
        assert outcome.contacts[0].id == CENSUS.node_id(population.closest(target, 1)[0])

    populated(main, dead_share=0.5)


def test_the_idle_sleep_and_keep_what_they_stored():
    async def main(world, population):
        publisher = await population.wake(0)
        rows = values(3)
        records = add_values(publisher, rows)
        outcome = await publisher.publisher.publish(records, copies=4, keep_seconds=90 * 86400)
        assert outcome.copies_min == 4
        chance = random.Random(1)
        for _ in range(30):
            await publisher.dht_network.lookup(chance.randbytes(20))
            await asyncio.sleep(2)
        assert population.awake < 150 < population.births
        for kvpid in rows:
            nearest = [i for i in population.closest(kvpid.key, 5) if i != 0][:4]
            for index in nearest:
                assert kvpid in population.stores(index).cache
            reader = await population.wake(77)
            sources = await reader.dht_network.find_value(kvpid.key)
            assert {c.id for c, _ in sources.holders} >= {CENSUS.node_id(i) for i in nearest}
            population.release(77)

    populated(main, awake_max=50)


@pytest.mark.long
def test_hops_are_those_of_a_model_of_the_same_rule():
    census = Census(20_000, seed=3)

    async def main(world, population):
        chance, hops = random.Random(2), []
        with watched_walks() as walks:
            for _ in range(60):
                client = await population.wake(chance.randrange(len(census)))
                target = chance.randbytes(20)
                await client.dht_network.lookup(target, is_thorough=False)
                nearest = population.closest(target, 1)[0]
                hops.append(walks.hops(target, census.node_id(nearest)))
        return hops

    hops = populated(main, census)
    expected = statistics.fmean(Model(20_000, Rule(), seed=1).hops(300))
    assert 0 not in hops
    assert statistics.fmean(hops) == pytest.approx(expected, rel=0.1)
