"""Nodes of a cluster start, stop, crash, freeze and come back as machines do."""

import asyncio
import gc
import random

import pytest

from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.errors import Timeout
from bytestag.keys import KeyBytes
from bytestag.sim import Conditions, run
from bytestag.sim.cluster import Cluster
from bytestag.sim.nat import NatBox, NatKind
from bytestag.sim.process import Killed
from bytestag.sim.workload import get, put, random_values
from tests.dht.helpers import add_values, values


async def publish(node, rows, copies=3):
    """Publish values of a node's own."""
    records = add_values(node.client, rows)
    publishing = node.client.publisher.publish(records, copies=copies, keep_seconds=86_400)
    return await node.run(publishing)


async def fetch(node, kvpid):
    """Return the value that a node gets."""
    client = node.client
    fetcher = Fetcher(
        client.dht_network, client.stores.table, client.config, client.runtime, client._group
    )
    try:
        return await node.run(fetcher.fetch(Wanted(kvpid.key, kvpid.index)))
    finally:
        fetcher.close()


def test_nodes_join_and_the_end_of_the_cluster_stops_them():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(12)
            known = [len(node.client.protocol.router) for node in cluster.nodes]
            tasks = [node.process.tasks for node in cluster.nodes]
        return known, tasks, cluster.running, world.network.endpoints

    known, tasks, running, endpoints = run(main)
    assert known == [11] * 12
    assert all(tasks)
    assert (running, endpoints) == ([], ())


def test_a_crashed_node_leaves_nothing_behind():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            dead = cluster.nodes[3]
            await publish(cluster.nodes[1], values(5))
            looking = asyncio.ensure_future(
                dead.run(dead.client.dht_network.find_value(KeyBytes(bytes(20))))
            )
            await asyncio.sleep(0.01)
            process = dead.process
            cluster.crash(dead)
            with pytest.raises(Killed):
                await looking
            await asyncio.sleep(600)
            assert process.tasks == []
            assert world.loop.take_away([process]) == ([], [])
            assert not dead.is_running
            assert cluster.true_closest(dead.node_id, 6)[0] is not dead

    run(main)


@pytest.mark.parametrize("milliseconds", [1, 30, 60, 110, 170, 250, 400, 900])
def test_a_crash_in_the_midst_of_work_ends_it_without_a_word(milliseconds):
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            busy = cluster.nodes[3]
            rows = random_values(20, 3000, random.Random(1))
            works = [put(busy, rows, copies=4), *(get(busy, kvpid) for kvpid in rows)]
            tasks = [asyncio.ensure_future(work) for work in works]
            tasks.append(asyncio.ensure_future(put(cluster.nodes[1], rows, copies=5)))
            await asyncio.sleep(milliseconds / 1000)
            process = busy.process
            cluster.crash(busy)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            gc.collect()  # whatever is left of it must not stir
            await asyncio.sleep(600)
            assert world.loop.waiting_for(process) == []
            return sum(isinstance(outcome, Killed) for outcome in outcomes)

    assert run(main, conditions=Conditions(latency=0.05)) > 0


def test_a_crash_does_not_touch_what_lies_on_the_disk():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            rows = values(5)
            await publish(cluster.nodes[1], rows, copies=5)
            dead = cluster.nodes[3]
            held = set(dead.stores.cache)
            await asyncio.sleep(100)
            cluster.crash(dead)
            await asyncio.sleep(100)
            assert set(dead.stores.cache) == held != set()
            await cluster.come_back(dead)
            assert dead.lives == 2
            assert len(dead.client.protocol.router) == 5
            return await fetch(cluster.nodes[5], next(iter(rows))) == rows[next(iter(rows))]

    assert run(main)


def test_a_node_comes_back_through_the_contacts_it_remembers():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            node = cluster.nodes[4]
            await asyncio.sleep(1000)
            cluster.crash(cluster.nodes[0], node)  # the only known node is gone for ever
            await cluster.come_back(node)
            return len(node.client.protocol.router)

    assert run(main) == 4


def test_a_node_that_comes_back_empty_is_somebody_new():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            node = cluster.nodes[4]
            await publish(cluster.nodes[1], values(5), copies=5)
            before = node.node_id
            await cluster.stop(node)
            cluster.crash(cluster.nodes[0])
            await cluster.come_back(node, with_state=False)
            return node.node_id != before, len(node.stores.cache), len(node.client.protocol.router)

    assert run(main) == (True, 0, 4)


def test_a_frozen_node_stands_still_and_catches_up():
    async def main(world):
        async with Cluster(world) as cluster:
            first, second = await cluster.start_many(2)
            fired = []

            async def wait():
                await asyncio.sleep(1)
                fired.append(world.loop.time())

            waiting = asyncio.ensure_future(second.run(wait()))
            await asyncio.sleep(0.5)
            began = world.loop.time()
            cluster.freeze(second)
            with pytest.raises(Timeout):
                await first.run(first.client.protocol.ping(second.address))
            await asyncio.sleep(100 - (world.loop.time() - began))
            assert fired == []
            cluster.thaw(second)
            await waiting
            assert fired == [began + 100]
            await first.run(first.client.protocol.ping(second.address))

    run(main)


def test_a_frozen_node_keeps_datagrams_up_to_a_bound():
    async def main(world):
        async with Cluster(world) as cluster:
            first, second = await cluster.start_many(2)
            cluster.freeze(second)
            for _ in range(300):
                first.endpoint.send(bytes([0x40]) + bytes(1199), second.address)
            await asyncio.sleep(10)
            dropped = world.network.counters["held too long"]
            cluster.thaw(second)
            return dropped, second.client.sessions.counters["another version"]

    dropped, came = run(main)
    assert dropped >= 300 - 256 * 1024 // 1200
    assert 200 < came <= 256 * 1024 // 1200


def test_the_same_seed_leads_to_the_same_trace_and_another_to_another():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(8)
            await publish(cluster.nodes[1], values(5))
            cluster.crash(cluster.nodes[2], cluster.nodes[3])
            cluster.freeze(cluster.nodes[4])
            await asyncio.sleep(300)
            cluster.thaw(cluster.nodes[4])
            await cluster.come_back(cluster.nodes[2])
            await cluster.come_back(cluster.nodes[3], with_state=False)
            await asyncio.sleep(4000)
        return world.network.trace

    traces = [run(main, seed) for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]


def test_a_node_that_roams_learns_where_it_is_and_is_found_again_after_it_moved():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            roamer = await cluster.start(roams=True)
            assert roamer.client.protocol.reachability.addresses == [roamer.address]
            before = roamer.address
            cluster.move(roamer)
            assert roamer.address != before
            await asyncio.sleep(2 * 3600)
            assert roamer.address in roamer.client.protocol.reachability.addresses
            finder = cluster.nodes[2]
            found = await finder.run(finder.client.dht_network.lookup(roamer.node_id))
            return {c.node_id: c.address for c in found.contacts}[roamer.node_id] == roamer.address

    assert run(main)


@pytest.mark.parametrize("kind", NatKind)
def test_a_node_behind_a_nat_joins_and_fetches(kind):
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            rows = values(3)
            await publish(cluster.nodes[1], rows)
            world.network.put_behind(NatBox(kind, "192.0.2.9"), ["192.168.0.2"])
            inner = await cluster.start(host="192.168.0.2", roams=True)
            return [await fetch(inner, kvpid) for kvpid in rows] == list(rows.values())

    assert run(main)
