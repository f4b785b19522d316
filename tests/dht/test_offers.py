"""Offers become rows: deposits, proofs, grants, and a verdict for each entry."""

import asyncio
import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytestag.config import DAY, HOUR, OFFER_KEYS_MAX, VALUE_BYTES_MAX
from bytestag.crypto.deposits import (
    DEPOSIT_BYTES,
    leaf_hash,
    make_deposit,
    merkle_proof,
    split_proof,
)
from bytestag.crypto.identity import Identity
from bytestag.dht import offers
from bytestag.dht.offers import rows_of_offer
from bytestag.errors import PacketError, StorageError
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.aggregated import AggregatedKVPTable
from bytestag.tables.base import KVPID, Standing, Verdict
from bytestag.tables.memory import MemoryKVPTable
from bytestag.tables.stores import memory_stores
from tests.dht.helpers import Cluster, content, get_nothing, publisher

NETWORK = b"network."
NOW = 1_800_000_500.0
DEPOSITOR = Identity.from_bytes(bytes(range(64)))
CALM = Conditions(latency=0.01, spread=0)


def entry(number, **fields):
    value = b"%d" % number * 100
    made = m.Entry(None, sha1(value), blake3(value), len(value))
    for name, content_ in fields.items():
        setattr(made, name, content_)
    return made


def leaves(entries):
    return [leaf_hash(e.key or e.index, e.index, e.blake3, e.size) for e in entries]


def deposit(entries, keep=90 * DAY, seq=1, network=NETWORK):
    return make_deposit(DEPOSITOR.signing, network, seq, NOW + keep, leaves(entries)).packed


def judged(entries, deposits=(), *, fill=0.0, life=86_490, now=NOW):
    offer = m.Offer(bytes(20), list(deposits), list(entries))
    return rows_of_offer(offer, NETWORK, now, fill, "8.8.8.0/24", lambda key: life)


def verdicts(rows):
    return [row.verdict for row in rows]


def kept(count, **options):
    entries = [entry(n, deposit=0) for n in range(count)]
    return entries, [deposit(entries, **options)]


# --- Without a deposit ---------------------------------------------------------------------------


def test_an_entry_without_a_deposit_lives_for_the_time_of_2012_at_most():
    asked = {0: 500, 100: 100, 10**9: 500}
    for seconds, life in asked.items():
        (row,) = judged([entry(1, time_to_live=seconds)], life=500)
        assert row.verdict is Verdict.ACCEPTED
        assert row.record.time_to_live == life
        assert row.record.standing is (Standing.REPLICA if seconds else Standing.CACHED)
        assert row.granted_hours == 0
        assert (row.record.deposit, row.record.depositor) == (b"", b"")


def test_a_row_has_the_names_the_size_the_time_and_the_network_of_its_offer():
    key = bytes(20)
    (row,) = judged([entry(1, key=key)])
    assert row.record.key == key
    assert row.record.index == entry(1).index
    assert (row.record.blake3, row.record.size) == (entry(1).blake3, 100)
    assert (row.record.timestamp, row.record.group) == (int(NOW), "8.8.8.0/24")
    (row,) = judged([entry(1)])
    assert row.record.key == row.record.index


# --- Deposits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 5, 63, 64])
def test_a_deposit_that_comes_with_all_its_leaves_needs_no_proofs(count):
    entries, deposits = kept(count)
    rows = judged(entries, deposits)
    assert verdicts(rows) == [Verdict.ACCEPTED] * count
    for number, row in enumerate(rows):
        packed, proof = split_proof(row.record.deposit)
        assert packed == deposits[0]
        assert proof == merkle_proof(leaves(entries), number)
        assert row.record.standing is Standing.KEPT
        assert row.record.depositor == DEPOSITOR.signing.public


@given(st.integers(1, 64), st.data())
@settings(max_examples=30)
def test_any_choice_of_the_leaves_is_good_with_its_proofs(count, data):
    entries, deposits = kept(count)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=8, unique=True))
    offered = []
    for number in chosen:
        proof = merkle_proof(leaves(entries), number)
        offered.append(entry(number, deposit=0, proof=proof))
    rows = judged(offered, deposits)
    assert verdicts(rows) == [Verdict.ACCEPTED] * len(chosen)
    assert [row.record.deposit for row in rows] == [deposits[0] + e.proof for e in offered]


def test_what_a_holder_keeps_is_enough_to_hand_the_row_on():
    entries, deposits = kept(7)
    for number, row in enumerate(judged(entries, deposits)):
        packed, proof = split_proof(row.record.deposit)
        again = judged([entry(number, deposit=0, proof=proof)], [packed])
        assert verdicts(again) == [Verdict.ACCEPTED]
        assert again[0].record.deposit == row.record.deposit


def test_rows_under_several_deposits_and_none_are_told_apart():
    first = [entry(n, deposit=1) for n in range(3)]
    second = [entry(n, deposit=0) for n in range(10, 12)]
    mixed = [first[0], second[0], entry(50), first[1], second[1], first[2]]
    rows = judged(mixed, [deposit(second, keep=DAY), deposit(first, keep=2 * DAY)])
    assert verdicts(rows) == [Verdict.ACCEPTED] * 6
    assert [row.granted_hours for row in rows] == [47, 23, 0, 47, 23, 47]


def spoilt(case):
    entries, deposits = kept(4)
    match case:
        case "a leaf is missing":
            entries = entries[:3]
        case "another order":
            entries = entries[::-1]
        case "another size":
            entries[1].size += 1
        case "another BLAKE3":
            entries[1].blake3 = bytes(32)
        case "another key":
            entries[1].key = bytes(20)
        case "a flipped signature":
            deposits = [deposits[0][:-1] + bytes([deposits[0][-1] ^ 1])]
        case "a longer time":
            changed = bytearray(deposits[0])
            changed[52] ^= 1
            deposits = [bytes(changed)]
        case "another network":
            deposits = [deposit(entries, network=b"another.")]
        case "cut short":
            deposits = [deposits[0][:-1]]
        case "no deposit of that number":
            deposits = []
        case "garbage":
            deposits = [random.Random(1).randbytes(DEPOSIT_BYTES)]
    return entries, deposits


@pytest.mark.parametrize(
    "case",
    [
        "a leaf is missing",
        "another order",
        "another size",
        "another BLAKE3",
        "another key",
        "a flipped signature",
        "a longer time",
        "another network",
        "cut short",
        "no deposit of that number",
        "garbage",
    ],
)
def test_a_deposit_that_does_not_cover_the_rows_is_bad(case):
    entries, deposits = spoilt(case)
    rows = judged(entries, deposits)
    assert verdicts(rows) == [Verdict.BAD_DEPOSIT] * len(entries)
    assert all(not row.record.deposit and not row.granted_hours for row in rows)


def test_a_proof_of_another_position_or_length_is_bad():
    entries, deposits = kept(5)
    good = merkle_proof(leaves(entries), 2)
    wrong = [
        merkle_proof(leaves(entries), 1),
        bytes([3]) + good[1:],
        bytes([200]) + good[1:],
        good[:-32],
        good + bytes(32),
        good[:-1],
        b"\0",
    ]
    for proof in wrong:
        assert verdicts(judged([entry(2, deposit=0, proof=proof)], deposits)) == [
            Verdict.BAD_DEPOSIT
        ]
    assert verdicts(judged([entry(2, deposit=0, proof=good)], deposits)) == [Verdict.ACCEPTED]


def test_one_bad_entry_does_not_spoil_the_others():
    entries, deposits = kept(3)
    proven = [entry(n, deposit=0, proof=merkle_proof(leaves(entries), n)) for n in range(3)]
    proven[1].size += 1
    proven.append(entry(9))
    assert verdicts(judged(proven, deposits)) == [
        Verdict.ACCEPTED,
        Verdict.BAD_DEPOSIT,
        Verdict.ACCEPTED,
        Verdict.ACCEPTED,
    ]


# --- Grants --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "fill", "days"),
    [
        (90 * DAY, 0.0, 90),
        (400 * DAY, 0.49, 90),
        (90 * DAY, 0.5, 7),
        (3 * DAY, 0.79, 3),
        (90 * DAY, 0.8, 1),
        (90 * DAY, 0.949, 1),
    ],
)
def test_a_donor_grants_what_was_asked_up_to_a_limit_by_its_fill(keep, fill, days):
    entries, deposits = kept(2, keep=keep + HOUR)
    for row in judged(entries, deposits, fill=fill):
        assert row.verdict is Verdict.ACCEPTED
        assert row.granted_hours == days * 24
        assert row.record.expires >= int(NOW) + days * DAY


def test_a_full_donor_says_full_and_a_late_deposit_is_expired():
    entries, deposits = kept(2)
    assert verdicts(judged(entries, deposits, fill=0.95)) == [Verdict.FULL] * 2
    for now in (NOW + 90 * DAY, NOW + 90 * DAY - HOUR / 2, NOW + 1000 * DAY):
        assert verdicts(judged(entries, deposits, now=now)) == [Verdict.EXPIRED] * 2
        assert verdicts(judged(entries, deposits, now=now, fill=0.99)) == [Verdict.EXPIRED] * 2


def test_a_deposit_cannot_be_stretched_by_offering_it_again():
    entries, deposits = kept(1, keep=10 * DAY)
    ends = [judged(entries, deposits, now=NOW + n * DAY)[0].record.expires for n in range(9)]
    assert max(ends) <= NOW + 10 * DAY


# --- Bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"entries": [entry(n) for n in range(OFFER_KEYS_MAX + 1)]},
        {"entries": []},
        {"entries": [entry(1, size=VALUE_BYTES_MAX + 1)]},
        {"entries": [entry(1, size=-1)]},
        {"entries": [entry(1, deposit=64)]},
        {"entries": [entry(1, proof=bytes(194))]},
        {"entries": [entry(1, value=bytes(1025))]},
        {"entries": [entry(1, index=bytes(19))]},
        {"entries": [entry(1, blake3=bytes(31))]},
        {"entries": [entry(1, time_to_live=-1)]},
        {"deposits": [b""] * 65},
        {"id": bytes(21)},
    ],
    ids=str,
)
def test_an_offer_beyond_its_bounds_does_not_decode(change):
    fields = {"id": bytes(20), "deposits": [], "entries": [entry(1)]}
    assert m.decode(m.encode(m.Offer(**fields)))
    with pytest.raises(PacketError):
        m.decode(m.encode(m.Offer(**(fields | change))))


# --- The handler ---------------------------------------------------------------------------------


async def offer_to(cluster, entries, deposits=(), **options):
    """Offer to one donor; return (donor, the answer, the last words)."""
    donor = await cluster.start(**options)
    client = await publisher(cluster)
    link = await client.dht_network.link_to(next(iter(client.protocol.router)))
    conversation = link.open(m.Offer(bytes(20), list(deposits), entries))
    answer = await conversation.next(5)
    finals = {}
    while len(finals) < answer.verdicts.count(Verdict.ACCEPTED):
        for final in (await conversation.next(30)).finals:
            finals[final.entry] = Verdict(final.verdict)
    return donor, [Verdict(v) for v in answer.verdicts], finals


def inline(value, **fields):
    return m.Entry(None, sha1(value), blake3(value), len(value), None, b"", 1000, value, **fields)


def test_each_entry_has_a_verdict_of_its_own():
    good, liar = inline(b"good"), replace_value(inline(b"true"), b"lies")

    async def main(world):
        async with Cluster(world) as cluster:
            missing = m.Entry(None, sha1(b"gone"), blake3(b"gone"), 4, None, b"", 1000)
            large = m.Entry(None, sha1(b"x"), blake3(b"x"), VALUE_BYTES_MAX, None, b"", 1000)
            bad = m.Entry(None, sha1(b"y"), blake3(b"y"), 1, 0, b"", 0, b"y")
            donor, answers, finals = await offer_to(
                cluster, [good, liar, missing, large, bad, good], cache_bytes=100_000
            )
            assert answers == [
                Verdict.ACCEPTED,
                Verdict.ACCEPTED,
                Verdict.ACCEPTED,
                Verdict.FULL,
                Verdict.BAD_DEPOSIT,
                Verdict.ACCEPTED,
            ]
            assert finals == {
                0: Verdict.ACCEPTED,
                1: Verdict.WRONG_BYTES,
                2: Verdict.NOT_SENT,
                5: Verdict.HELD,
            }
            assert len(donor.stores.cache) == 1

    run(main, conditions=CALM)


def replace_value(made, value):
    made.value = value
    return made


def test_a_node_that_donates_nothing_is_read_only():
    async def main(world):
        async with Cluster(world) as cluster:
            donor, answers, _ = await offer_to(cluster, [inline(b"good")], cache_bytes=0)
            assert answers == [Verdict.READ_ONLY]
            assert len(donor.stores.cache) == 0

    run(main, conditions=CALM)


def test_offers_beyond_the_slots_are_busy_and_the_slots_come_back():
    async def main(world):
        async with Cluster(world, incoming_slots=2, waiting_slots=3) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            get_nothing(client)  # it offers and never sends
            link = await client.dht_network.link_to(next(iter(client.protocol.router)))
            asked = []
            for number in range(10):
                value = content(5_000, number)
                made = m.Entry(None, sha1(value), blake3(value), len(value), None, b"", 1000)
                offer = m.Offer(number.to_bytes(20, "big"), [], [made])
                asked.append(link.open(offer))
            first = [(await c.next(60)).verdicts[0] for c in asked]
            assert first.count(Verdict.BUSY) == 10 - 2 - 3
            await_all = [await c.next(60) for c, v in zip(asked, first, strict=True) if not v]
            assert {f.verdict for s in await_all for f in s.finals} == {Verdict.NOT_SENT}
            good = m.Offer(b"x" * 20, [], [inline(b"good")])
            assert (await link.ask(good, 5)).verdicts == bytes([Verdict.ACCEPTED])
            assert len(donor.stores.cache) <= 1

    run(main, conditions=CALM)


# --- Renewals ------------------------------------------------------------------------------------


def deposited(cluster, world_now, values, days):
    """Return (entries, deposits) that keep small values for some days."""
    entries = [m.Entry(None, sha1(v), blake3(v), len(v), 0, b"", 0, v) for v in values]
    until = world_now + days * DAY + 3 * HOUR
    made = make_deposit(DEPOSITOR.signing, cluster.config.network_id, days, until, leaves(entries))
    return entries, [made.packed]


async def offer_again(cluster, donor, values, days):
    """Offer from the node that came last; return the verdicts and the days granted."""
    client = cluster.clients[-1]
    link = await client.dht_network.link_to(next(iter(client.protocol.router)))
    entries, deposits = deposited(cluster, donor.runtime.wall(), values, days)
    answer = await link.ask(m.Offer(b"%020d" % days, deposits, entries), 5)
    return [Verdict(v) for v in answer.verdicts], [hours // 24 for hours in answer.granted]


def unreadable(*arguments):
    raise AssertionError("the bytes were read")


def test_a_renewal_is_committed_before_it_is_answered_and_reads_no_bytes():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            await publisher(cluster)
            assert await offer_again(cluster, donor, [b"value"], 10) == ([0], [10])
            await asyncio.sleep(1)
            cache = donor.stores.cache
            cache.read = cache.read_row = unreadable
            entries, _ = deposited(cluster, 0, [b"value"], 1)
            kvpid = KVPID(KeyBytes(entries[0].index), KeyBytes(entries[0].index))
            verdicts, granted = await offer_again(cluster, donor, [b"value"], 30)
            renewed = cache.record(kvpid)
            assert (verdicts, granted) == ([Verdict.HELD], [30])
            assert renewed.expires > donor.runtime.wall() + 30 * DAY
            verdicts, granted = await offer_again(cluster, donor, [b"value"], 20)
            assert (verdicts, granted) == ([Verdict.HELD], [30])
            assert cache.record(kvpid) == renewed

    run(main, conditions=CALM)


def test_a_renewal_that_cannot_be_committed_is_not_held():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            await publisher(cluster)
            await offer_again(cluster, donor, [b"value"], 10)
            await asyncio.sleep(1)

            def fail(records, now):
                raise StorageError("the disk is gone")

            donor.stores.cache.renew_many = fail
            verdicts, _ = await offer_again(cluster, donor, [b"value"], 30)
            assert verdicts == [Verdict.FULL]

    run(main, conditions=CALM)


def test_what_goes_before_its_renewal_is_asked_for_again():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            await publisher(cluster)
            cache = donor.stores.cache
            judge = cache.judge_many
            cache.judge_many = lambda records, now: [Verdict.HELD for _ in records]
            verdicts, granted = await offer_again(cluster, donor, [b"value"], 10)
            assert (verdicts, granted) == ([Verdict.ACCEPTED], [10])
            await asyncio.sleep(1)
            cache.judge_many = judge
            assert len(cache) == 1

    run(main, conditions=CALM)


def test_nothing_is_granted_for_a_row_that_only_the_shared_files_hold():
    async def main(world):
        async with Cluster(world) as cluster:
            stores = memory_stores(2**30, KeyBytes(bytes(20)), world.runtime("any").wall)
            shared = MemoryKVPTable()
            index = KeyBytes(sha1(b"shared"))
            shared[KVPID(index, index)] = b"shared"
            table = AggregatedKVPTable(stores.cache, [shared])
            donor = await cluster.start(stores=dataclasses.replace(stores, table=table))
            await publisher(cluster)
            verdicts, granted = await offer_again(cluster, donor, [b"shared", b"new"], 10)
            assert verdicts == [Verdict.HELD, Verdict.ACCEPTED]
            assert granted == [0, 10]
            await asyncio.sleep(1)
            assert len(stores.cache) == 1

    run(main, conditions=CALM)


def test_verdicts_are_sent_at_once_when_an_offer_has_ended_and_no_timer_is_left():
    sent = []

    class Peer:
        def send(self, message):
            sent.append([final.entry for final in message.finals])

    async def main():
        loop = asyncio.get_running_loop()
        before = len(loop._scheduled)
        finals = offers._Finals(Peer(), bytes(20))
        row = offers.OfferedRow(None, Verdict.FULL)
        finals.add(0, Verdict.FULL, row)
        finals.add(1, Verdict.FULL, row)
        assert sent == []
        finals.close()  # the node is stopped, say
        finals.add(2, Verdict.FULL, row)
        await asyncio.sleep(0)
        return [timer for timer in loop._scheduled[before:] if not timer.cancelled()]

    assert asyncio.run(main()) == []
    assert sent == [[0, 1], [2]]
