"""What a node does by itself, in time."""

import asyncio
import random

from bytestag.config import HOUR
from bytestag.sim import Conditions, run
from bytestag.sim.checkers import Judge
from bytestag.sim.cluster import Cluster


def seconds_to_heal(seed):
    """Cut a small network into three parts for half a day; return how long it takes to heal."""

    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(9)
            cluster.crash(*cluster.nodes[6:])
            hosts = [node.host for node in cluster.nodes[:6]]
            world.network.partition(hosts[:2], hosts[2:])
            world.network.partition(hosts[2:4], hosts[4:])
            await asyncio.sleep(12 * HOUR)
            assert [len(node.client.protocol.router) for node in cluster.running] == [1] * 6
            world.network.heal()
            return await Judge(cluster).check_converged(random.Random(seed))

    return run(main, seed, conditions=Conditions(latency=0.02))


def test_a_network_that_was_cut_in_small_parts_heals_within_a_minute():
    assert max(map(seconds_to_heal, range(3))) <= 60
