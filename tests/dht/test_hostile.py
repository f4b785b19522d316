"""What a hostile peer may try against one node, and what it does not get."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from bytestag.config import HOUR, PART_BYTES
from bytestag.dht.fetching import Wanted
from bytestag.dht.lookup import Shortlist
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError, NotFound, StorageError
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import ANSWERS_UNSENT_MAX, RATE_MIN, Busy
from bytestag.network.packets import Provider
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables.base import KVPID, Standing, own_record
from bytestag.uri import Link
from tests.dht.helpers import Cluster, add_values, content, own, publisher, values
from tests.network.nodes import let_trickle

CALM = Conditions(latency=0.02)


async def link_between(client, other):
    contact = client.protocol.router.contact(other.identity.node_id)
    return await client.dht_network.link_to(contact)


@pytest.mark.parametrize("addresses", [b"\xff", b"\x04\x01", b"\x04\x7f\0\0\x01\x10\0"])
def test_a_provider_that_cannot_be_read_or_may_not_be_named_ends_no_fetch(addresses):
    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(5)
            ((kvpid, value),) = values(1).items()
            add_values(cluster.clients[3], {kvpid: value})

            async def describe(key, reply):
                reply.providers = [Provider(bytes(20), 100, addresses)]

            cluster.clients[2].protocol._holdings.describe = describe
            reader = cluster.clients[0]
            fetcher = reader.fetcher(Link("sha1", kvpid.key))
            assert await fetcher.fetch(Wanted(kvpid.key, kvpid.index)) == value
            assert not (await reader.dht_network.find_value(kvpid.key)).providers

    run(main, conditions=CALM)


def test_a_peer_that_asks_and_takes_no_answers_loses_its_session():
    async def main(world):
        async with Cluster(world) as cluster:
            victim, thief = await cluster.start(), await cluster.start()
            link = await link_between(thief, victim)
            await asyncio.sleep(1)
            there = victim.sessions.link_to(thief.identity.node_id)
            there.session._control._receive_ack = lambda ack, now: None
            for number in range(2 * ANSWERS_UNSENT_MAX):
                get = m.Get(number.to_bytes(20, "big"), 0, bytes(20), None, b"", 0, 10)
                link.send(get)
                if number % 500 == 0:
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)
            assert there.session.messages_queued <= ANSWERS_UNSENT_MAX + 100
            assert there.session.is_closed

    run(main, conditions=CALM)


def test_one_peer_gets_three_quarters_of_the_upload_slot_and_leaves_room_for_others():
    async def main(world):
        async with Cluster(world) as cluster:
            holder, thief, reader = [await cluster.start() for _ in range(3)]
            rows = values(1, size=200_000)
            ((kvpid, value),) = rows.items()
            add_values(holder, rows)
            link = await link_between(thief, holder)
            thief.sessions.datagram_received = lambda datagram, address: None  # takes, never acks
            for number in range(200):
                get = m.Get(number.to_bytes(20, "big"), number, kvpid.key, None, b"", 0, 200_000)
                link.send(get)
            await asyncio.sleep(1)
            slot = holder.upload_slot
            assert len(slot.current_tasks) + slot.queue == slot.max_size * 3 // 4
            honest = await link_between(reader, holder)
            async with asyncio.timeout(5):
                fetched = await honest.get(kvpid.key, length=200_000, idle_seconds=5)
            assert fetched.value == value

    run(main, conditions=CALM)


def test_who_came_first_gives_way_to_the_share_of_others_as_his_transfers_end():
    async def main(world):
        async with Cluster(world, upload_slots=16, waiting_slots=8) as cluster:
            holder, *thieves = [await cluster.start() for _ in range(3)]
            rows = values(1, size=200_000)
            ((kvpid, _),) = rows.items()
            add_values(holder, rows)
            first, second = [await link_between(thief, holder) for thief in thieves]
            for thief in thieves:
                thief.sessions.datagram_received = lambda datagram, address: None

            async def ask(link, numbers):
                for number in numbers:
                    id_ = number.to_bytes(20, "big")
                    link.send(m.Get(id_, number, kvpid.key, None, b"", 0, 200_000))
                await asyncio.sleep(1)
                shares = holder._serving._shares[holder.upload_slot]
                return [shares[thief.identity.node_id] for thief in thieves]

            assert await ask(first, range(16)) == [12, 0]
            assert await ask(second, range(8)) == [12, 8]
            for number in range(10):
                first.send(m.Cancel(number.to_bytes(20, "big")))
            await asyncio.sleep(1)
            assert await ask(first, range(100, 110)) == [8, 8]

    run(main, conditions=CALM)


def test_large_values_take_more_of_the_upload_slot():
    async def main(world):
        async with Cluster(world) as cluster:
            holder, thief = await cluster.start(), await cluster.start()
            rows = values(1, size=2**20)
            (kvpid,) = rows
            add_values(holder, rows)
            link = await link_between(thief, holder)
            thief.sessions.datagram_received = lambda datagram, address: None
            for number in range(60):
                link.send(m.Get(number.to_bytes(20, "big"), number, kvpid.key, None, b"", 0, 2**20))
            await asyncio.sleep(1)
            assert (
                len(holder.upload_slot.current_tasks) == holder.upload_slot.max_size * 3 // 4 // 4
            )

    run(main, conditions=CALM)


@asynccontextmanager
async def asked_by_one(world, rows):
    """Have a holder of rows, one who asks, and the session between them."""
    async with Cluster(world) as cluster:
        holder, asker = await cluster.start(), await cluster.start()
        add_values(holder, rows)
        yield holder, await link_between(asker, holder)


def long_run(rows, number=0, more=()):
    """Return a question for whole parts, as many as a run may have."""
    wants = [m.Want(kvpid.key, kvpid.index, b"", len(value)) for kvpid, value in rows.items()]
    return m.GetMany(number.to_bytes(20, "big"), number, [*wants, *more])


def test_long_runs_for_many_names_leave_room_for_who_asks_for_little():
    async def main(world):
        async with Cluster(world, upload_slots=32, waiting_slots=32) as cluster:
            holder, honest = await cluster.start(), await cluster.start()
            rows = values(16, size=PART_BYTES)
            add_values(holder, rows)
            for _ in range(6):
                thief = await cluster.start()
                link = await link_between(thief, holder)
                thief.sessions.datagram_received = lambda datagram, address: None
                link.send(long_run(rows))
            await asyncio.sleep(1)
            assert holder._serving.counters["busy"] >= 4
            (kvpid, value), *_ = rows.items()
            link = await link_between(honest, holder)
            fetched = await link.get(kvpid.key, length=len(value), idle_seconds=5)
            assert fetched.value == value

    run(main, conditions=CALM)


def test_a_run_of_more_than_it_may_have_is_refused():
    async def main(world):
        rows = values(16, size=PART_BYTES)
        async with asked_by_one(world, rows) as (_, link):
            wants = long_run(rows).wants
            found = await link.get_many(wants, idle_seconds=5)
            assert [bytes(value) for value in found] == list(rows.values())
            with pytest.raises(NotFound, match="4"):
                await link.get_many([*wants, m.Want(bytes(20), None, b"", 1)], idle_seconds=5)

    run(main, conditions=CALM)


def test_a_run_that_trickles_holds_its_places_no_longer_than_its_largest_value_may():
    async def main(world):
        rows = values(16, size=PART_BYTES)
        async with asked_by_one(world, rows) as (holder, link):
            let_trickle(world, holder.address, 9.0)
            link.send(long_run(rows))
            patience = holder.config.transfer_idle_seconds + PART_BYTES / RATE_MIN
            await asyncio.sleep(patience - 2)
            assert holder.upload_slot.current_tasks
            await asyncio.sleep(4)
            assert not holder.upload_slot.current_tasks
            assert holder._serving.counters["uploads given up"] == 1

    run(main, conditions=CALM)


def test_of_bytes_of_large_values_few_are_read_at_one_go():
    async def main(world):
        rows = values(1, size=2**20)
        async with asked_by_one(world, rows) as (holder, link):
            ((kvpid, _),) = rows.items()
            batches = []
            read = holder._serving._reader._work
            holder._serving._reader._work = lambda gets: batches.append(len(gets)) or read(gets)
            for number in range(40):
                id_ = number.to_bytes(20, "big")
                link.send(m.Get(id_, number, kvpid.key, None, b"", number, 1))
            await asyncio.sleep(1)
            assert sum(batches) == 40
            assert max(batches) <= 8  # 8 MiB

    run(main, conditions=CALM)


def test_a_small_value_that_was_asked_for_as_if_it_were_large_holds_its_place_no_longer():
    async def main(world):
        rows = values(1, size=4000)
        async with asked_by_one(world, rows) as (holder, link):
            ((kvpid, _),) = rows.items()
            world.network.inject = lambda *datagram: None
            link.send(m.Get(bytes(20), 0, kvpid.key, None, b"", 0, 2**20))
            (there,) = holder.sessions._links.values()
            holder._serving.handle(there, m.Get(bytes(20), 0, kvpid.key, None, b"", 0, 2**20))
            await asyncio.sleep(1)
            assert holder.upload_slot.current_tasks
            await asyncio.sleep(holder.config.transfer_idle_seconds + 2)
            assert holder._serving.counters["uploads given up"] == 1

    run(main, conditions=CALM)


def test_a_byte_of_a_large_value_keeps_no_more_than_that_in_memory():
    async def main(world):
        rows = values(1, size=2**20)
        async with asked_by_one(world, rows) as (holder, link):
            ((kvpid, value),) = rows.items()
            await asyncio.sleep(1)
            (there,) = holder.sessions._links.values()
            kept = []
            there.session.upload = lambda id_, slot, pieces, unit_bytes: kept.extend(pieces)
            link.send(m.Get(bytes(20), 0, kvpid.key, None, b"", 7, 1))
            await asyncio.sleep(1)
            assert [bytes(part) for part in kept] == [value[7:8]]
            assert [len(part.obj) for part in kept] == [1]

    run(main, conditions=CALM)


@pytest.mark.parametrize("length", [1, 2**20])
def test_many_large_values_asked_for_at_one_go_are_not_even_read(length):
    async def main(world):
        async with Cluster(world) as cluster:
            holder, thief = await cluster.start(), await cluster.start()
            rows = {}
            for seed in range(8):
                rows |= own(content(2**20, seed))
            add_values(holder, rows)
            read = []
            read_row, read_rows = holder.stores.cache.read_row, holder.stores.cache.read_rows
            holder.stores.cache.read_row = lambda row: read.append(row) or read_row(row)
            holder.stores.cache.read_rows = lambda some: read.extend(some) or read_rows(some)
            link = await link_between(thief, holder)
            wants = [m.Want(kvpid.key, None, b"", length) for kvpid in rows]
            with pytest.raises(NotFound):
                await link.get_many(wants, idle_seconds=5)
            assert not read
            (want,) = [m.Want(kvpid.key, None, b"", 2**20) for kvpid in list(rows)[:1]]
            assert await link.get_many([want], idle_seconds=5) == [rows[next(iter(rows))]]

    run(main, conditions=CALM)


def test_a_table_that_cannot_be_read_for_a_moment_is_a_peer_that_is_busy():
    async def main(world):
        async with Cluster(world) as cluster:
            holder, reader = await cluster.start(), await cluster.start()
            rows = values(1, size=5_000)
            ((kvpid, value),) = rows.items()
            add_values(holder, rows)
            link = await link_between(reader, holder)
            true_read = holder._serving._table.read_asked

            def failing(asked, now):
                holder._serving._table.read_asked = true_read
                raise StorageError("injected")

            holder._serving._table.read_asked = failing
            began = reader.runtime.monotonic()
            with pytest.raises(Busy):
                await link.get(kvpid.key, length=5_000, idle_seconds=5)
            assert reader.runtime.monotonic() - began < 1
            assert (await link.get(kvpid.key, length=5_000, idle_seconds=5)).value == value

    run(main, conditions=CALM)


def test_a_transfer_id_used_twice_is_served_once():
    async def main(world):
        async with Cluster(world) as cluster:
            holder, thief = await cluster.start(), await cluster.start()
            rows = values(2, size=5_000)
            add_values(holder, rows)
            link = await link_between(thief, holder)
            for kvpid in rows:
                link.send(m.Get(bytes(20), 0, kvpid.key, None, b"", 0, 5_000))
                await asyncio.sleep(1)
            assert holder._serving.counters["transfer ID used twice"] == 1
            first = next(iter(rows.values()))
            assert holder._serving.counters["bytes uploaded"] == len(first)

    run(main, conditions=CALM)


def test_a_donor_that_says_stored_of_nothing_does_not_keep_the_publisher():
    async def main(world):
        async with Cluster(world) as cluster:
            donor = await cluster.start()
            client = await publisher(cluster)
            records = add_values(client, values(3, size=5_000))

            def handle(link, offer):
                link.send(m.Answer(offer.id, bytes(len(offer.entries)), [0] * len(offer.entries)))

                async def pester():
                    for _ in range(100):
                        await asyncio.sleep(50)
                        link.send(m.Stored(offer.id, []))

                donor._group.create_task(pester())

            donor._serving._offers.handle = handle
            async with asyncio.timeout(900):
                outcome = await client.publisher.publish(records, copies=1, keep_seconds=86400)
            assert outcome.copies_min == 0
            world.loop.call_later(0, lambda: [t.cancel() for t in _pesters()])
            await asyncio.sleep(1)

    def _pesters():
        return [t for t in asyncio.all_tasks() if "pester" in repr(t.get_coro())]

    run(main, conditions=CALM)


def test_a_peer_that_was_restarted_is_talked_to_again_at_once():
    async def main(world):
        async with Cluster(world) as cluster:
            client, other = await cluster.start(), await cluster.start()
            rows = values(1, size=5_000)
            ((kvpid, value),) = rows.items()
            await link_between(client, other)
            identity = other.identity
            cluster.crash(other)  # it says no goodbye
            again = await cluster.start(identity=identity, host=other.options.address[0])
            add_values(again, rows)
            began = world.loop.time()
            for _ in range(10):
                try:
                    link = await link_between(client, again)
                    fetched = await link.get(kvpid.key, length=5_000, idle_seconds=2)
                    break
                except BytestagError:
                    continue
            assert fetched.value == value
            assert world.loop.time() - began < 10

    run(main, conditions=CALM)


@pytest.mark.parametrize("is_defended", [True, False])
def test_a_nearer_node_that_claims_all_rows_puts_repair_off_but_not_for_ever(is_defended):
    async def main(world):
        async with Cluster(world, copies=2) as cluster:
            await cluster.start_many(4)
            rows = values(5)
            donors = cluster.clients
            for kvpid, value in rows.items():  # one copy each, at the second closest
                second = cluster.true_closest(kvpid.key, 2)[1]
                record = replace(own_record(kvpid, value), standing=Standing.KEPT)
                second.stores.cache.store(record, value, second.runtime.wall())
                second.claims.names = lambda ids, *_: dict.fromkeys(ids, All())
                if not is_defended:
                    second.replicator.own_turns = 0.0
            hours = Counter[KVPID]()
            for _ in range(96):  # twelve turns of each, on average; a copy lives for a day
                await asyncio.sleep(HOUR)
                hours.update(kvpid for kvpid in rows if len(cluster.holders(kvpid)) == 2)
            assert (min(hours[kvpid] for kvpid in rows) >= 24) == is_defended
            assert donors

    run(main, conditions=CALM)


class All:
    """A set of every name."""

    def __contains__(self, name):
        return True


def test_a_walk_with_unanswered_contacts_does_not_claim_to_know_everybody():
    made = [Contact(KeyBytes.new_hash(bytes([n])), ("10.0.0.1", n + 1)) for n in range(12)]
    shortlist = Shortlist(bytes(20))
    shortlist.add(made)
    asked = []
    while batch := shortlist.contacts_to_ask():
        asked += batch
        for contact in batch[:-1]:
            shortlist.receive_answer(contact, [])
        shortlist.receive_slow(batch[-1])
        shortlist.receive_late(batch[-1])
    assert shortlist.is_finished
    assert shortlist.has_unanswered


# --- Ends -----------------------------------------------------------------------------------------


def test_a_node_whose_state_cannot_be_saved_still_closes_its_socket():
    async def main(world):
        async with Cluster(world) as cluster:
            client = await cluster.start()

            async def fail():
                raise StorageError("disk full")

            client._save = fail
            await cluster.stop(client)
            assert not world.network.endpoints

    run(main, conditions=CALM)


def test_a_bug_in_one_chore_does_not_end_the_node():
    async def main(world):
        async with Cluster(world) as cluster:
            client = await cluster.start()

            async def fail():
                raise ValueError("a bug")

            client.replicator.repair = fail
            await asyncio.sleep(600)
            assert client._tasks
            assert not client._tasks[0].done()

    run(main, conditions=CALM)


def test_requests_that_arrive_while_a_node_is_closing_are_refused_quietly():
    async def main(world):
        async with Cluster(world) as cluster:
            holder, asker = await cluster.start(), await cluster.start()
            link = await link_between(asker, holder)
            for slot in holder._slots:
                slot.stop()
            with pytest.raises(BytestagError):
                await link.get(bytes(20), length=10, idle_seconds=1)

    run(main, conditions=CALM)
