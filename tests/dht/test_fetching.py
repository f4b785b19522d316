"""One value: from here, from servers, from donors; who is asked, who is mistrusted, the cost."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest

from bytestag.config import PART_BYTES, local
from bytestag.crypto.identity import MANY
from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.dht.network import Sources
from bytestag.dht.serving import GIVES, PLACES_MAX
from bytestag.dht.source import GETS_AT_FIRST, GETS_NEAR, Source
from bytestag.dht.source_book import MISTRUST_SECONDS, SourceBook
from bytestag.errors import Corrupt, NotFound, Timeout, Unreachable
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.network.links import GETS_PER_PEER_MAX, Busy, Link
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster, add_values, content, get_nothing, own, serve

CALM = Conditions(latency=0.005, spread=0)
VALUE = content(50_000)


def wanted(value=VALUE, **fields):
    known = {"index": sha1(value), "blake3": blake3(value), "size": len(value)}
    return Wanted(KeyBytes.new_hash(value), **(known | fields))


def in_cluster(main, holders=2, **options):
    async def started(world):
        async with Cluster(world) as cluster:
            nodes = [await cluster.start() for _ in range(holders)]
            reader = await cluster.start(**({"is_client": True, "cache_bytes": 0} | options))
            fetcher = Fetcher(
                reader.dht_network, reader.stores.table, reader.config, reader.runtime,
                reader._group,
            )  # fmt: skip
            try:
                return await main(cluster, fetcher, nodes)
            finally:
                fetcher.close()

    return run(started, conditions=CALM)


def contact(reader, node):
    return reader._network.protocol.router.contact(node.identity.node_id)


def some(count, size=20_000):
    made = {}
    for seed in range(count):
        made |= own(content(size, seed))
    return made


def serve_slowly(cluster, fetcher, node, rows, bytes_per_second):
    """Let a node serve all over a slow line; return the source that it is."""
    add_values(node, rows)
    fetcher.sources.add_server(contact(fetcher, node))
    slow = replace(CALM, uplink_bytes_per_second=bytes_per_second)
    cluster.world.network.conditions = slow
    (source,) = (s for s in fetcher.sources if s.contact.id == node.identity.node_id)
    return source


async def fetch_each(fetcher, values):
    return await asyncio.gather(*(fetcher.fetch(wanted(value)) for value in values))


@pytest.mark.parametrize("fields", [{}, {"index": b""}, {"blake3": b""}, {"size": 2**20}], ids=str)
def test_whatever_is_known_of_a_value_suffices_to_find_it(fields):
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        assert await fetcher.fetch(wanted(**fields)) == VALUE
        counts = fetcher.counts
        assert counts.bytes_received == len(VALUE)
        assert counts.by_source == {nodes[0].identity.node_id: len(VALUE)}
        assert (counts.holders, counts.wrong) == (1, 0)

    in_cluster(main)


def test_what_is_here_is_not_asked_for():
    async def main(cluster, fetcher, nodes):
        before = cluster.world.network.counters["sent"]
        assert await fetcher.fetch(wanted()) == VALUE
        assert cluster.world.network.counters["sent"] == before

    async def started(world):
        async with Cluster(world) as cluster:
            await cluster.start()
            reader = await cluster.start()
            add_values(reader, own(VALUE))
            fetcher = Fetcher(
                reader.dht_network, reader.stores.table, reader.config, reader.runtime,
                reader._group,
            )  # fmt: skip
            await main(cluster, fetcher, [])

    run(started, conditions=CALM)


def test_a_small_value_comes_inside_the_reply():
    small = content(800)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(small))
        assert await fetcher.fetch(wanted(small)) == small
        assert fetcher.counts.by_source == {}
        assert len(nodes[0].sessions) == 0

    in_cluster(main)


def test_a_liar_is_not_asked_again_for_a_while_and_is_counted():
    asked = []

    def lie(record, value):
        asked.append(record)
        return bytes(len(value))

    async def main(cluster, fetcher, nodes):
        more = [content(50_000, seed) for seed in range(1, 4)]
        for value in more:
            for node in nodes:
                add_values(node, own(value))
        serve(nodes[0], lie)
        for value in more:
            assert await fetcher.fetch(wanted(value)) == value
        assert len(asked) <= 1
        assert fetcher.counts.wrong == len(asked)

    in_cluster(main)


def test_mistrust_ends():
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        true_read = nodes[0].stores.table.read_row
        serve(nodes[0], lambda record, value: bytes(len(value)))
        with pytest.raises(Corrupt):
            await fetcher.fetch(wanted())
        nodes[0].stores.table.read_row = true_read
        with pytest.raises(Corrupt):
            await fetcher.fetch(wanted())
        await asyncio.sleep(MISTRUST_SECONDS + 1)
        assert await fetcher.fetch(wanted()) == VALUE

    in_cluster(main)


def test_the_only_holder_being_mistrusted_is_no_reason_to_say_that_nobody_holds_it():
    other = content(50_000, 1)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE) | own(other))
        get_nothing(nodes[0])
        for value in (VALUE, other):
            with pytest.raises(Timeout, match="none delivered"):
                await fetcher.fetch(wanted(value))

    in_cluster(main)


def test_a_value_that_is_there_with_another_blake3_is_not_what_was_wanted():
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        with pytest.raises(NotFound):
            await fetcher.fetch(wanted(blake3=blake3(b"other")))

    in_cluster(main)


def test_a_source_is_asked_for_a_few_values_at_one_time():
    rows = some(40)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], rows)
        contact_ = next(
            c for c in fetcher._network.protocol.router if c.id == nodes[0].identity.node_id
        )
        fetcher.sources.add_server(contact_)
        most = 0
        reader = nodes[0]._serving._reader
        true_find = reader._work

        def find(gets):
            nonlocal most
            most = max(most, len(nodes[0].upload_slot.current_tasks))
            return true_find(gets)

        reader._work = find
        assert await fetch_each(fetcher, rows.values()) == list(rows.values())
        assert 1 < most <= GETS_PER_PEER_MAX

    in_cluster(main, 1)


def test_a_slow_line_is_not_asked_for_more_than_it_brings_in_time():
    rows = some(24, 250_000)

    async def main(cluster, fetcher, nodes):
        source = serve_slowly(cluster, fetcher, nodes[0], rows, 40_000)
        assert await fetch_each(fetcher, rows.values()) == list(rows.values())
        assert source.fault is None  # nothing came too late
        assert source.most < 4

    in_cluster(main, 1)


def test_a_busy_server_is_waited_for_if_there_is_nobody_else(monkeypatch):
    monkeypatch.setattr(SourceBook, "most", 100)  # as if it had been asked for more before
    rows = some(6, 250_000)

    async def main(cluster, fetcher, nodes):
        source = serve_slowly(cluster, fetcher, nodes[0], rows, 100_000)
        source.most = 1
        fetcher.look_up = no_look_up
        assert await fetch_each(fetcher, rows.values()) == list(rows.values())

    async def no_look_up(key, is_enough):
        return Sources(key)

    in_cluster(main, 1)


@pytest.mark.parametrize(
    ("seconds", "rtt", "most"),
    [
        (0.002, 0.001, GETS_NEAR),
        (0.21, 0.2, GETS_PER_PEER_MAX),
        (0.7, 0.2, GETS_PER_PEER_MAX),
        (0.9, 0.2, GETS_AT_FIRST),
        (3.0, 0.2, 2),
        (3.0, 2.0, GETS_PER_PEER_MAX),
    ],
)
def test_more_is_asked_of_whom_it_helps(seconds, rtt, most):
    source = Source(None)
    for number in range(200):
        source.active = source.most - 1
        source.learn(10.0 * number, 10.0 * number + seconds, rtt)
    assert source.most == most


def test_values_that_were_late_together_are_one_reason_to_ask_for_less():
    source = Source(None, most=64)
    for _ in range(10):
        source.learn(0.0, 3.0, 0.2)
    assert source.most == 32
    source.learn(3.0, 6.0, 0.2)
    assert source.most == 16


async def fetch_many(fetcher, values, is_right=lambda value: True):
    """Return what came, by number, and what was taken of it."""
    came = {}

    async def take(numbered):
        came.update({number: bytes(value) for number, value in numbered})
        return {number for number, value in numbered if is_right(value)}

    taken = await fetcher.fetch_many([wanted(value) for value in values], take)
    return came, taken


def test_values_that_a_server_has_come_at_one_go():
    rows = some(20)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], dict(list(rows.items())[:15]))
        fetcher.sources.add_server(contact(fetcher, nodes[0]))
        for source in fetcher.sources:
            source.most = GETS_PER_PEER_MAX
        before = nodes[0]._serving.counters["bytes uploaded"]
        came, taken = await fetch_many(fetcher, rows.values())
        assert taken == set(came) == set(range(15))
        assert list(came.values()) == list(rows.values())[:15]
        assert fetcher.counts.bytes_received == 15 * 20_000
        await asyncio.sleep(1)
        assert nodes[0]._serving.counters["bytes uploaded"] - before == 15 * 20_000

    in_cluster(main, 1)


def test_values_that_are_here_are_not_asked_of_a_server():
    rows = some(4)

    async def main(cluster, fetcher, nodes):
        fetcher._read_here = lambda want: next(
            (value for kvpid, value in rows.items() if kvpid.key == want.key), None
        )
        fetcher._has_values = True
        came, taken = await fetch_many(fetcher, rows.values())
        assert list(came.values()) == list(rows.values())
        assert taken == set(came)

    in_cluster(main, 1)


def test_without_a_server_nothing_comes_at_one_go_and_nobody_is_asked():
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], some(3))
        before = cluster.world.network.counters["sent"]
        assert await fetch_many(fetcher, some(3).values()) == ({}, set())
        assert cluster.world.network.counters["sent"] == before

    in_cluster(main, 1)


def test_a_server_that_gives_one_value_at_a_time_is_not_asked_for_many(monkeypatch):
    rows = some(3)
    monkeypatch.setattr(Link, "run_bytes_max", 0)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], rows)
        fetcher.sources.add_server(contact(fetcher, nodes[0]))
        assert await fetch_many(fetcher, rows.values()) == ({}, set())
        (source,) = fetcher.sources
        assert source.fault is None
        assert await fetcher.fetch(wanted(next(iter(rows.values())))) in rows.values()

    in_cluster(main, 1)


@pytest.mark.parametrize(("gives", "asked"), [(GIVES, [16]), (MANY, [4] * 4)])
def test_a_server_is_asked_for_as_much_as_it_gives_at_one_go(gives, asked, monkeypatch):
    monkeypatch.setattr("bytestag.client.GIVES", gives)
    rows = some(16, PART_BYTES)
    counts = []
    get_many = Link.get_many
    monkeypatch.setattr(
        Link,
        "get_many",
        lambda self, wants, **o: counts.append(len(wants)) or get_many(self, wants, **o),
    )

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], rows)
        fetcher.sources.add_server(contact(fetcher, nodes[0]))
        for source in fetcher.sources:
            source.most = GETS_PER_PEER_MAX
        await fetch_many(fetcher, [next(iter(rows.values()))])  # the session tells what it gives
        came, taken = await fetch_many(fetcher, rows.values())
        assert [came[number] for number in range(16)] == list(rows.values())
        assert taken == set(range(16))
        assert counts == [1, *asked]

    in_cluster(main, 1)


def test_what_follows_each_other_is_asked_of_all_servers_at_one_time():
    rows = some(16, PART_BYTES)

    async def main(cluster, fetcher, nodes):
        for node in nodes:
            serve_slowly(cluster, fetcher, node, rows, 100_000)
        began = fetcher._runtime.monotonic()
        came, taken = await fetch_many(fetcher, rows.values())
        assert len(came) == len(taken) == 16
        assert fetcher._runtime.monotonic() - began < 13  # each brings a mebibyte in 10.5
        assert not any(source.fault for source in fetcher.sources)

    in_cluster(main, 4)


def test_who_has_no_room_for_many_is_asked_for_fewer(monkeypatch):
    rows = some(16, PART_BYTES)
    counts = []
    get_many = Link.get_many

    async def busy_at_first(self, wants, **options):
        counts.append(len(wants))
        if len(wants) > 3:
            raise Busy("no room for so many")
        return await get_many(self, wants, **options)

    monkeypatch.setattr(Link, "get_many", busy_at_first)

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], rows)
        fetcher.sources.add_server(contact(fetcher, nodes[0]))
        _, taken = await fetch_many(fetcher, rows.values())
        assert taken == set(range(16))
        assert counts[0] == 4
        assert not any(source.fault for source in fetcher.sources)

    in_cluster(main, 1)


def test_who_sends_one_wrong_value_among_many_is_mistrusted_and_the_others_count():
    rows = some(4)
    wrong = list(rows.values())[2]

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], rows)
        fetcher.sources.add_server(contact(fetcher, nodes[0]))
        (source,) = fetcher.sources
        source.most = GETS_PER_PEER_MAX
        came, taken = await fetch_many(fetcher, rows.values(), lambda value: value != wrong)
        assert (set(came), taken) == ({0, 1, 2, 3}, {0, 1, 3})
        assert isinstance(source.fault, Corrupt)
        assert (fetcher.counts.wrong, fetcher.counts.bytes_received) == (1, 60_000)

    in_cluster(main, 1)


def test_when_a_server_is_gone_in_the_middle_of_many_another_is_asked():
    rows = some(8, 120_000)

    async def main(cluster, fetcher, nodes):
        for node in nodes:
            add_values(node, rows)
            fetcher.sources.add_server(contact(fetcher, node))
        for source in fetcher.sources:
            source.most = 8
        slow = replace(CALM, uplink_bytes_per_second=100_000)
        cluster.world.network.conditions = slow
        asked = asyncio.ensure_future(fetch_many(fetcher, rows.values()))
        await asyncio.sleep(2)
        cluster.crash(next(n for n in nodes if contact(fetcher, n).id == next(busy(fetcher))))
        came, taken = await asked
        assert taken == set(range(8))
        assert [came[number] for number in range(8)] == list(rows.values())

    def busy(fetcher):
        return (source.contact.id for source in fetcher.sources if source.active)

    in_cluster(main, 2)


def test_a_peer_may_ask_for_less_than_its_places():
    """They are given back after the last byte came: else each fourth run would be refused."""
    assert local().upload_slots * 3 // 4 >= GETS_PER_PEER_MAX + PLACES_MAX


def test_of_whom_is_busy_less_is_asked():
    source = Source(None, most=32)
    for number in range(3):
        source.ask_less(number, number + 0.5)
    assert source.most == 4
    source.ask_less(2, 3)  # it was asked before the last refusal
    assert source.most == 4
    for number in range(3, 6):
        source.ask_less(number, number + 0.5)
    assert source.most == 2


def test_a_get_that_is_cancelled_before_its_turn_is_not_served():
    async def main(cluster, fetcher, nodes):
        rows = own(VALUE)
        add_values(nodes[0], rows)
        link = await fetcher._network.link_to(contact(fetcher, nodes[0]))
        slot = nodes[0].upload_slot
        slot.max_size, true_size = 0, slot.max_size
        get = asyncio.ensure_future(link.get(sha1(VALUE), length=50_000, idle_seconds=5))
        await asyncio.sleep(1)
        assert slot.queue == 1
        get.cancel()
        await asyncio.sleep(1)
        assert slot.queue == 0
        slot.max_size = true_size
        assert nodes[0]._serving._gets == {}
        assert (await link.get(sha1(VALUE), length=50_000, idle_seconds=5)).value == VALUE
        await asyncio.sleep(1)
        assert nodes[0]._serving.counters["bytes uploaded"] == 50_000

    in_cluster(main, 1)


def test_a_busy_holder_is_asked_again():
    rows = some(30)

    async def started(world):
        async with Cluster(world, upload_slots=1, waiting_slots=1) as cluster:
            node = await cluster.start()
            reader = await cluster.start(is_client=True, cache_bytes=0)
            add_values(node, rows)
            fetcher = Fetcher(
                reader.dht_network, reader.stores.table, reader.config, reader.runtime,
                reader._group,
            )  # fmt: skip
            found = await asyncio.gather(
                *(fetcher.fetch(wanted(v)) for v in list(rows.values())[:6])
            )
            assert found == list(rows.values())[:6]
            assert node._serving.counters["busy"]

    run(started, conditions=CALM)


def test_one_look_up_serves_the_keys_around_it():
    rows = {}
    for seed in range(20):
        rows |= own(content(3_000, seed))

    async def main(cluster, fetcher, nodes):
        for node in nodes:
            add_values(node, rows)
        for value in rows.values():
            assert await fetcher.fetch(wanted(value)) == value
        assert fetcher.counts.asked <= 2 * len(nodes)

    in_cluster(main)


def test_a_server_that_only_the_link_names_is_probed_and_used():
    async def main(cluster, fetcher, nodes):
        lonely = await cluster.start(joins=False)
        add_values(lonely, own(VALUE))
        fetcher.sources.probe(lonely.identity.node_id, [("10.99.0.1", 4000), lonely.address])
        assert await fetcher.fetch(wanted()) == VALUE
        assert list(fetcher.counts.by_source) == [lonely.identity.node_id]

    in_cluster(main, joins=False)


def test_another_node_behind_the_address_of_a_link_is_not_used():
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        fetcher.sources.probe(bytes(20), [nodes[0].address])
        await fetcher.sources.probes_ended()
        assert not fetcher.sources.servers

    in_cluster(main, joins=False)


def test_errors_tell_apart_nobody_there_nobody_has_it_and_silence():
    async def alone(cluster, fetcher, nodes):
        with pytest.raises(Unreachable) as caught:
            await fetcher.fetch(wanted())
        return caught.value.exit_status

    async def nothing(cluster, fetcher, nodes):
        with pytest.raises(NotFound, match="asked 2, 2 answered") as caught:
            await fetcher.fetch(wanted())
        return caught.value.exit_status

    async def silence(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        get_nothing(nodes[0])
        with pytest.raises(Timeout) as caught:
            await fetcher.fetch(wanted())
        return caught.value.exit_status

    assert in_cluster(alone, 0) == 4
    assert in_cluster(nothing) == 3
    assert in_cluster(silence) == 5


def test_what_was_asked_with_a_handshake_and_is_not_awaited_is_cancelled():
    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        source = fetcher.sources.source(contact(fetcher, nodes[0]))
        key = wanted().key
        early = fetcher._network.sessions.early(key, None, b"", len(VALUE))
        with suppress(ZeroDivisionError):
            async with fetcher.sources.asking(source, early=early) as link:
                assert not link.is_idle
                raise ZeroDivisionError
        assert link.is_idle
        await asyncio.sleep(0.1)
        assert not nodes[0].upload_slot.current_tasks

    in_cluster(main)


@pytest.mark.parametrize(("has_session", "seconds"), [(True, 0.1), (False, 6)])
def test_a_cancelled_fetch_frees_its_source_and_tells_the_holder(has_session, seconds):
    """A holder that was asked with the handshake, which then nobody awaited, gives up soon."""

    async def main(cluster, fetcher, nodes):
        add_values(nodes[0], own(VALUE))
        if has_session:
            await fetcher._network.link_to(contact(fetcher, nodes[0]))
        fetching = asyncio.ensure_future(fetcher.fetch(wanted()))
        while not nodes[0].upload_slot.current_tasks:
            await asyncio.sleep(0.001)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.sleep(seconds)
        assert not nodes[0].upload_slot.current_tasks
        assert all(source.active == 0 for source in fetcher.sources)

    in_cluster(main)
