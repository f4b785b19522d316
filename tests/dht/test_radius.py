"""Donors that are nearly full keep to what is near, and publishers know before they ask."""

import asyncio
import random
from dataclasses import replace

from bytestag.config import HOUR
from bytestag.dht.radius import Radius, is_within
from bytestag.dht.routing import Contact
from bytestag.dht.sizing import SizeEstimate
from bytestag.keys import BIT_SIZE
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import Standing, own_record
from tests.dht.helpers import Cluster, add_values, publisher, values

CALM = Conditions(latency=0.02)


def estimate(nodes):
    rng = random.Random(1)
    ids = [rng.getrandbits(160) for _ in range(nodes)]
    made = SizeEstimate()
    for _ in range(16):
        target = rng.getrandbits(160)
        near = sorted(ids, key=lambda n, t=target: n ^ t)[:20]
        contacts = [Contact(n.to_bytes(20, "big"), ("10.0.0.1", 1)) for n in near]
        made.learn(target.to_bytes(20, "big"), contacts, is_complete=False)
    return made


def test_a_radius_shrinks_while_a_donor_is_full_and_grows_when_there_is_room():
    radius, size = Radius(8), estimate(1000)
    radius.update(0.9, size)
    assert radius.bits == BIT_SIZE
    radius.update(0.96, size)
    first = radius.bits
    assert first in (BIT_SIZE - 6, BIT_SIZE - 7, BIT_SIZE - 5)  # 32 of 1,000 nodes
    radius.update(0.96, size)
    assert radius.bits == first - 1
    radius.update(0.9, size)
    assert radius.bits == first - 1
    for _ in range(300):
        radius.update(0.5, size)
    assert radius.bits == BIT_SIZE
    for _ in range(300):
        radius.update(1.0, size)
    assert radius.bits == 0


def test_keys_within_a_radius():
    assert is_within(BIT_SIZE, 0, 2**160 - 1)
    assert is_within(4, 0b10000, 0b11111)
    assert not is_within(4, 0b10000, 0b100000)
    assert is_within(0, 5, 5)


def fill(client):
    """Fill a donor's space with what it may not evict."""
    now = client.runtime.wall()
    for kvpid, value in values(150, size=4_000, seed=9).items():
        record = replace(
            own_record(kvpid, value, int(now)),
            standing=Standing.KEPT,
            depositor=bytes(kvpid.key).ljust(32),  # one alone may not fill it
        )
        client.stores.cache.store(record, value, now)


def test_publishers_pass_over_a_donor_that_is_full_without_asking_it():
    async def main(world):
        async with Cluster(world, copies=3) as cluster:
            await cluster.start_many(30)
            full = await cluster.start(cache_bytes=250_000)
            fill(full)
            await asyncio.sleep(4 * HOUR)
            assert full.protocol.radius.bits < BIT_SIZE - 1
            client = await publisher(cluster)
            rows = values(60)
            records = add_values(client, rows)
            outcome = await client.publisher.publish(records, copies=3, keep_seconds=86400 * 9)
            assert outcome.copies_min == 3
            assert not outcome.refused
            for kvpid in rows:
                near = cluster.true_closest(kvpid.key, 3, accept=lambda c: c is not client)
                if full in near:
                    assert kvpid not in full.stores.cache
                    break
            else:
                raise AssertionError("the full donor was near no key: nothing was shown")

    run(main, seed=2, conditions=CALM)


def test_what_lies_outside_is_refused_with_its_reason():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            rows = values(10)
            records = add_values(client, rows)
            (contact,) = client.protocol.router
            assert contact.radius == BIT_SIZE
            donor.protocol.radius.bits = 0  # after the publisher heard of it
            outcome = await client.publisher.publish(records, copies=1, keep_seconds=86400)
            assert not any(kvpid in donor.stores.cache for kvpid in rows)
            assert outcome.copies_min == 0

    run(main, conditions=CALM)
