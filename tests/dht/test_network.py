"""The overlay in a virtual world: joining, looking up, placing, the dead, the stock dialect."""

import asyncio

import pytest

from bytestag import config
from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.errors import NotFound, Unreachable
from bytestag.keys import KeyBytes
from bytestag.sim import cluster as sim
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster, add_values, values

CALM = Conditions(latency=0.02)
NOBODYS = KeyBytes.new_hash(b"nobody has this")


def fetcher(client):
    return Fetcher(
        client.dht_network, client.stores.table, client.config, client.runtime, client._group
    )


def test_two_nodes_meet_and_each_has_verified_the_other():
    async def main(world):
        async with Cluster(world) as cluster:
            one = await cluster.start()
            two = await cluster.start()
            await asyncio.sleep(5)
            for here, there in ((one, two), (two, one)):
                (contact,) = list(here.protocol.router)
                assert contact.id == there.identity.node_id
                assert contact.card.x25519 == there.identity.static.public

    run(main, conditions=CALM)


def test_a_node_that_was_killed_soon_after_joining_finds_back_without_its_known_node():
    async def main(world):
        async with sim.Cluster(world) as cluster:
            await cluster.start_many(12)
            late = cluster.nodes[-1]
            await asyncio.sleep(1)
            cluster.crash(late, cluster.nodes[0])
            await asyncio.sleep(60)
            await cluster.come_back(late)
            assert len(late.client.protocol.router) > 5

    run(main, conditions=CALM)


def test_joining_through_nobody_says_that_nobody_answered():
    async def main(world):
        async with Cluster(world) as cluster:
            client = await cluster.start(joins=False, known=[("10.9.9.9", 4000)])
            with pytest.raises(Unreachable) as caught:
                await client.join()
            assert "--network" in caught.value.hint

    run(main, conditions=CALM)


@pytest.mark.slow
def test_two_hundred_nodes_place_every_copy_on_the_true_closest_and_find_every_value():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(200)
            rows = values(40)
            publisher = cluster.clients[7]
            records = add_values(publisher, rows)
            outcome = await publisher.publisher.publish(records, copies=8, keep_seconds=90 * 86400)
            assert outcome.copies == [0] * 8 + [40]
            for kvpid in rows:
                others = [c for c in cluster.clients if c is not publisher]
                closest = sorted(
                    others, key=lambda c, k=kvpid.key: c.identity.node_id.distance_int(k)
                )[:8]
                holders = set(cluster.holders(kvpid)) - {publisher}
                assert holders == set(closest)
            await cluster.stop(publisher)
            reader = cluster.clients[150]
            for kvpid, value in rows.items():
                wanted = Wanted(kvpid.key, kvpid.index)
                assert await fetcher(reader).fetch(wanted) == value

    run(main, seed=3, conditions=CALM)


@pytest.mark.slow
def test_a_look_up_returns_the_true_closest_and_nobody_who_is_dead():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(100)
            await asyncio.sleep(60)
            dead = cluster.clients[1::2]
            for client in dead:
                cluster.crash(client)
            alive = [c for c in cluster.clients if c not in dead]
            gone = {c.identity.node_id for c in dead}
            for number in range(20):
                target = KeyBytes.new_hash(bytes([number]))
                outcome = await alive[number].dht_network.lookup(target)
                found = [c.node_id for c in outcome.contacts]
                assert not gone & set(found)
                best = min((c.identity.node_id for c in alive if c is not alive[number]),
                           key=target.distance_int)  # fmt: skip
                assert found[0] == best

    run(main, seed=1, conditions=CALM)


def test_an_idle_node_sends_next_to_nothing():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(21)
            await asyncio.sleep(600)
            before = world.network.bytes_sent
            await asyncio.sleep(3600)
            per_node_and_second = (world.network.bytes_sent - before) / 3600 / 21
            assert per_node_and_second < 100

    run(main, conditions=CALM)


def test_a_refresh_costs_a_request_or_two_a_bucket_and_brings_news_of_newcomers():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(60)
            await asyncio.sleep(7200)
            client = cluster.clients[5]
            router = client.protocol.router
            for contact in list(router)[::3]:
                router.remove_contact(contact)
            before, known = world.network.counters["sent"], len(router)
            for other in cluster.clients:
                if other is not client:
                    other.dht_network.refresh = nothing
            for bucket in router.buckets:
                bucket.last_updated = 0.0
            assert await client.dht_network.refresh() == len(router.buckets)
            sent = (world.network.counters["sent"] - before) / 2
            assert sent <= 25 + 4 * len(router.buckets)
            assert len(router) > known

    run(main, conditions=CALM)


async def nothing():
    """Refresh nothing."""


def test_a_client_is_in_nobodys_table():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(5)
            reader = await cluster.start(is_client=True, cache_bytes=0)
            await asyncio.sleep(30)
            for client in cluster.clients[:5]:
                assert reader.identity.node_id not in {c.node_id for c in client.protocol.router}

    run(main, conditions=CALM)


def test_a_value_that_nobody_holds_is_not_found_and_the_error_counts_who_was_asked():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            with pytest.raises(NotFound, match="asked 5, 5 answered"):
                await fetcher(cluster.clients[2]).fetch(Wanted(NOBODYS, NOBODYS))

    run(main, conditions=CALM)


def test_without_any_peer_a_fetch_says_that_nobody_answered():
    async def main(world):
        async with Cluster(world) as cluster:
            alone = await cluster.start()
            with pytest.raises(Unreachable):
                await fetcher(alone).fetch(Wanted(NOBODYS, NOBODYS))

    run(main, conditions=CALM)


def test_an_id_without_the_work_never_enters_a_table():
    async def main(world):
        async with Cluster(world, config.local().replace(id_pow_bits=6)) as cluster:
            strict = await cluster.start(base=cluster.config.replace(id_pow_bits=12))
            await cluster.start_many(3, base=cluster.config.replace(id_pow_bits=0))
            await asyncio.sleep(30)
            assert len(strict.protocol.router) == 0

    run(main, conditions=CALM)


def test_nodes_of_another_network_are_not_heard():
    async def main(world):
        async with Cluster(world) as cluster:
            here = await cluster.start()
            there = await cluster.start(joins=False, base=config.local("elsewhere"))
            with pytest.raises(Unreachable):
                await there.join()
            assert len(here.protocol.router) == 0
            assert here.protocol.counters["another version or network"]

    run(main, conditions=CALM)
