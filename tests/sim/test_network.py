"""The virtual network does to datagrams what it was told to, and the same each time."""

import asyncio
import statistics

import pytest

from bytestag.errors import AddressInUse
from bytestag.network.burst import Burst
from bytestag.sim import Conditions, run
from bytestag.sim.nat import NatBox, NatKind

A, B, C = ("10.0.0.1", 1001), ("10.0.0.2", 1002), ("10.0.0.3", 1003)
FIXED = Conditions(latency=0.05, spread=0.0)


class Recorder:
    """Remembers what comes, when, and where wake-ups end."""

    def __init__(self, loop):
        self.loop = loop
        self.got = []
        self.times = []
        self.wakeups = []

    def datagram_received(self, datagram, address):
        assert isinstance(datagram, memoryview)
        self.got.append((bytes(datagram), address))
        self.times.append(self.loop.time() - 1000.0)

    def wakeup_ended(self):
        self.wakeups.append(len(self.got))


async def pair(world):
    """Return an endpoint at A and what is received at B."""
    recorder = Recorder(world.loop)
    await world.network.open_endpoint(B, recorder)
    return await world.network.open_endpoint(A, Recorder(world.loop)), recorder


def sends(count, conditions=FIXED, seed=0, size=8):
    """Send numbered datagrams one second apart; return the world and what arrived."""

    async def main(world):
        sender, recorder = await pair(world)
        for number in range(count):
            sender.send(number.to_bytes(size, "big"), B)
            await asyncio.sleep(1)
        return world.network, recorder

    return run(main, seed, conditions)


def test_a_datagram_arrives_once_after_the_latency_with_its_source():
    network, recorder = sends(1)
    assert recorder.got == [(bytes(8), A)]
    assert recorder.times == [pytest.approx(0.05)]
    assert network.counters["delivered"] == 1


def test_a_burst_is_one_wakeup_of_its_datagrams_in_order():
    async def main(world):
        sender, recorder = await pair(world)
        sender.send_burst(Burst([b"h1", b"aaaa", b"h2", b"bbbb", b"h3", b"c"], 6), B)
        await asyncio.sleep(1)
        return recorder

    recorder = run(main, conditions=FIXED)
    assert [datagram for datagram, _ in recorder.got] == [b"h1aaaa", b"h2bbbb", b"h3c"]
    assert recorder.wakeups == [3]


def test_the_latency_of_paths_is_lognormal_around_its_median_and_constant_for_each():
    async def main(world):
        latency = world.network.latency
        return [latency(f"10.0.{i}.1", f"10.1.{i}.1") for i in range(400)], latency

    latencies, latency = run(main, seed=3)
    assert statistics.median(latencies) == pytest.approx(0.05, rel=0.15)
    assert max(latencies) > 0.1 > 0.025 > min(latencies)
    assert latency("10.0.7.1", "10.1.7.1") == latencies[7] == latency("10.1.7.1", "10.0.7.1")


@pytest.mark.parametrize(
    ("conditions", "counter", "low", "high"),
    [
        (Conditions(loss=0.2), "lost", 150, 250),
        (Conditions(duplication=0.2), "duplicated", 150, 250),
        (Conditions(corruption=0.2), "corrupted", 150, 250),
    ],
)
def test_chances_hold_over_a_thousand_datagrams(conditions, counter, low, high):
    network, recorder = sends(1000, conditions)
    assert low < network.counters[counter] < high
    arrived = 1000 - network.counters["lost"] + network.counters["duplicated"]
    assert len(recorder.got) == network.counters["delivered"] == arrived
    whole = {number.to_bytes(8, "big") for number in range(1000)}
    spoiled = [datagram for datagram, _ in recorder.got if datagram not in whole]
    assert (len(spoiled) > 0) == (counter == "corrupted")


def test_jitter_reorders_and_its_absence_does_not():
    async def main(world):
        sender, recorder = await pair(world)
        for number in range(100):
            sender.send(bytes([number]), B)
        await asyncio.sleep(1)
        return [datagram[0] for datagram, _ in recorder.got]

    assert run(main) == list(range(100))
    shuffled = run(main, conditions=Conditions(jitter=0.1))
    assert shuffled != list(range(100))
    assert sorted(shuffled) == list(range(100))


def test_a_datagram_longer_than_the_path_takes_is_dropped():
    network, recorder = sends(1, FIXED, size=1473)
    assert recorder.got == []
    assert network.counters["too long"] == 1
    assert len(sends(1, FIXED, size=1472)[1].got) == 1


@pytest.mark.parametrize("one_way", [False, True])
def test_a_partition_cuts_until_it_is_healed(one_way):
    async def main(world):
        at_a, at_b = Recorder(world.loop), Recorder(world.loop)
        a = await world.network.open_endpoint(A, at_a)
        b = await world.network.open_endpoint(B, at_b)
        world.network.partition({A}, {B[0]}, one_way=one_way)
        for _ in range(2):
            a.send(b"to b", B)
            b.send(b"to a", A)
            await asyncio.sleep(10)
            world.network.heal()
        return len(at_a.got), len(at_b.got)

    assert run(main) == ((2, 1) if one_way else (1, 1))


def test_the_same_seed_leaves_the_same_trace_and_another_seed_another():
    bad = {"loss": 0.1, "duplication": 0.1, "corruption": 0.1, "jitter": 0.2}
    traces = [sends(100, Conditions(**bad), seed)[0].trace for seed in (1, 1, 2)]
    assert traces[0] == traces[1] != traces[2]


def test_the_trace_depends_on_every_byte():
    async def main(world, datagram):
        sender, _ = await pair(world)
        sender.send(datagram, B)
        await asyncio.sleep(1)
        return world.network.trace

    first, second = (run(lambda world, d=d: main(world, d), conditions=FIXED) for d in (b"a", b"b"))
    assert first != second


def test_free_ports_are_found_and_taken_ones_refused():
    async def main(world):
        network = world.network
        first = await network.open_endpoint(("10.0.0.1", 0), Recorder(world.loop))
        second = await network.open_endpoint(("10.0.0.1", 0), Recorder(world.loop))
        assert first.address != second.address
        with pytest.raises(AddressInUse) as caught:
            await network.open_endpoint(first.address, Recorder(world.loop))
        first.close()
        first.close()
        again = await network.open_endpoint(first.address, Recorder(world.loop))
        return caught.value.hint, again.address == first.address

    hint, is_same = run(main)
    assert "--port" in hint
    assert is_same


def test_a_closed_endpoint_neither_sends_nor_receives():
    async def main(world):
        sender, recorder = await pair(world)
        sender.send(b"under way", B)
        sender.close()
        sender.send(b"too late", B)
        world.network.inject(b"to a closed port", C, A)
        await asyncio.sleep(1)
        return [datagram for datagram, _ in recorder.got], world.network.counters["to nobody"]

    assert run(main) == ([b"under way"], 1)


def test_a_receiver_that_closes_itself_gets_nothing_more():
    async def main(world):
        class Quitter(Recorder):
            def datagram_received(self, datagram, address):
                super().datagram_received(datagram, address)
                endpoint.close()

        quitter = Quitter(world.loop)
        endpoint = await world.network.open_endpoint(B, quitter)
        sender = await world.network.open_endpoint(A, Recorder(world.loop))
        sender.send_burst(Burst([b"h", b"1", b"h", b"2"], 2), B)
        await asyncio.sleep(1)
        return len(quitter.got), quitter.wakeups

    assert run(main, conditions=FIXED) == (1, [])


# --- Special links -------------------------------------------------------------------------------


def test_a_matrix_gives_the_latency_of_groups_of_hosts():
    async def main(world):
        network = world.network
        network.use_matrix({"h1": "eu", "h2": "us", "h3": "eu"}, {("eu", "us"): 0.08})
        return network.latency("h1", "h2"), network.latency("h2", "h3"), network.latency("h1", "h3")

    there, back, unknown = run(main, conditions=FIXED)
    assert (there, back, unknown) == (0.08, 0.08, 0.05)


def test_reordering_lets_some_be_overtaken():
    async def main(world):
        sender, recorder = await pair(world)
        for number in range(200):
            sender.send(bytes([number]), B)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        return [datagram[0] for datagram, _ in recorder.got], world.network.counters["reordered"]

    got, reordered = run(main, conditions=Conditions(spread=0.0, reordering=0.1))
    assert sorted(got) == list(range(200)) != got
    assert 5 < reordered < 40


@pytest.mark.parametrize("one_way", [False, True])
def test_some_links_are_worse_than_others_until_that_ends(one_way):
    async def main(world):
        at_a, at_b = Recorder(world.loop), Recorder(world.loop)
        a = await world.network.open_endpoint(A, at_a)
        b = await world.network.open_endpoint(B, at_b)
        world.network.override([A[0]], [B], Conditions(loss=1.0), one_way=one_way)
        for _ in range(2):
            a.send(b"to b", B)
            b.send(b"to a", A)
            await asyncio.sleep(10)
            world.network.end_overrides()
        return len(at_a.got), len(at_b.got)

    assert run(main) == ((2, 1) if one_way else (1, 1))


def test_an_uplink_sends_one_after_the_other_and_drops_what_its_queue_does_not_take():
    async def main(world):
        sender, recorder = await pair(world)
        for _ in range(20):
            sender.send(bytes(1000), B)
        await asyncio.sleep(60)
        sender.send(bytes(1000), B)
        await asyncio.sleep(60)
        return recorder.times, world.network.counters["queue full"]

    slow = Conditions(spread=0.0, uplink_bytes_per_second=1000, queue_bytes=10_000)
    times, dropped = run(main, conditions=slow)
    assert times == [pytest.approx(0.05 + n) for n in (*range(1, 11), 61)]
    assert dropped == 10


def test_one_host_may_have_another_uplink():
    async def main(world):
        sender, recorder = await pair(world)
        world.network.set_uplink(A[0], 100, 1000)
        for _ in range(2):
            sender.send(bytes(100), B)
        await asyncio.sleep(60)
        return recorder.times

    assert run(main, conditions=FIXED) == [pytest.approx(1.05), pytest.approx(2.05)]


# --- Addresses -----------------------------------------------------------------------------------


def test_a_machine_that_moves_sends_from_its_new_address_and_is_no_more_at_the_old_one():
    async def main(world):
        recorder, mover = Recorder(world.loop), Recorder(world.loop)
        b = await world.network.open_endpoint(B, recorder)
        opened = world.network.opener(A[0])
        a = await opened(("0.0.0.0", 1001), mover)
        a.send(b"1", B)
        world.network.move(a, C[0])
        a.send(b"2", B)
        b.send(b"old", A)
        b.send(b"new", (C[0], 1001))
        await asyncio.sleep(1)
        sources = sorted(source for _, source in recorder.got)
        return a.address, sources, [datagram for datagram, _ in mover.got]

    assert run(main) == (("0.0.0.0", 1001), [A, (C[0], 1001)], [b"new"])


OUTER = "192.0.2.9"
INNER = ("192.168.0.2", 4000)


async def behind(world, kind):
    """Return an endpoint behind a box, what comes to it, and two outside with what comes there."""
    network, loop = world.network, world.loop
    network.put_behind(NatBox(kind, OUTER), [INNER[0]])
    recorders = [Recorder(loop) for _ in range(3)]
    ends = [
        await network.open_endpoint(address, recorder)
        for address, recorder in zip((INNER, B, C), recorders, strict=True)
    ]
    return ends, recorders


@pytest.mark.parametrize(
    ("kind", "ports", "let_in"),
    [
        (NatKind.FULL_CONE, 1, [b"answer", b"strange"]),
        (NatKind.PORT_RESTRICTED, 1, [b"answer"]),
        (NatKind.SYMMETRIC, 2, [b"answer"]),
    ],
)
def test_a_nat_translates_and_filters_by_its_kind(kind, ports, let_in):
    async def main(world):
        (inner, b, c), (at_inner, at_b, at_c) = await behind(world, kind)
        inner.send(b"question", B)
        await asyncio.sleep(1)
        outer = at_b.got[0][1]
        b.send(b"answer", outer)
        c.send(b"strange", outer)
        c.send(b"private", INNER)
        await asyncio.sleep(1)
        got = sorted(datagram for datagram, _ in at_inner.got)
        inner.send(b"other question", C)
        await asyncio.sleep(1)
        sources = {at_b.got[0][1], at_c.got[0][1]}
        assert {host for host, _ in sources} == {OUTER}
        return len(sources), got

    assert run(main) == (ports, let_in)


def test_a_nat_forgets_what_was_not_used_for_long():
    async def main(world):
        (inner, b, _), (at_inner, at_b, _) = await behind(world, NatKind.FULL_CONE)
        inner.send(b"1", B)
        await asyncio.sleep(200)
        b.send(b"late", at_b.got[0][1])
        await asyncio.sleep(1)
        inner.send(b"2", B)
        await asyncio.sleep(1)
        return len(at_inner.got), at_b.got[0][1] != at_b.got[1][1]

    assert run(main) == (0, True)


def test_a_partition_also_cuts_what_goes_through_a_nat():
    async def main(world):
        (inner, b, _), (at_inner, at_b, _) = await behind(world, NatKind.FULL_CONE)
        inner.send(b"1", B)
        await asyncio.sleep(1)
        world.network.partition([INNER[0]], [B])
        inner.send(b"2", B)
        b.send(b"3", at_b.got[0][1])
        await asyncio.sleep(1)
        return len(at_inner.got), len(at_b.got), world.network.counters["cut off"]

    assert run(main) == (0, 1, 2)
