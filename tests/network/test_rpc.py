"""RPC on a virtual network: the right reply counts, once, in time; all else is counted."""

import asyncio
import gc
from contextlib import suppress

import pytest

from bytestag.errors import LocalError, Timeout
from bytestag.network import packets
from bytestag.network.replies import REPLIES_MAX
from bytestag.network.rpc import ADDRESSES_TIMED_MAX, NO_REPLY, Call
from bytestag.sim import Conditions, run
from tests.network.nodes import CONFIG, nodes, settle

FIXED = Conditions(latency=0.05, spread=0.0)
MALLORY = ("10.0.0.66", 666)


class Wiretap:
    """Remembers what arrives at an address and answers nothing."""

    def __init__(self):
        self.got = []

    def datagram_received(self, datagram, address):
        self.got.append((bytes(datagram), address))

    def wakeup_ended(self): ...


def reply_to(request, node):
    """Return a well-formed reply to a request that was overheard."""
    reply = packets.Reply(1, CONFIG.network_id, observed=bytes(7), token=b"forged token 16!")
    return packets.encode_reply(request[1:21], reply)


async def overheard_call(world):
    """Start a ping to a silent address; return the caller, the pending call and the request."""
    (alice,) = await nodes(world, 1)
    tap = Wiretap()
    silent = await world.network.open_endpoint(("10.0.0.9", 4000), tap)
    call = asyncio.create_task(alice.ping(silent.address))
    await settle(0.1)
    return alice, call, tap.got[0][0], silent


def test_a_ping_is_answered_with_the_address_it_came_from():
    async def main(world):
        alice, bob = await nodes(world)
        reply = await alice.ping(bob.address)
        return reply, len(alice.rpc._replies), world.loop.time()

    reply, waiting, now = run(main, conditions=FIXED)
    assert reply.observed == bytes([4, 10, 0, 0, 1]) + (4000).to_bytes(2, "big")
    assert waiting == 0
    assert now == pytest.approx(1000.1)


# --- Forged and stray replies --------------------------------------------------------------------


def test_a_reply_from_the_wrong_address_is_refused():
    async def main(world):
        alice, call, request, _ = await overheard_call(world)
        world.network.inject(reply_to(request, alice), MALLORY, alice.address)
        with pytest.raises(Timeout):
            await call
        return alice.rpc.counters

    assert run(main, conditions=FIXED)["reply to nothing"] == 1


def test_without_the_address_check_the_forged_reply_would_be_accepted():
    async def main(world):
        alice, call, request, silent = await overheard_call(world)
        table = alice.rpc._replies
        careful = table.take
        table.take = lambda sequence_id, _: careful(sequence_id, silent.address)
        world.network.inject(reply_to(request, alice), MALLORY, alice.address)
        return await call

    assert run(main, conditions=FIXED).token == b"forged token 16!"


def test_a_second_reply_and_a_reply_to_nothing_are_counted_only():
    async def main(world):
        alice, call, request, silent = await overheard_call(world)
        for datagram in (reply_to(request, alice), reply_to(request, alice)):
            silent.send(datagram, alice.address)
        silent.send(reply_to(bytes(21), alice), alice.address)
        await call
        await settle()
        return alice.rpc.counters["reply to nothing"]

    assert run(main, conditions=FIXED) == 2


def test_a_reply_that_does_not_decode_is_the_callers_to_refuse():
    async def main(world):
        alice, call, request, silent = await overheard_call(world)
        silent.send(packets.encode_response(request[1:21], "rubbish"), alice.address)
        with pytest.raises(packets.PacketError):
            await call
        return len(alice.rpc._replies)

    assert run(main, conditions=FIXED) == 0


# --- Time ----------------------------------------------------------------------------------------


def test_after_the_soft_timeout_the_same_datagram_goes_once_more_and_the_caller_hears_of_it():
    async def main(world):
        (alice,) = await nodes(world, 1)
        tap = Wiretap()
        await world.network.open_endpoint(("10.0.0.9", 4000), tap)
        slow = []
        with pytest.raises(Timeout):
            await alice.ping(
                ("10.0.0.9", 4000),
                on_slow=lambda times: slow.append((times, world.loop.time() - 1000)),
            )
        return slow, [datagram for datagram, _ in tap.got], world.loop.time() - 1000

    slow, datagrams, ended = run(main, conditions=FIXED)
    soft = CONFIG.rpc_soft_seconds
    assert slow == [(1, pytest.approx(soft)), (2, pytest.approx(2 * soft))]
    assert len(datagrams) == 2
    assert datagrams[0] == datagrams[1]
    assert ended == pytest.approx(CONFIG.rpc_hard_seconds)


def test_a_late_answer_counts_until_the_hard_timeout():
    async def main(world):
        alice, bob = await nodes(world)
        slow = []
        await alice.ping(bob.address, on_slow=slow.append)
        return slow, world.loop.time() - 1000

    slow, seconds = run(main, conditions=Conditions(latency=1.4, spread=0.0))
    assert slow == [1, 2]
    assert seconds == pytest.approx(2.8)
    with pytest.raises(Timeout):
        run(main, conditions=Conditions(latency=1.6, spread=0.0))


def test_one_lost_datagram_does_not_fail_a_call():
    async def main(world):
        alice, bob = await nodes(world)
        world.network.partition({alice.address}, {bob.address})
        world.loop.call_later(0.2, world.network.heal)
        await alice.ping(bob.address)
        return world.network.counters["cut off"]

    assert run(main, conditions=FIXED) == 1


def test_the_soft_timeout_follows_the_round_trips_of_an_address_within_bounds():
    async def main(world):
        alice, bob = await nodes(world)
        assert alice.rpc.rtt_seconds(bob.address) is None
        assert alice.rpc.soft_seconds(bob.address) == CONFIG.rpc_soft_seconds
        await alice.ping(bob.address)
        first = alice.rpc.soft_seconds(bob.address)
        for _ in range(50):
            await alice.ping(bob.address)
        return first, alice.rpc.soft_seconds(bob.address), alice.rpc.rtt_seconds(bob.address)

    first, later, rtt = run(main, conditions=FIXED)
    assert first == pytest.approx(0.1 + 4 * 0.05, rel=0.3)
    assert later == CONFIG.rpc_soft_seconds_min
    assert rtt == pytest.approx(0.1)
    fast = Conditions(latency=1.4, spread=0.0)
    assert run(main, conditions=fast)[0] == CONFIG.rpc_soft_seconds_max


def test_the_addresses_timed_are_bounded():
    async def main(world):
        (alice,) = await nodes(world, 1)
        for number in range(ADDRESSES_TIMED_MAX + 10):
            alice.rpc._learn(("10.9.9.9", number), 0.1)
        return len(alice.rpc._timing)

    assert run(main) == ADDRESSES_TIMED_MAX


# --- Limits and endings --------------------------------------------------------------------------


def test_a_cancelled_call_leaves_nothing_behind():
    async def main(world):
        alice, call, _, _ = await overheard_call(world)
        assert len(alice.rpc._replies) == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        sent = world.network.counters["sent"]
        await settle(10)
        return len(alice.rpc._replies), world.network.counters["sent"] - sent

    assert run(main, conditions=FIXED) == (0, 0)


def test_at_most_4096_calls_wait_at_a_time():
    async def main(world):
        (alice,) = await nodes(world, 1)
        tasks = [
            asyncio.create_task(alice.ping(("10.9.9.9", 1 + number)))
            for number in range(REPLIES_MAX)
        ]
        await settle(0.1)
        with pytest.raises(LocalError, match="too many calls"):
            await alice.ping(("10.9.9.9", 5000))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {Timeout}
        return len(alice.rpc._replies)

    assert run(main, conditions=FIXED) == 0


def test_closing_fails_the_calls_that_wait_and_those_to_come():
    async def main(world):
        alice, call, _, _ = await overheard_call(world)
        alice.close()
        with pytest.raises(Timeout, match="closing"):
            await call
        with pytest.raises(LocalError):
            await alice.ping(("10.0.0.9", 4000))
        return world.loop.time()

    assert run(main, conditions=FIXED) == pytest.approx(1000.1)


# --- What strangers send -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"\x00", "truncated control datagram"),
        (b"\x00" + bytes(20), "truncated control datagram"),
        (b"\x00" + bytes(20) + b"\xc1", "malformed message"),
        (b"\x00" + bytes(20) + b"\x92\xa8__init__\x90", "unknown method"),
        (b"\x00" + bytes(20) + b"\x92\xa4ping\x91\x00", "method not spoken here"),
        (b"\x00" + bytes(20) + b"\x92\xa7bt_ping\x90", "a native request has one argument"),
        (b"\x01" + bytes(20) + b"\x80", "reply to nothing"),
        (bytes(9000), "control datagram too long"),
    ],
)
def test_garbage_is_counted_by_reason_and_not_answered(datagram, reason):
    async def main(world):
        alice, bob = await nodes(world)
        tap = Wiretap()
        mallory = await world.network.open_endpoint(MALLORY, tap)
        mallory.send(datagram, bob.address)
        await settle()
        await alice.ping(bob.address)  # it still works
        return tap.got, dict(bob.rpc.counters)

    lax = Conditions(latency=0.05, spread=0.0, mtu_bytes=10_000)
    assert run(main, conditions=lax) == ([], {reason: 1})


def test_what_belongs_to_neither_plane_is_counted():
    async def main(world):
        (alice,) = await nodes(world, 1)
        for datagram in (b"", b"\x02", b"\x3f", b"\x80", b"\xff" * 100):
            world.network.inject(datagram, MALLORY, alice.address)
        await settle()
        return dict(alice.demux.counters)

    assert run(main) == {"empty datagram": 1, "unknown first byte": 4}


def test_a_handler_may_stay_silent():
    async def main(world):
        alice, bob = await nodes(world)
        bob.rpc.handlers["bt_ping"] = lambda *_: NO_REPLY
        with pytest.raises(Timeout):
            await alice.ping(bob.address)
        return world.network.counters["sent"]

    assert run(main) == 2  # the request and its repetition


def test_what_nobody_answers_is_freed_without_the_collector():
    """Its error has a traceback, and that the frames that have the error."""

    async def main(world):
        (alice,) = await nodes(world, 1)
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                with suppress(Timeout):
                    await alice.ping(("10.0.0.9", 4000))
            await settle()
            left = [type(o).__name__ for o in gc.get_objects() if isinstance(o, Call | Timeout)]
        finally:
            gc.enable()
        assert left == []

    run(main)
