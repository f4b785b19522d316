"""Putting single values: where they go, what is shared, what happens when holders do not answer."""

import asyncio

import pytest

from bytestag.dht.fetching import Wanted
from bytestag.errors import UsageError
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import KVPID, Standing, Verdict, own_record
from tests.dht.helpers import Cluster
from tests.dht.test_network import fetcher

CALM = Conditions(latency=0.02)


def kvpid(key, value):
    return KVPID(key, KeyBytes.new_hash(value))


def test_a_value_goes_to_the_closest_and_is_read_from_anywhere():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(30)
            key, value = KeyBytes.new_hash(b"name"), b"value"
            outcome = await cluster.clients[3].putter.put(key, value, copies=8)
            assert (outcome.stored, outcome.refused, outcome.unreachable) == (8, 0, 0)
            others = [c for c in cluster.clients if c is not cluster.clients[3]]
            closest = sorted(others, key=lambda c: c.identity.node_id.distance_int(key))[:8]
            assert set(cluster.holders(kvpid(key, value))) == set(closest)
            record = closest[0].stores.cache.record(kvpid(key, value))
            assert record.standing is Standing.REPLICA
            wanted = Wanted(key, KeyBytes.new_hash(value), size=len(value))
            assert await fetcher(cluster.clients[20]).fetch(wanted) == value

    run(main, conditions=CALM)


def test_what_is_put_at_once_shares_look_ups_and_offers():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(10)
            client = cluster.clients[0]
            offers = []
            for other in cluster.clients:
                handle = other._serving.handle

                def counted(link, request, handle=handle):
                    offers.extend([request] * isinstance(request, m.Offer))
                    handle(link, request)

                other._serving.handle = counted
            keys = [KeyBytes.new_hash(b"%d" % n) for n in range(400)]
            outcomes = await asyncio.gather(
                *(client.putter.put(key, bytes(key), copies=8, keep_seconds=86400) for key in keys)
            )
            assert {outcome.stored for outcome in outcomes} == {8}
            assert len(offers) < 100
            holder = cluster.holders(kvpid(keys[7], bytes(keys[7])))[0]
            record = holder.stores.cache.record(kvpid(keys[7], bytes(keys[7])))
            assert record.standing is Standing.KEPT
            assert not client.putter._lanes

    run(main, conditions=CALM)


def test_whoever_does_not_answer_is_replaced_by_the_next():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(20)
            key, value = KeyBytes.new_hash(b"name"), b"value"
            client = cluster.clients[0]
            await client.putter.put(key, b"first", copies=4)
            closest = cluster.true_closest(key, 8, accept=lambda c: c is not client)
            for gone in closest[:2]:
                cluster.crash(gone)
            outcome = await client.putter.put(key, value, copies=4)
            assert (outcome.stored, outcome.unreachable) == (4, 2)
            assert set(closest[2:6]) == set(cluster.holders(kvpid(key, value)))

    run(main, conditions=CALM)


def test_what_waits_when_the_node_stops_is_told_so():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(3)
            client = cluster.clients[0]
            putter, (contact, *_) = client.putter, client.protocol.router
            record = own_record(kvpid(KeyBytes(bytes(20)), b""), b"")
            done = putter._send(contact, record, b"", 0)
            putter.slot.stop()  # its task has not begun
            assert await asyncio.wait_for(done, 5) is None
            assert not putter._lanes

    run(main, conditions=CALM)


def test_where_all_refuse_only_those_are_tried_with_whom_it_would_be_found():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(40)
            client = cluster.clients[0]

            def refuse(*_):
                done = asyncio.get_running_loop().create_future()
                done.set_result(Verdict.FULL)
                return done

            client.putter._send = refuse
            outcome = await client.putter.put(KeyBytes(bytes(20)), b"", copies=8)
            assert (outcome.stored, outcome.refused) == (0, 20)

    run(main, conditions=CALM)


def test_with_fewer_donors_than_copies_the_outcome_says_so():
    async def main(world):
        async with Cluster(world) as cluster:
            alone = await cluster.start()
            assert (await alone.putter.put(KeyBytes(bytes(20)), b"", copies=8)).stored == 0
            await cluster.start_many(2)
            await asyncio.sleep(11)
            assert (await alone.putter.put(KeyBytes(bytes(20)), b"", copies=8)).stored == 2

    run(main, conditions=CALM)


def test_a_large_value_is_refused_with_an_error():
    async def main(world):
        async with Cluster(world) as cluster:
            client = await cluster.start()
            with pytest.raises(UsageError, match="1024"):
                await client.putter.put(KeyBytes(bytes(20)), bytes(1025), copies=8)

    run(main, conditions=CALM)
