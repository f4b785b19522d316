"""Repair among holders: what is compared, named, and sent; what claims do and do not."""

import asyncio
import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.config import HOUR
from bytestag.crypto.identity import DONOR, Identity
from bytestag.dht import claims as c
from bytestag.dht import comparing, replication
from bytestag.dht.claims import Claims
from bytestag.dht.routing import Contact
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.packets import Comparison
from bytestag.network.session import Closed, MessageReceived
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import Standing, own_record
from tests.dht.helpers import Cluster, values

CALM = Conditions(latency=0.02)
A, B = bytes([1]) * 20, bytes([2]) * 20
ROOT = c.prefix_of(bytes(20), 0)
NAMES = b"".join(sorted(bytes([n]) * 8 for n in range(20)))


# --- Claims --------------------------------------------------------------------------------------


def test_a_claim_is_confirmed_while_it_is_the_same_and_all_of_it_is_held():
    claims = Claims()
    digest = c.names_digest(NAMES)
    assert not claims.confirm(A, ROOT, digest, 0)
    claims.learn(A, ROOT, NAMES, 0, holds_all=True)
    assert claims.confirm(A, ROOT, digest, 1)
    assert not claims.confirm(B, ROOT, digest, 1)
    assert not claims.confirm(A, ROOT, bytes(16), 1)
    assert not claims.confirm(A, c.prefix_of(bytes(20), 1), digest, 1)
    claims.row_went(bytes(20))
    assert not claims.confirm(A, ROOT, digest, 2)
    claims.learn(A, ROOT, NAMES, 3, holds_all=False)
    assert not claims.confirm(A, ROOT, digest, 4)


def test_only_a_row_under_the_prefix_ends_a_claim_when_it_goes():
    claims = Claims()
    prefix = c.prefix_of(b"\xa5" * 20, 4)
    claims.learn(A, prefix, NAMES, 0, holds_all=True)
    claims.row_went(b"\xb5" * 20)
    assert claims.confirm(A, prefix, c.names_digest(NAMES), 0)
    claims.row_went(b"\xaf" * 20)
    assert not claims.confirm(A, prefix, c.names_digest(NAMES), 0)


def test_names_are_told_of_who_said_so_lately_where_prefixes_overlap():
    claims = Claims()
    claims.learn(A, c.prefix_of(b"\xa0" * 20, 4), NAMES, 10, holds_all=False)
    for bits, found in ((0, True), (3, True), (4, True), (6, True)):
        prefix = c.prefix_of(b"\xa0" * 20, bits)
        assert (A in claims.names([A, B], prefix, 10)) == found
    assert not claims.names([A], c.prefix_of(b"\xb0" * 20, 4), 0)
    assert not claims.names([B], ROOT, 0)
    assert not claims.names([A], ROOT, 11)
    assert len(claims.names([A], ROOT, 0)[A]) == 20


def test_claims_are_bounded_in_all_and_for_each_node():
    claims = Claims(10_000, 2_000)
    size = len(NAMES) + c.CLAIM_BYTES
    claims.learn(B, ROOT, NAMES, 0, holds_all=True)
    for number in range(200):
        prefix = c.prefix_of(bytes([number]) * 20, 8)
        claims.learn(A, prefix, NAMES, number, holds_all=True)
    assert claims.bytes_used <= 2_000 + size
    assert claims.confirm(B, ROOT, c.names_digest(NAMES), 0)  # others lose nothing by it
    for number in range(200):
        claims.learn(bytes([number]) * 20, ROOT, NAMES, number, holds_all=True)
    assert claims.bytes_used <= 10_000
    claims.learn(A, ROOT, bytes(2_000), 0, holds_all=True)
    assert not claims.names([A], ROOT, 0)


def test_claims_of_nothing_are_bounded_too():
    claims = Claims(100_000, 10_000)
    for number in range(1000):
        claims.learn(A, c.prefix_of(number.to_bytes(8, "big"), 64), b"", 0, holds_all=True)
    assert len(claims._claims) == len(claims._nodes_of) < 20


@given(st.binary(min_size=20, max_size=20), st.integers(0, 64), st.binary(min_size=20, max_size=20))
def test_a_prefix_is_the_range_of_its_keys(key, bits, other):
    prefix = c.prefix_of(key, bits)
    low, end = c.range_of(prefix)
    assert low <= int.from_bytes(key, "big") < end
    assert (low <= int.from_bytes(other, "big") < end) == (c.prefix_of(other, bits) == prefix)


@given(st.lists(st.binary(min_size=8, max_size=8), unique=True, max_size=64), st.data())
def test_the_bitmap_names_what_is_lacking(names, data):
    held = set(data.draw(st.lists(st.sampled_from(names)) if names else st.just([])))
    bitmap = c.lacking(b"".join(names), held)
    found = [names[i] for i in itertools.compress(range(len(names)), m.flags(bitmap, len(names)))]
    assert found == [name for name in names if name not in held]


# --- Among nodes ---------------------------------------------------------------------------------


def keep(client, rows):
    """Put rows into a donor as if they had been kept there for a publisher."""
    now = client.runtime.wall()
    for kvpid, value in rows.items():
        record = replace(
            own_record(kvpid, value, int(now)), standing=Standing.REPLICA, time_to_live=80_000
        )
        client.stores.cache.store(record, value, now)


def count_messages(cluster):
    """Count what nodes ask of each other inside sessions."""
    counts = {}
    for client in cluster.clients:
        handle = client._serving.handle

        def counted(link, request, handle=handle):
            name = type(request).__name__
            counts[name] = counts.get(name, 0) + 1
            handle(link, request)

        client._serving.handle = counted
    return counts


def count_queries(cluster):
    """Count what nodes ask of each other in the clear."""
    counts = {}
    for client in cluster.clients:
        for method, handle in client.protocol.handlers.items():

            def counted(*arguments, handle=handle, method=method):
                counts[method] = counts.get(method, 0) + 1
                return handle(*arguments)

            client.protocol.handlers[method] = counted
    return counts


def test_many_rows_are_named_once_and_from_then_on_a_digest_will_do():
    async def main(world):
        async with Cluster(world, copies=4) as cluster:
            await cluster.start_many(4)
            for client in cluster.clients:
                client.replicator.own_turns = 1  # so that each names all
            rows = values(150, size=2_000)
            keep(cluster.clients[0], rows)
            await asyncio.sleep(4 * HOUR)
            assert all(len(cluster.holders(kvpid)) == 4 for kvpid in rows)
            counts = count_messages(cluster)
            before = world.network.bytes_sent
            await asyncio.sleep(4 * HOUR)
            assert counts["Compare"] >= 15
            assert counts.get("Names", 0) <= 2
            assert "Offer" not in counts
            assert (world.network.bytes_sent - before) / 4 / 4 < 40_000  # a node and hour

    run(main, seed=1, conditions=CALM)


@pytest.mark.parametrize("is_new", [True, False])
def test_few_rows_are_compared_in_the_clear_with_those_who_can(is_new):
    async def main(world):
        async with Cluster(world, copies=4) as cluster:
            await cluster.start_many(4)
            for client in cluster.clients:
                client.replicator.own_turns = 0.0
            if not is_new:
                for client in cluster.clients:
                    client.protocol.capabilities = DONOR
            rows = values(60, size=2_000)
            keep(cluster.clients[0], rows)
            await asyncio.sleep(4 * HOUR)
            assert all(len(cluster.holders(kvpid)) == 4 for kvpid in rows)
            counts, queries = count_messages(cluster), count_queries(cluster)
            await asyncio.sleep(4 * HOUR)
            assert ("Compare" in counts) != is_new
            assert ("Prove" in counts) != is_new
            assert ("bt_compare" in queries) == is_new
            assert queries.get("bt_compare") == queries.get("bt_prove")

    run(main, seed=1, conditions=CALM)


def test_who_lacks_nothing_is_known_to_have_what_another_had_to_hold_before():
    """The rows of one that goes fall to others; whoever was seen to have them is not asked."""

    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            await cluster.start_many(3)
            rows = values(30)
            for client in cluster.clients:
                keep(client, rows)
                client.replicator.own_turns = 1
            await asyncio.sleep(1)
            donor, *others = cluster.clients
            first = await donor.replicator.repair()
            assert 0 < first.compared < 2 * len(rows)
            gone, left = others
            await cluster.stop(gone)
            await asyncio.sleep(1)
            for _ in range(donor.config.contact_fails_max):
                donor.protocol.has_failed(Contact(gone.identity.node_id, gone.address), 10 * HOUR)
            second = await donor.replicator.repair()
            assert (second.compared, second.agreed) == (0, len(rows))
            assert left.identity.node_id not in second.unreachable

    run(main, seed=2, conditions=CALM)


def test_what_a_donor_lacked_and_need_not_hold_then_is_brought_when_it_should():
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            await cluster.start_many(3)
            donor, gone, left = cluster.clients
            donor.replicator.own_turns = 1
            rows = values(30)
            keep(donor, rows)
            await asyncio.sleep(1)
            first = await donor.replicator.repair()
            assert 0 < len(left.stores.cache) < len(rows)
            await cluster.stop(gone)
            for _ in range(donor.config.contact_fails_max):
                donor.protocol.has_failed(Contact(gone.identity.node_id, gone.address), 10 * HOUR)
            second = await donor.replicator.repair()
            assert second.compared + second.agreed == len(rows)
            assert second.copied == len(rows) - first.copied + len(gone.stores.cache)
            assert len(left.stores.cache) == len(rows)

    run(main, seed=2, conditions=CALM)


@pytest.mark.parametrize(("size", "is_asked"), [(1024, False), (1025, True)])
def test_small_values_travel_inside_the_offer_of_a_repair(size, is_asked):
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            rows = values(40, size=size)
            keep(donor, rows)
            counts = count_messages(cluster)
            assert (await donor.replicator.repair()).copied == 40
            assert counts["Offer"] == 2
            assert counts.get("Get", 0) == 40 * is_asked
            assert all(other.stores.cache[kvpid] == value for kvpid, value in rows.items())

    run(main, conditions=CALM)


def compare(asker, donor, token=None, rows=()):
    """Ask in the clear, with a token of one's own or the right one, and return the result."""
    names = b"".join(sorted(c.row_name(row) for row in rows)) or NAMES
    comparison = Comparison(0, bytes(8), names)
    if token is not None:
        asker.protocol.token_for = lambda address: token
    contact = asker.protocol.router.contact(donor.identity.node_id)
    return asker.protocol.ask(contact, "bt_compare", comparison=comparison)


def test_only_who_has_a_token_gets_a_comparison():
    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            keep(donor, values(3))
            rows = donor.stores.cache.records_between(0, 2**160, 9)
            assert (await compare(other, donor)).reply.result == b"\xff\xff\x0f"
            assert (await compare(other, donor, rows=rows)).reply.result == b"\0"
            donor._comparing.lacking_of_few = pytest.fail
            assert (await compare(other, donor, token=bytes(16))).reply.result == b""

    run(main, conditions=CALM)


@pytest.mark.parametrize("is_contact", [True, False])
def test_only_a_contact_at_its_address_gets_one_and_claims_rows(is_contact):
    """Whoever can read a token's datagram could claim for another node otherwise."""

    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            if not is_contact:
                donor.protocol.router.contact(other.identity.node_id).address = ("10.0.9.9", 9)
            assert bool((await compare(other, donor)).reply.result) == is_contact
            assert bool(donor.claims.names([other.identity.node_id], ROOT, 0)) == is_contact

    run(main, conditions=CALM)


def test_a_comparison_in_the_clear_reads_a_page_and_then_sends_the_asker_to_a_session(monkeypatch):
    monkeypatch.setattr(comparing, "ROWS_AT_ONCE", 10)

    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            rows = values(30)
            keep(donor, rows)
            read = donor.stores.cache.records_between
            pages = []
            donor.stores.cache.records_between = lambda *a: pages.append(a) or read(*a)
            for _ in range(3):
                assert (await compare(other, donor)).reply.result == b""
            assert len(pages) == 6
            keep(other, dict(list(rows.items())[:5]))
            counts = count_messages(cluster)
            assert (await other.replicator.repair()).missing == 0
            assert counts["Names"] == 1

    run(main, conditions=CALM)


def test_regions_that_nobody_asks_for_make_room_for_those_that_are(monkeypatch):
    monkeypatch.setattr(comparing, "REGIONS_REMEMBERED_MAX", 4)

    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            for number in range(10):
                names = Comparison(8, bytes([number]) + bytes(7), NAMES)
                contact = other.protocol.router.contact(donor.identity.node_id)
                await other.protocol.ask(contact, "bt_compare", comparison=names)
            assert [prefix[1][0] for prefix in donor._comparing._held._kept] == [6, 7, 8, 9]

    run(main, conditions=CALM)


def test_a_donor_whose_slot_for_repairs_is_taken_says_so_and_is_asked_in_a_session():
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await asyncio.sleep(1)
            keep(donor, values(3))

            async def never():
                await asyncio.Event().wait()

            for _ in range(other._repair_slot.max_size):
                other._repair_slot.add_no_block(never)
            counts, queries = count_messages(cluster), count_queries(cluster)
            outcome = await donor.replicator.repair()
            assert (outcome.copied, outcome.unreachable) == (3, set())
            assert queries["bt_compare"] == queries["bt_prove"] == 1
            assert counts["Names"] == counts["Prove"] == 1
            assert not donor.protocol.router.doubts(other.identity.node_id)

    run(main, conditions=CALM)


def test_a_row_that_is_lost_at_one_holder_comes_back_within_five_periods():
    async def main(world):
        async with Cluster(world, copies=3) as cluster:
            await cluster.start_many(5)
            rows = values(20)
            keep(cluster.clients[2], rows)
            await asyncio.sleep(4 * HOUR)
            for kvpid in rows:
                cluster.true_closest(kvpid.key, 1)[0].stores.cache.remove(kvpid)
            await asyncio.sleep((replication.CLAIM_PERIODS + 1.5) * HOUR)
            for kvpid in rows:
                assert set(cluster.true_closest(kvpid.key, 3)) <= set(cluster.holders(kvpid))

    run(main, seed=1, conditions=CALM)


def identity_nearest_to(key, others, seed=1):
    rng = random.Random(seed)
    best = min(o.identity.node_id.distance_int(key) for o in others)
    while True:
        made = Identity.generate(rng.randbytes)
        if made.node_id.distance_int(key) < best:
            return made


def test_a_newcomer_is_handed_what_is_its_own_once_it_has_stayed_for_half_an_hour():
    async def main(world):
        async with Cluster(world, copies=3, repair_seconds=600) as cluster:
            await cluster.start_many(6)
            rows = values(1)
            (kvpid,) = rows
            keep(cluster.clients[0], rows)
            await asyncio.sleep(2 * HOUR)
            first = set(cluster.true_closest(kvpid.key, 3))
            assert first <= set(cluster.holders(kvpid))
            newcomer = await cluster.start(identity=identity_nearest_to(kvpid.key, cluster.clients))
            await asyncio.sleep(1500)
            assert kvpid not in newcomer.stores.cache
            await asyncio.sleep(1800)
            assert kvpid in newcomer.stores.cache

    run(main, seed=1, conditions=CALM)


def test_more_rows_than_one_message_names_are_compared_by_regions():
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            await cluster.start_many(2)
            rng = random.Random(1)
            rows = {}
            for kvpid, value in values(1500, size=20).items():
                near = KeyBytes(cluster.clients[0].identity.node_id[:1] + rng.randbytes(19))
                rows[kvpid._replace(key=near)] = value
            keep(cluster.clients[0], rows)
            counts = count_messages(cluster)
            await asyncio.sleep(3 * HOUR)
            assert len(cluster.clients[1].stores.cache) == 1500
            assert counts["Names"] >= 3

    run(main, conditions=CALM)


@pytest.mark.parametrize("bits", [0, 3])
def test_a_prefix_with_more_bits_than_it_says_is_refused(bits):
    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            link = await other.dht_network.link_to(next(iter(other.protocol.router)))
            with pytest.raises(TimeoutError):
                await link.ask(m.Compare(bytes(20), bits, b"\xff" * 8, bytes(16)), 2)
            with pytest.raises(TimeoutError):
                await link.ask(m.Names(bytes(20), bits, b"\xff" * 8, NAMES), 2)
            right = m.Names(bytes(20), bits, bytes(8), NAMES)
            assert (await link.ask(right, 2)).bitmap == b"\xff\xff\x0f"
            assert donor.claims.bytes_used

    run(main, conditions=CALM)


def test_what_follows_a_malformed_prefix_is_processed():
    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            await other.dht_network.link_to(next(iter(other.protocol.router)))
            await asyncio.sleep(1)
            (link,) = donor.sessions._links.values()
            malformed = m.encode(m.Compare(bytes(20), 0, b"\xff" * 8, bytes(16)))
            events = [MessageReceived(malformed), Closed("by the peer")]
            link.session.take_events = lambda: events
            link.process_events()
            assert not donor.sessions._links
            assert donor.sessions.counters["malformed message"] == 1

    run(main, conditions=CALM)


def test_rows_whose_names_collide_do_not_end_the_repair(monkeypatch):
    monkeypatch.setattr(replication, "row_name", lambda row: bytes(8))
    monkeypatch.setattr(comparing, "row_name", lambda row: bytes(8))

    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            keep(donor, values(2))
            await asyncio.sleep(1)
            assert (await donor.replicator.repair()).missing == 2
            assert len(other.stores.cache) == 2

    run(main, conditions=CALM)


def test_a_stranger_has_only_so_many_rows_read(monkeypatch):
    monkeypatch.setattr(comparing, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(comparing, "ROWS_COMPARED_MAX", 30)

    async def main(world):
        async with Cluster(world) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            keep(donor, values(60))
            held = donor.stores.cache.records_between(0, 2**160, 100)
            names = b"".join(sorted(map(c.row_name, held)))
            link = await other.dht_network.link_to(next(iter(other.protocol.router)))
            lacking = (await link.ask(m.Names(bytes(20), *ROOT, names), 2)).bitmap
            assert sum(m.flags(lacking, 60)) == 30
            held = donor.stores.cache.records_between(0, 2**160, 30)
            names = b"".join(sorted(map(c.row_name, held)))
            assert not any((await link.ask(m.Names(bytes(20), *ROOT, names), 2)).bitmap)

    run(main, conditions=CALM)


def test_a_donor_that_is_busy_neither_holds_all_nor_lies():
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            other.protocol.capabilities = DONOR  # so that it is asked in sessions
            keep(donor, values(2))
            share = other._serving._shares[other._serving._record_slot]
            share[donor.identity.node_id] = 100
            await asyncio.sleep(1)
            busy = await donor.replicator.repair()
            assert (busy.liars, busy.unreachable) == (0, {other.identity.node_id})
            keep(other, values(2))
            del share[donor.identity.node_id]
            await donor.replicator.repair()
            share[donor.identity.node_id] = 100  # the digest is known, and no proof is given
            donor.replicator._agreed.clear()
            busy = await donor.replicator.repair()
            assert (busy.missing, busy.liars, busy.unreachable) == (0, 0, {other.identity.node_id})
            del share[donor.identity.node_id]
            assert not (await donor.replicator.repair()).unreachable

    run(main, conditions=CALM)


def test_a_donor_that_has_all_is_left_alone_until_it_went_or_time_has_passed():
    async def main(world):
        async with Cluster(world, copies=2, repair_seconds=4 * HOUR) as cluster:
            donor, other = await cluster.start(), await cluster.start()
            donor.replicator.own_turns = 1
            keep(donor, values(3))
            await asyncio.sleep(1)
            first, second = [await donor.replicator.repair() for _ in range(2)]
            assert (first.compared, first.copied, first.agreed) == (3, 3, 0)
            assert (second.compared, second.agreed) == (0, 3)
            keep(donor, values(4))
            assert (await donor.replicator.repair()).compared == 4  # not the rows that it agreed to
            await asyncio.sleep(replication.AGREED_PERIODS * 4 * HOUR)
            assert (await donor.replicator.repair()).compared == 4
            assert (await donor.replicator.repair()).compared == 0
            contact = donor.protocol.router.contact(other.identity.node_id)
            donor.protocol.router.remove_contact(contact)
            await donor.protocol.ping(other.address)
            assert (await donor.replicator.repair()).compared == 4

    run(main, conditions=CALM)
