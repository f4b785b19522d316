"""Publishing, deposits, repair without the publisher, expiry, provider records."""

import asyncio

import pytest

from bytestag.config import DAY, HOUR
from bytestag.crypto.deposits import read_deposit, split_proof
from bytestag.dht.fetching import Wanted
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.publishing import PublishOutcome, availability, is_safe_to_leave
from bytestag.dht.stock import StockStorage
from bytestag.errors import PacketError
from bytestag.network import messages as m
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import KVPID, Standing, Verdict
from bytestag.uri import Link
from tests.dht.helpers import Cluster, add_values, publisher, values

CALM = Conditions(latency=0.02)
KEEP = 90 * DAY


async def published(cluster, rows, copies=3, keep=KEEP, **options):
    """Start a publisher, publish, and return it with the outcome."""
    client = await publisher(cluster, **options)
    records = add_values(client, rows)
    outcome = await client.publisher.publish(records, copies=copies, keep_seconds=keep)
    return client, outcome


def donors(cluster):
    return [c for c in cluster.clients if c.protocol.capabilities]


def holders(cluster, kvpid):
    return [c for c in cluster.holders(kvpid) if c.protocol.capabilities]


def test_every_row_gets_its_copies_and_only_donors_count():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            await cluster.start(cache_bytes=0)
            rows = values(100, size=300) | values(5, size=50_000, seed=1)
            _, outcome = await published(cluster, rows)
            assert outcome.copies == [0, 0, 0, 105]
            for kvpid in rows:
                assert len(holders(cluster, kvpid)) == 3

    run(main, conditions=CALM)


def test_there_are_no_more_copies_than_donors():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(2)
            _, outcome = await published(cluster, values(10), copies=5)
            assert outcome.copies_min == 2
            assert outcome.donors == 2

    run(main, conditions=CALM)


def test_with_nobody_to_push_to_the_outcome_says_so_and_nothing_hangs():
    async def main(world):
        async with Cluster(world) as cluster:
            _, outcome = await published(cluster, values(10))
            assert outcome.copies == [10, 0, 0, 0]
            assert outcome.donors == 0

    run(main, conditions=CALM)


def test_without_a_donor_each_row_is_looked_at_once(monkeypatch):
    asked = []
    donors_of = Neighbours.donors

    async def donors(self, key, count):
        asked.append(key)
        return await donors_of(self, key, count)

    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start(cache_bytes=0)
            _, outcome = await published(cluster, values(30), copies=8)
            assert outcome.copies_min == 0
            assert len(asked) == 30

    monkeypatch.setattr(Neighbours, "donors", donors)
    run(main, conditions=CALM)


def test_publishing_survives_a_bad_network():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            world.network.conditions = Conditions(
                latency=0.02, loss=0.1, jitter=0.02, duplication=0.05
            )
            rows = values(30, size=40_000)
            _, outcome = await published(cluster, rows)
            assert outcome.copies_min == 3
            for kvpid, value in rows.items():
                assert all(c.stores.cache[kvpid] == value for c in holders(cluster, kvpid))

    run(main, seed=4, conditions=CALM)


def test_a_donor_that_dies_meanwhile_is_replaced_by_another():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            rows = values(60, size=20_000)
            client = await publisher(cluster)
            records = add_values(client, rows)
            publishing = asyncio.ensure_future(
                client.publisher.publish(records, copies=3, keep_seconds=KEEP)
            )
            await asyncio.sleep(0.15)
            cluster.crash(cluster.clients[2])
            outcome = await publishing
            assert outcome.copies_min >= 3

    run(main, conditions=CALM)


def test_a_full_donor_refuses_with_its_reason_and_is_not_counted():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start(cache_bytes=5_000)
            _, outcome = await published(cluster, values(10, size=2_000), copies=1)
            assert outcome.refused["full"] > 0
            assert outcome.copies_min == 0
            assert cluster.clients[0].stores.cache.used_bytes <= 5_000

    run(main, conditions=CALM)


def test_a_kept_row_carries_a_deposit_that_anybody_can_verify():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(3)
            rows = values(3)
            client, outcome = await published(cluster, rows)
            for kvpid in rows:
                for holder in holders(cluster, kvpid):
                    record = holder.stores.cache.record(kvpid)
                    assert record.standing is Standing.KEPT
                    deposit = read_deposit(
                        split_proof(record.deposit)[0], cluster.config.network_id
                    )
                    assert deposit.depositor == client.identity.signing.public
            assert outcome.granted_hours_min == KEEP // HOUR

    run(main, conditions=CALM)


def test_the_holders_repair_among_themselves_without_the_publisher():
    async def main(world):
        async with Cluster(world, copies=3) as cluster:
            await cluster.start_many(8)
            rows = values(20, size=3_000)
            client, outcome = await published(cluster, rows)
            assert outcome.copies_min == 3
            await cluster.stop(client)
            for lost in (1, 5):
                dead = cluster.clients[lost]
                cluster.crash(dead)
                await asyncio.sleep(3 * HOUR)
                for kvpid in rows:
                    assert len(holders(cluster, kvpid)) >= 3

    run(main, conditions=CALM)


def test_without_repair_the_copies_would_be_lost():
    async def main(world):
        async with Cluster(world, copies=3, repair_seconds=10**9) as cluster:
            await cluster.start_many(8)
            rows = values(20, size=3_000)
            client, _ = await published(cluster, rows)
            await cluster.stop(client)
            dead = cluster.clients[1]
            cluster.crash(dead)
            await asyncio.sleep(3 * HOUR)
            assert min(len(holders(cluster, kvpid)) for kvpid in rows) == 2

    run(main, conditions=CALM)


def test_kept_rows_last_until_their_time_and_not_beyond():
    async def main(world):
        async with Cluster(world, repair_seconds=DAY) as cluster:
            await cluster.start_many(4)
            rows = values(5)
            client, _ = await published(cluster, rows, keep=2 * DAY)
            await cluster.stop(client)
            await asyncio.sleep(1.5 * DAY)
            assert all(len(holders(cluster, kvpid)) >= 3 for kvpid in rows)
            await asyncio.sleep(1.5 * DAY)
            assert not any(holders(cluster, kvpid) for kvpid in rows)

    run(main, conditions=CALM)


def test_rows_without_a_deposit_are_gone_a_day_after_the_publisher():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(4)
            rows = values(5)
            client, _ = await published(cluster, rows, keep=0)
            record = holders(cluster, next(iter(rows)))[0].stores.cache.record(next(iter(rows)))
            assert record.standing is Standing.REPLICA
            await cluster.stop(client)
            await asyncio.sleep(3 * DAY)
            assert not any(holders(cluster, kvpid) for kvpid in rows)

    run(main, conditions=CALM)


def test_publishing_again_moves_no_bytes_and_renews():
    async def main(world):
        async with Cluster(world, copies=3) as cluster:
            await cluster.start_many(4)
            rows = values(10, size=30_000)
            client, _ = await published(cluster, rows, keep=10 * DAY)
            kvpid = next(iter(rows))
            before = holders(cluster, kvpid)[0].stores.cache.record(kvpid).expires
            await asyncio.sleep(DAY)
            sent = world.network.bytes_sent
            records = add_values(client, rows)
            outcome = await client.publisher.publish(records, copies=3, keep_seconds=10 * DAY)
            assert outcome.copies_min == 3
            assert outcome.bytes_pushed == 0
            assert world.network.bytes_sent - sent < 300_000 // 3
            await asyncio.sleep(1)
            assert holders(cluster, kvpid)[0].stores.cache.record(kvpid).expires > before

    run(main, conditions=CALM)


def test_a_reader_leaves_a_copy_at_the_nearest_donor_that_lacked_it():
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(6)
            rows = values(1, size=4_000)
            ((kvpid, value),) = rows.items()
            far = cluster.true_closest(kvpid.key, 6)[-1]
            add_values(far, rows)
            reader = await cluster.start(is_client=True, cache_bytes=0)
            fetcher = reader.fetcher(Link("sha1", kvpid.key))
            assert await fetcher.fetch(Wanted(kvpid.key, kvpid.index)) == value
            await asyncio.sleep(2)
            nearest = cluster.true_closest(kvpid.key, 1, accept=lambda c: c is not reader)[0]
            assert nearest.stores.cache.record(kvpid).standing is Standing.CACHED
            assert len(cluster.holders(kvpid)) == 2
            assert not reader._path_cache.lent(kvpid.key)

    run(main, conditions=CALM)


# --- Attacks --------------------------------------------------------------------------------------


def test_a_deposit_over_other_rows_is_worth_nothing():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            rows = values(4)
            add_values(client, rows)
            link = await client.dht_network.link_to(next(iter(client.protocol.router)))
            made = client.publisher.make_offer(
                [_row(client, kvpid) for kvpid in list(rows)[:2]], KEEP
            )
            other = client.publisher.make_offer(
                [_row(client, kvpid) for kvpid in list(rows)[2:]], KEEP
            )
            forged = m.Offer(bytes(20), made.deposits, other.entries)
            answer = await link.ask(forged, 5)
            assert set(answer.verdicts) == {Verdict.BAD_DEPOSIT}
            assert len(donor.stores.cache) == 0

    run(main, conditions=CALM)


def _row(client, kvpid):
    return client.stores.cache.record(kvpid)


def test_a_publisher_that_sends_wrong_bytes_leaves_nothing_behind():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            rows = values(5, size=5_000)
            records = add_values(client, rows)
            true_read = client.stores.cache.read
            client.stores.table.read = lambda *args: b"\0" * len(true_read(*args))
            outcome = await client.publisher.publish(records, copies=1, keep_seconds=KEEP)
            assert outcome.copies_min == 0
            assert outcome.refused["wrong_bytes"]
            assert len(donor.stores.cache) == 0

    run(main, conditions=CALM)


def test_a_publisher_that_offers_and_then_falls_silent_frees_the_slots():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            rows = values(20, size=5_000)
            records = add_values(client, rows)
            client._serving.handle = lambda link, request: None
            publishing = asyncio.ensure_future(
                client.publisher.publish(records, copies=1, keep_seconds=KEEP)
            )
            await asyncio.sleep(5)
            assert donor._slots[-1].current_tasks
            publishing.cancel()
            await asyncio.sleep(120)
            assert not donor._slots[-1].current_tasks

    run(main, conditions=CALM)


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_donor_that_only_says_it_holds_a_row_is_found_out_by_those_who_do(is_defended):
    async def main(world):
        async with Cluster(world, copies=3) as cluster:
            await cluster.start_many(6)
            rows = values(1, size=3_000)
            ((kvpid, _),) = rows.items()
            client, _ = await published(cluster, rows)
            await cluster.stop(client)
            liar = cluster.true_closest(kvpid.key, 1, accept=lambda c: c is not client)[0]
            liar.stores.cache.remove(kvpid)
            liar.stores.cache.judge_many = lambda records, now: [Verdict.HELD] * len(records)
            liar._comparing.lacking_of_few = lambda named, node_id: bytes(14)
            liar.stores.cache.renew_many = lambda records, now: [Verdict.HELD] * len(records)
            if not is_defended:
                for other in cluster.clients:
                    other.replicator._sample = say_yes
            await asyncio.sleep(4 * HOUR)
            assert (len(holders(cluster, kvpid)) >= 3) == is_defended

    run(main, conditions=CALM)


async def say_yes(donor, inquiry, held, outcome):
    return True


# --- Figures --------------------------------------------------------------------------------------


def outcome(copies, donors=20, wanted=8):
    made = PublishOutcome(10, wanted, donors=donors, copies=[0] * (wanted + 1))
    made.copies[copies] = 10
    return made


def test_safe_to_leave_means_all_copies_and_three_nines():
    assert availability(6) >= 0.999 > availability(5)
    assert is_safe_to_leave(outcome(8))
    assert not is_safe_to_leave(outcome(7))
    assert is_safe_to_leave(outcome(6, donors=6))
    assert not is_safe_to_leave(outcome(5, donors=5))


def test_stock_storage_is_bounded_in_bytes_and_refuses_large_values():
    storage = StockStorage(10_000, lambda: 0.0)
    for number in range(100):
        storage[bytes([number]) * 20] = b"x" * 500
    assert storage.used_bytes <= 10_000
    with pytest.raises(PacketError):
        storage[bytes(20)] = b"x" * 9_000


def test_kvpids_of_values_differ_from_each_other():
    assert len(values(50)) == 50
    assert all(isinstance(kvpid, KVPID) for kvpid in values(2))
