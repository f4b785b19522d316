"""Provider records: who may bring them, where they go, how they are renewed."""

import asyncio
import random

import pytest

from bytestag.config import HOUR
from bytestag.crypto.identity import Identity
from bytestag.crypto.providers import keys_digest, make_provider_record, make_renewal
from bytestag.dht.providing import SortedKeys
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import Verdict
from tests.dht.helpers import Cluster

CALM = Conditions(latency=0.02)


# --- One record ----------------------------------------------------------------------------------


def provide(client, record):
    return client.dht_network.link_to(next(iter(client.protocol.router))), m.Provide(
        bytes(20), record.packed
    )


@pytest.mark.parametrize("case", ["good", "another node's", "another address", "too long"])
def test_a_provider_record_is_taken_from_its_own_session_and_address_only(case):
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await cluster.start(cache_bytes=0)
            thief = Identity.from_bytes(bytes(range(64)))
            identity = thief if case == "another node's" else client.identity
            addresses = [("10.7.7.7", 4000)] if case == "another address" else [client.address]
            hours = 80 if case == "too long" else 48
            key = KeyBytes.new_hash(b"file")
            expires = client.runtime.wall() + hours * HOUR
            record = make_provider_record(
                identity, cluster.config.network_id, 1, expires, addresses, [key]
            )
            connecting, message = provide(client, record)
            done = await (await connecting).ask(message, 5)
            found = donor.stores.providers.lookup(key, donor.runtime.wall())
            assert (done.verdict == Verdict.ACCEPTED) == (case == "good")
            assert len(found) == (case == "good")

    run(main, conditions=CALM)


def test_a_provider_record_lives_for_two_days_at_most_and_leaves_by_itself():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await cluster.start(cache_bytes=0)
            key = KeyBytes.new_hash(b"file")
            now = client.runtime.wall()
            record = make_provider_record(
                client.identity, cluster.config.network_id, 1, now + 50 * HOUR,
                [client.address], [key],
            )  # fmt: skip
            connecting, message = provide(client, record)
            await (await connecting).ask(message, 5)
            (found,) = donor.stores.providers.lookup(key, now)
            assert found.expires <= donor.runtime.wall() + 48 * HOUR
            donor.stores.providers.put([key], b"dead", b"", 1, int(now) + 60, b"")
            assert len(donor.stores.providers) == 2
            await asyncio.sleep(15 * 60)
            assert len(donor.stores.providers) == 1

    run(main, conditions=CALM)


def test_readers_find_the_provider_of_a_share():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(4)
            client = await cluster.start(cache_bytes=0)
            key = KeyBytes.new_hash(b"file")
            done = await client.announcer.announce(SortedKeys([key]))
            assert (done.accepted, done.refused, done.unreachable) == (4, 0, 0)
            sources = await cluster.clients[1].dht_network.find_value(key)
            assert set(sources.providers) == {client.identity.node_id}

    run(main, conditions=CALM)


# --- Many keys -----------------------------------------------------------------------------------


def keys_of(count, seed=0):
    rng = random.Random(seed)
    return [KeyBytes(rng.randbytes(20)) for _ in range(count)]


def holders_of(cluster, key):
    now = cluster.world.runtime().wall()
    return [c for c in cluster.clients if c.stores.providers.lookup(key, now)]


def tap(world, client):
    """Count what a node sends, by its first byte."""
    counts = {0: 0, 1: 0, 0x41: 0}
    send = client._endpoint.send

    def counted(datagram, address):
        counts[datagram[0]] += 1
        send(datagram, address)

    client._endpoint.send = counted
    return counts


@pytest.mark.long
@pytest.mark.slow
def test_every_key_reaches_the_twenty_closest_and_a_renewal_takes_a_datagram_a_holder():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(60)
            client = await cluster.start(cache_bytes=0)
            await asyncio.sleep(30)
            keys = keys_of(5000)
            done = await client.announcer.announce(SortedKeys(keys))
            assert (done.keys, done.refused, done.unreachable) == (5000, 0, 0)
            others = [c for c in cluster.clients if c is not client]
            for key in keys[::250]:
                closest = sorted(others, key=lambda c, k=key: c.identity.node_id.distance_int(k))
                assert set(holders_of(cluster, key)) == set(closest[:20])

            await asyncio.sleep(22 * HOUR)
            counts = tap(world, client)
            again = await client.announcer.announce(SortedKeys(keys), is_renewal=True)
            assert (again.renewed, again.accepted) == (done.accepted, 0)
            assert counts[0x41] == 0
            assert counts[0] < 2 * len(cluster.clients)
            await asyncio.sleep(40 * HOUR)
            assert len(holders_of(cluster, keys[0])) == 20

    run(main, seed=2, conditions=CALM)


@pytest.mark.slow
def test_where_a_holder_is_gone_a_renewal_brings_its_keys_to_who_took_its_place():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(40)
            client = await cluster.start(cache_bytes=0)
            await asyncio.sleep(30)
            keys = keys_of(3000)
            await client.announcer.announce(SortedKeys(keys))
            dead = cluster.clients[5:9]
            for gone in dead:
                cluster.crash(gone)
            again = await client.announcer.announce(SortedKeys(keys), is_renewal=True)
            assert again.renewed
            assert 0 < again.unreachable <= 4
            others = [c for c in cluster.clients if c not in [*dead, client]]
            for key in keys[::100]:
                closest = sorted(others, key=lambda c, k=key: c.identity.node_id.distance_int(k))
                assert set(closest[:20]) <= set(holders_of(cluster, key))

    run(main, seed=4, conditions=CALM)


def test_a_holder_that_knows_no_renewals_is_brought_its_records():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(4)
            client = await cluster.start(cache_bytes=0)
            keys = keys_of(10)
            await client.announcer.announce(SortedKeys(keys))
            del cluster.clients[1].protocol.handlers["bt_renew"]
            await asyncio.sleep(40 * HOUR)
            again = await client.announcer.announce(SortedKeys(keys), is_renewal=True)
            assert (again.keys, again.accepted) == (10, 1)
            await asyncio.sleep(40 * HOUR)
            assert len(holders_of(cluster, keys[0])) == 4

    run(main, conditions=CALM)


def test_a_key_more_or_less_is_brought_and_the_rest_renewed():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(5)
            client = await cluster.start(cache_bytes=0)
            keys = keys_of(4000)
            first = await client.announcer.announce(SortedKeys(keys))
            more = [*keys, KeyBytes.new_hash(b"one more")]
            again = await client.announcer.announce(SortedKeys(more), is_renewal=True)
            assert again.accepted == 5  # one record at each holder
            assert again.renewed == first.accepted - 5
            assert len(holders_of(cluster, more[-1])) == 5

    run(main, conditions=CALM)


# --- Renewals that are not good ------------------------------------------------------------------

CHANGES = {
    "good": {},
    "of another's key": {"identity": Identity.from_bytes(bytes(range(64)))},
    "for another holder": {"holder": bytes(20)},
    "seen before": {"seq": 1},
    "too long": {"hours": 80},
    "past": {"hours": -1},
    "of other keys": {"digest": bytes(8)},
}


@pytest.mark.parametrize("case", [*CHANGES, "badly signed"])
def test_a_renewal_counts_if_it_is_new_and_signed_for_this_holder(case):
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await cluster.start(cache_bytes=0)
            key = KeyBytes.new_hash(b"file")
            await client.announcer.announce(SortedKeys([key]))
            before = donor.stores.providers.lookup(key, 0)[0].expires
            await asyncio.sleep(5 * HOUR)
            change = CHANGES.get(case, {})
            expires = client.runtime.wall() + change.get("hours", 48) * HOUR
            named = [(0, bytes(20), change.get("digest", keys_digest([key])))]
            renewal = make_renewal(
                change.get("identity", client.identity),
                cluster.config.network_id,
                change.get("holder", donor.identity.node_id),
                change.get("seq", client._seq.next()),
                expires,
                named,
            )
            if case == "badly signed":
                renewal = renewal[:-1] + bytes([renewal[-1] ^ 1])
            (contact,) = client.protocol.router
            try:
                answer = await client.protocol.ask(contact, "bt_renew", renewal=renewal)
            except TimeoutError:
                renewed = b""
            else:
                renewed = answer.reply.result
            after = donor.stores.providers.lookup(key, 0)[0].expires
            assert (renewed == b"\1", after > before) == ((case == "good",) * 2)

    run(main, conditions=CALM)
