"""A GET that comes with the INIT: one round trip less, and nothing that a replay could change."""

import asyncio
import random
from contextlib import suppress

import pytest

from bytestag.config import DATAGRAM_BYTES_MAX, TransferLimits
from bytestag.errors import BytestagError, NotFound, Timeout
from bytestag.network import messages as m
from bytestag.network.early import EARLY_BYTES_MAX, Early
from bytestag.network.handshake import ACCEPT, CHALLENGE, CONTROL, FIRST_BYTE, INIT, UNIT
from bytestag.network.links import Busy
from bytestag.network.tokens import NO_TOKEN
from bytestag.sim import Conditions, run
from tests.network.nodes import CONFIG, Node, nodes, settle
from tests.network.test_sessions import kinds, tap

ONE_WAY = 0.05
FIXED = Conditions(latency=ONE_WAY, spread=0.0)
VALUE = random.Random(1).randbytes(900)
LARGE = random.Random(2).randbytes(2**20)


async def known(world, config=CONFIG):
    """Return two nodes, the first with a token of the second, and what it needs to connect."""
    alice, bob = await nodes(world, config=config)
    token = (await alice.ping(bob.address)).token
    return alice, bob, bob.peer(token=token)


async def fetch_early(alice, peer, key, length):
    early = alice.sessions.early(key, None, b"", length)
    try:
        link = await alice.sessions.connect(peer, early)
        return await link.get(key, length=length, idle_seconds=10, early=early)
    finally:
        if early is not None:
            early.drop()


def without_early(node):
    """Let a node be one that ignores what comes with an INIT, and says so."""
    sessions = node.sessions
    sessions._capabilities = sessions._responder.capabilities = 0


@pytest.mark.parametrize(("answers_early", "round_trips"), [(True, 1), (False, 2)])
def test_the_first_value_from_a_peer_takes_one_round_trip(answers_early, round_trips):
    async def main(world):
        alice, bob, peer = await known(world)
        if not answers_early:
            without_early(bob)
            bob.sessions._add = lambda agreement: type(bob.sessions)._add(
                bob.sessions, agreement_without_early(agreement)
            )
        began = world.loop.time()
        fetched = await fetch_early(alice, peer, bob.hold(VALUE), len(VALUE))
        assert bytes(fetched.value) == VALUE
        seconds = world.loop.time() - began
        assert round_trips - 0.01 < seconds / (2 * ONE_WAY) < round_trips + 0.3
        assert [type(request) for request in bob.requests] == [m.Get]

    run(main, conditions=FIXED)


def agreement_without_early(agreement):
    object.__setattr__(agreement, "early", ())
    return agreement


def test_a_large_value_goes_on_where_the_early_part_ended():
    async def main(world):
        alice, bob, peer = await known(world)
        fetched = await fetch_early(alice, peer, bob.hold(LARGE), len(LARGE))
        assert bytes(fetched.value) == LARGE
        assert len(bob.requests) == 1

    run(main, conditions=FIXED)


def test_over_a_bad_path_it_comes_all_the_same():
    async def main(world):
        alice, bob, peer = await known(world)
        world.network.conditions = Conditions(latency=ONE_WAY, loss=0.2, duplication=0.05)
        for number in range(20):
            value = LARGE[number : number + 20_000]
            fetched = None
            while fetched is None:
                with suppress(Timeout):  # no handshake in three seconds
                    fetched = await fetch_early(alice, peer, bob.hold(value), len(value))
            assert bytes(fetched.value) == value
            for link in list(alice.sessions._links.values()):
                link.session.close()
                alice.sessions.touch(link)
            await settle()

    run(main, conditions=FIXED)


def test_a_stale_token_costs_a_challenge_and_no_more():
    async def main(world):
        alice, bob, _peer = await known(world)
        sent = tap(world.network)
        stale = bob.peer(token=bytes(range(16)))
        fetched = await fetch_early(alice, stale, bob.hold(VALUE), len(VALUE))
        assert bytes(fetched.value) == VALUE
        assert kinds(sent)[:3] == [INIT, CHALLENGE, INIT]
        assert len(bob.requests) == 1

    run(main, conditions=FIXED)


def test_what_is_not_held_is_said_at_once():
    async def main(world):
        alice, _bob, peer = await known(world)
        began = world.loop.time()
        with pytest.raises(NotFound):
            await fetch_early(alice, peer, bytes(20), 100)
        assert world.loop.time() - began < 3 * ONE_WAY

    run(main, conditions=FIXED)


@pytest.mark.parametrize("has_token", [True, False])
def test_an_init_that_is_sent_again_is_not_answered_with_the_value(has_token):
    """Without a token the answer is smaller than the INIT; a replay gets no more than that."""

    async def main(world):
        alice, bob, peer = await known(world)
        if not has_token:
            peer = bob.peer(token=NO_TOKEN)
        sent = tap(world.network)
        await fetch_early(alice, peer, bob.hold(VALUE), len(VALUE))
        (init, source, destination) = next(entry for entry in sent if entry[0][9] == INIT)
        await settle()
        requests = len(bob.requests)
        del sent[:]
        for _ in range(5):
            world.network.inject(init, source, destination)
        await settle()
        answers = [datagram for datagram, sender, _ in sent if sender == bob.address]
        assert [datagram[9] for datagram in answers] == [CHALLENGE] * 5
        assert all(len(datagram) < len(init) for datagram in answers)
        assert len(bob.requests) == requests

    run(main, conditions=FIXED)


def lose_an_accept(network):
    """Let the first ACCEPT be lost."""
    inject, lost = network.inject, []

    def lossy(datagram, source, destination):
        if datagram[0] == FIRST_BYTE and datagram[9] == ACCEPT and not lost:
            lost.append(datagram)
        else:
            inject(datagram, source, destination)

    network.inject = lossy


@pytest.mark.parametrize("gives_up", [True, False])
@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("size", [900, 20_000, 2**20])
def test_what_a_session_sends_whose_accept_was_lost_is_not_taken_for_the_next_ones(
    size, seconds, gives_up
):
    """The same question goes with the next INIT, while the first is still answered."""

    async def main(world):
        alice, bob, peer = await known(world)
        lose_an_accept(world.network)
        if not gives_up:  # what is on its way when it does is as bad
            bob.sessions._end_unconfirmed = lambda node_id, address: None
        serve = bob.serve
        bob.serve = lambda link, get: world.loop.call_later(
            seconds, lambda: link.session.is_closed or serve(link, get)
        )
        fetched = await fetch_early(alice, peer, bob.hold(LARGE[:size]), size)
        assert bytes(fetched.value) == LARGE[:size]
        assert len(bob.sessions) == 2 - gives_up

    run(main, conditions=FIXED)


def test_programs_that_are_one_node_do_not_end_each_others_sessions():
    async def main(world):
        alice, bob, peer = await known(world)
        twin = Node(0, world.runtime(7))
        await twin.open(world.network.open_endpoint, ("10.0.0.1", 4001))
        assert twin.identity.node_id == alice.identity.node_id
        token = (await twin.ping(bob.address)).token
        key = bob.hold(LARGE)
        both = await asyncio.gather(
            fetch_early(alice, peer, key, len(LARGE)),
            fetch_early(twin, bob.peer(token=token), key, len(LARGE)),
        )
        assert [bytes(fetched.value) == LARGE for fetched in both] == [True, True]

    run(main, conditions=FIXED)


def test_after_a_lost_accept_and_over_a_lossy_path_nothing_is_spoilt():
    async def main(world):
        alice, bob, peer = await known(world)
        world.network.conditions = Conditions(latency=0.15, loss=0.03)
        lose_an_accept(world.network)
        fetched = None
        while fetched is None:
            with suppress(Busy, Timeout):  # three ACCEPTs were lost, or six INITs
                fetched = await fetch_early(alice, peer, bob.hold(LARGE[:20_000]), 20_000)
        assert bytes(fetched.value) == LARGE[:20_000]
        link = alice.sessions.link_to(peer.node_id)
        for number in range(4):
            value = LARGE[number : number + 200_000]
            fetched = await link.get(bob.hold(value), length=len(value), idle_seconds=10)
            assert bytes(fetched.value) == value

    for seed in range(50):
        run(main, seed=seed, conditions=Conditions(latency=0.15, spread=0.0))


@pytest.mark.parametrize("has_session", [False, True])
def test_an_address_that_is_not_heard_is_not_flooded(monkeypatch, has_session):
    """Who had it an hour ago has its token still, and may write it as the sender of his INITs.

    And of what he sends in a session of his own.
    """

    def sent(inits):
        counts = []

        async def main(world):
            alice, bob, peer = await known(world)
            mallory = Node(2, world.runtime(2))
            await mallory.open(world.network.open_endpoint, ("10.0.0.66", 4000))
            own = (await mallory.sessions.connect(bob.peer())).session
            await settle()
            key, sent = bob.hold(LARGE), tap(world.network)
            for number in range(inits):
                if has_session:
                    _, control = own._control.ping(100, world.loop.time())
                    world.network.inject(control, alice.address, bob.address)
                    await settle(ONE_WAY)
                early = Early(number.to_bytes(20, "big"), key, None, b"", len(LARGE))
                connecting = asyncio.ensure_future(alice.sessions.connect(peer, early))
                await settle(0.9 * ONE_WAY)
                connecting.cancel()
                with suppress(asyncio.CancelledError):
                    await connecting
                await settle(0.02)
            await settle(10)
            there = [text for text, *way in sent if way == [bob.address, alice.address]]
            counts.append(sum(map(len, there)))
            del sent[:]
            await alice.sessions.connect(peer)
            await settle()  # it is heard again
            alice.sessions.close()
            fetched = await fetch_early(alice, peer, bob.hold(VALUE), len(VALUE))
            assert bytes(fetched.value) == VALUE

        run(main, conditions=FIXED)
        return counts[0]

    few = sent(8)
    assert few <= 8 * EARLY_BYTES_MAX
    assert sent(30) - few < 22 * 300
    monkeypatch.setattr("bytestag.network.sessions.EARLY_UNHEARD_MAX", 1000)
    assert sent(30) > 10 * EARLY_BYTES_MAX


def sent_to_who_never_confirms():
    """Return how much a node sends to an initiator that falls silent after its INIT."""
    total = []

    async def main(world):
        alice, bob, peer = await known(world)
        key = bob.hold(LARGE)
        sent = tap(world.network)
        fetching = asyncio.ensure_future(fetch_early(alice, peer, key, len(LARGE)))
        await settle(0.9 * ONE_WAY)
        alice.endpoint.close()
        await settle(60)
        total.append(sum(len(datagram) for datagram, sender, _ in sent if sender == bob.address))
        assert not len(bob.sessions)
        fetching.cancel()
        with pytest.raises((asyncio.CancelledError, BytestagError)):
            await fetching

    run(main, conditions=FIXED)
    return total[0]


def test_who_never_answers_is_sent_so_much_at_most(monkeypatch):
    whole = sent_to_who_never_confirms()
    assert whole <= EARLY_BYTES_MAX
    monkeypatch.setattr("bytestag.network.session.EARLY_BYTES_MAX", 16 * 1024)
    assert DATAGRAM_BYTES_MAX < sent_to_who_never_confirms() <= 16 * 1024 < whole


@pytest.mark.parametrize(
    "message",
    [m.Cancel(bytes(20)), m.Offer(bytes(20), [], []), m.Provide(bytes(20), b"x"), None],
)
def test_only_a_get_is_taken_from_an_init(message):
    async def main(world):
        alice, bob, peer = await known(world)
        early = Early(bytes(20), bytes(20), None, b"", 100)
        early.packed = m.encode(message) if message is not None else b"\x93\xa1x\xa1y\xc0"
        await alice.sessions.connect(peer, early)
        await settle(0.1)
        assert bob.requests == []
        assert bob.sessions.counters.total() == 1

    run(main, conditions=FIXED)


def test_an_early_question_that_nobody_awaits_is_cancelled():
    async def main(world):
        alice, bob, peer = await known(world)
        early = alice.sessions.early(bob.hold(LARGE), None, b"", len(LARGE))
        link = await alice.sessions.connect(peer, early)
        assert not link.is_idle
        early.drop()
        early.drop()
        assert not early.take()
        await settle()
        assert link.is_idle
        assert [type(request) for request in bob.requests] == [m.Get, m.Cancel]

    run(main, conditions=FIXED)


@pytest.mark.parametrize("limit", ["download", "peer_download"])
def test_with_a_limit_nothing_is_asked_for_early(limit):
    async def main(world):
        config = CONFIG.replace(limits=TransferLimits(**{limit: 100_000}))
        alice, bob, peer = await known(world, config)
        assert alice.sessions.early(bytes(20), None, b"", 10) is None
        fetched = await fetch_early(alice, peer, bob.hold(VALUE), len(VALUE))
        assert bytes(fetched.value) == VALUE

    run(main, conditions=FIXED)


def test_a_question_in_an_existing_session_goes_the_usual_way():
    async def main(world):
        alice, bob, peer = await known(world)
        await alice.sessions.connect(peer)
        await settle()
        sent = tap(world.network)
        fetched = await fetch_early(alice, peer, bob.hold(VALUE), len(VALUE))
        assert bytes(fetched.value) == VALUE
        assert set(kinds(sent)) == {CONTROL, UNIT}

    run(main, conditions=FIXED)
