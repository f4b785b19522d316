"""Rates that are not exceeded: of one session, of all together, of what is asked for."""

import asyncio
import random

import pytest

from bytestag.config import TransferLimits, local
from bytestag.network.congestion import BACKGROUND_QUEUE_SECONDS, NORMAL_QUEUE_SECONDS
from bytestag.network.rate_limit import BURST_SECONDS, RateLimit, limits_of
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster, add_values, content, own

CALM = Conditions(latency=0.005, spread=0)
RATE = 100_000
VALUES = {}
for seed in range(8):
    VALUES |= own(content(250_000, seed))
BYTES = sum(map(len, VALUES.values()))


def test_what_is_taken_goes_in_line_at_the_rate():
    limit = RateLimit(1000)
    assert limit.take(500, 10.0) == 10.0 - BURST_SECONDS
    assert limit.may_at == 10.5 - BURST_SECONDS
    assert limit.take(1000, 10.0) == 10.5 - BURST_SECONDS
    assert limit.take(1000, 100.0) == 100 - BURST_SECONDS  # no more is saved up than a moment's


def test_any_pattern_of_takers_stays_below_the_rate():
    rng, limit, now, taken = random.Random(1), RateLimit(10_000), 0.0, []
    for _ in range(2000):
        now += rng.expovariate(20)
        if now >= limit.may_at:
            size = rng.randrange(1, 2000)
            limit.take(size, now)
            taken.append((now, size))
    for begin in range(0, len(taken), 50):
        some = taken[begin : begin + 200]
        seconds = some[-1][0] - some[0][0] + BURST_SECONDS
        assert sum(size for _, size in some[:-1]) <= 10_000 * seconds + 1


def test_a_rate_of_zero_is_no_limit():
    assert limits_of(0, 0) == []
    assert len(limits_of(0, 5)) == 1


def seconds_of(readers, holder_limits=None, reader_limits=None):
    """Return how long each of several readers takes to get all values from one holder."""

    async def main(world):
        async with Cluster(world) as cluster:
            nodes = cluster.nodes
            base = nodes.config
            nodes.config = base.replace(limits=TransferLimits(**(holder_limits or {})))
            holder = await cluster.start()
            add_values(holder, VALUES)
            nodes.config = base.replace(limits=TransferLimits(**(reader_limits or {})))
            clients = [await cluster.start(is_client=True, cache_bytes=0) for _ in range(readers)]
            times = await asyncio.gather(*(read(client, holder) for client in clients))
            return list(times)

    async def read(client, holder):
        contact = client.protocol.router.contact(holder.identity.node_id)
        link = await client.dht_network.link_to(contact)
        began = client.runtime.monotonic()
        got = await asyncio.gather(
            *(link.get(k.key, length=len(v), idle_seconds=200) for k, v in VALUES.items())
        )
        assert [bytes(found.value) for found in got] == list(VALUES.values())
        return client.runtime.monotonic() - began

    return run(main, conditions=CALM)


@pytest.mark.parametrize(
    ("holder", "reader", "readers", "seconds"),
    [
        ({}, {}, 1, 0),
        ({"upload": RATE}, {}, 1, BYTES / RATE),
        ({"upload": RATE}, {}, 2, 2 * BYTES / RATE),
        ({"peer_upload": RATE}, {}, 2, BYTES / RATE),
        ({}, {"peer_download": RATE}, 2, BYTES / RATE),
        ({}, {"download": RATE}, 1, BYTES / RATE),
        ({"upload": 2 * RATE}, {"download": RATE}, 1, BYTES / RATE),
    ],
)
def test_a_transfer_takes_as_long_as_its_limits_say(holder, reader, readers, seconds):
    times = seconds_of(readers, holder, reader)
    longest = max(times)
    last = len(next(iter(VALUES.values()))) / RATE  # what was asked for last may come at once
    assert seconds - last - 1 <= longest <= seconds * 1.15 + 2


@pytest.mark.parametrize("is_background", [False, True])
def test_the_manner_of_a_node_is_that_of_its_sessions(is_background):
    async def main(world):
        async with Cluster(world) as cluster:
            limits = TransferLimits(is_background=is_background)
            cluster.nodes.config = cluster.nodes.config.replace(limits=limits)
            one, other = await cluster.start(), await cluster.start()
            contact = one.protocol.router.contact(other.identity.node_id)
            link = await one.dht_network.link_to(contact)
            return link.session._sender.congestion.queue_seconds

    expected = BACKGROUND_QUEUE_SECONDS if is_background else NORMAL_QUEUE_SECONDS
    assert run(main, conditions=CALM) == expected
    assert not local().limits.is_background
