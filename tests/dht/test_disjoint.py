"""Liars along the way: disjoint paths find what one walk does not; how large the network is."""

import random

import pytest

from bytestag.crypto.identity import pack_address
from bytestag.dht.fetching import Wanted
from bytestag.dht.routing import Contact
from bytestag.dht.sizing import SizeEstimate
from bytestag.errors import BytestagError
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes
from bytestag.network.packets import Held
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster, add_values, values
from tests.dht.test_network import fetcher

CALM = Conditions(latency=0.02)


def lie(client, rng):
    """Let a node name twenty that do not exist, ever closer to whatever it is asked about."""

    def add_contacts(reply, query):
        made = []
        for _ in range(20):
            near = query.target[:6] + rng.randbytes(14)
            address = (f"10.200.{rng.randrange(256)}.{rng.randrange(1, 255)}", 4000)
            made.append(near + pack_address(address)[1:])
        reply.contacts4 = b"".join(made)

    client.protocol._add_contacts = add_contacts


def claim(client, rows):
    """Let a node say that it holds all rows, none of which it has."""
    held = {kvpid.key: Held(kvpid.index, len(v), blake3(v)) for kvpid, v in rows.items()}

    def describe_now(key, reply):
        reply.held = [held[key]]

    client.protocol._holdings.describe_now = describe_now


def knows_only(reader, nodes):
    """Let a node know these alone, so that it depends on what it is told."""
    router = reader.protocol.router
    router.flush()
    for node in nodes:
        card = node.protocol.card()
        router.add_contact(Contact(card.node_id, node.address, card=card, capabilities=1))
    router.add_contact = lambda contact: None


@pytest.mark.slow
@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.parametrize("is_defended", [True, False])
def test_liars_who_name_ever_closer_nodes_do_not_hide_a_value(is_defended, claims):
    async def main(world):
        rng = random.Random(5)
        async with Cluster(world) as cluster:
            await cluster.start_many(150)
            rows = values(32)
            records = add_values(cluster.clients[3], rows)
            await cluster.clients[3].publisher.publish(records, copies=8, keep_seconds=10**6)
            await cluster.stop(cluster.clients[3])
            holders = {h for kvpid in rows for h in cluster.holders(kvpid)}
            others = [c for c in cluster.clients[4:] if c not in holders]
            liars = rng.sample(others, len(others) * 4 // 5)
            for client in liars:
                lie(client, rng)
                if claims:
                    claim(client, rows)
            reader = await cluster.start(is_client=True, cache_bytes=0)
            knows_only(reader, [*liars[:40], *[c for c in others if c not in liars][:4]])
            if not is_defended:
                find_value = reader.dht_network.find_value
                reader.dht_network.find_value_disjointly = lambda key, without: find_value(key)
            found = 0
            for kvpid, value in rows.items():
                try:
                    found += await fetcher(reader).fetch(Wanted(kvpid.key, kvpid.index)) == value
                except BytestagError:
                    continue
            assert (found == len(rows)) == is_defended

    run(main, seed=3, conditions=CALM)


def test_liars_on_one_path_do_not_end_the_others():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(60)
            asker = cluster.clients[10]
            rows = values(1)
            ((kvpid, _),) = rows.items()
            paths = 4
            starts = asker.protocol.router.closest(kvpid.key, 20 * paths)
            on_path = {contact.id for contact in starts[::paths][:3]}
            for client in cluster.clients:
                if client.identity.node_id in on_path:
                    claim(client, rows)
            sources = await asker.dht_network.find_value_disjointly(kvpid.key, paths)
            assert sources.holders
            assert sources.answered > 40

    run(main, conditions=CALM)


def test_paths_share_no_node():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(60)
            asker = cluster.clients[10]
            asked = []
            begin_ask = asker.protocol.begin_ask

            def noted(contact, *rest, **options):
                asked.append(contact.id)
                return begin_ask(contact, *rest, **options)

            asker.protocol.begin_ask = noted
            sources = await asker.dht_network.find_value_disjointly(KeyBytes(bytes(20)))
            assert len(asked) == len(set(asked)) > 40
            assert sources.answered == len(asked)
            ids = [c.long_id for c in sources.contacts]
            assert ids == sorted(ids)

    run(main, conditions=CALM)


@pytest.mark.parametrize("nodes", [100, 10_000])
def test_the_size_of_a_network_follows_from_look_ups(nodes):
    rng = random.Random(nodes)
    ids = [rng.getrandbits(160) for _ in range(nodes)]
    estimate = SizeEstimate()
    assert estimate.nodes == 0
    assert estimate.expected_distance(20) == 2**160
    for _ in range(32):
        target = rng.getrandbits(160)
        closest = sorted(ids, key=lambda n: n ^ target)[:20]
        contacts = [Contact(n.to_bytes(20, "big"), ("10.0.0.1", 1)) for n in closest]
        estimate.learn(target.to_bytes(20, "big"), contacts, is_complete=False)
    assert 0.8 < estimate.nodes / nodes < 1.25
    assert 0.8 < estimate.expected_distance(20) / (20 / nodes * 2**160) < 1.25


def test_where_all_are_known_they_are_counted():
    estimate = SizeEstimate()
    estimate.learn(bytes(20), [Contact(bytes(20), ("10.0.0.1", 1))] * 7, is_complete=True)
    assert estimate.nodes == 7
