"""Sessions on a virtual network: they begin, carry values over bad paths, end, and stay bounded."""

import asyncio
import random

import pytest

from bytestag.crypto.identity import Identity
from bytestag.errors import Corrupt, NotFound, RemoteError, Timeout
from bytestag.network import handshake, sessions, units
from bytestag.network import messages as m
from bytestag.network.links import RATE_MIN
from bytestag.network.session import Session
from bytestag.network.sessions import Peer
from bytestag.sim import Conditions, run
from tests.network.nodes import CONFIG, Node, fetch, let_trickle, nodes, settle

FIXED = Conditions(latency=0.05, spread=0.0)
VALUE = random.Random(1).randbytes(300_000)


def kinds(tapped):
    """Return the types of the data-plane datagrams that were sent."""
    return [datagram[9] for datagram, *_ in tapped]


def tap(network, change=lambda datagram: datagram):
    """Record what is sent from now on; ``change`` may alter a datagram, or drop it with None."""
    sent, inject = [], network.inject

    def record(datagram, source, destination):
        sent.append((datagram, source, destination))
        changed = change(datagram)
        if changed is not None:
            inject(changed, source, destination)

    network.inject = record
    return sent


# --- Beginning -----------------------------------------------------------------------------------


def test_without_a_token_there_is_a_challenge_and_then_a_session():
    async def main(world):
        alice, bob = await nodes(world)
        sent = tap(world.network)
        link = await alice.sessions.connect(bob.peer())
        assert link.node_id == bob.identity.node_id
        return kinds(sent), world.loop.time() - 1000

    sent, seconds = run(main, conditions=FIXED)
    assert sent[:4] == [handshake.INIT, handshake.CHALLENGE, handshake.INIT, handshake.ACCEPT]
    assert seconds == pytest.approx(0.2)


def test_with_a_token_from_a_ping_a_session_takes_one_round_trip():
    async def main(world):
        alice, bob = await nodes(world)
        token = (await alice.ping(bob.address)).token
        before = world.loop.time()
        await alice.sessions.connect(bob.peer(token=token))
        await settle()
        assert bob.sessions.link_to(alice.identity.node_id).session.is_confirmed
        return before, world.loop.time() - 1

    before, after = run(main, conditions=FIXED)
    assert after - before == pytest.approx(0.1)


def test_two_connects_at_once_share_one_session_and_a_later_one_as_well():
    async def main(world):
        alice, bob = await nodes(world)
        links = await asyncio.gather(*(alice.sessions.connect(bob.peer()) for _ in range(5)))
        links.append(await alice.sessions.connect(bob.peer()))
        return len(set(links)), len(alice.sessions), len(bob.sessions)

    assert run(main) == (1, 1, 1)


def test_who_waits_for_anothers_handshake_is_not_failed_by_its_cancellation():
    async def main(world):
        alice, bob = await nodes(world)
        first = asyncio.create_task(alice.sessions.connect(bob.peer()))
        second = asyncio.create_task(alice.sessions.connect(bob.peer()))
        await settle(0.01)
        first.cancel()
        link = await second
        return link.node_id == bob.identity.node_id, len(alice.sessions)

    assert run(main, conditions=FIXED) == (True, 1)


def test_both_ends_may_connect_at_once():
    async def main(world):
        alice, bob = await nodes(world)
        keys = alice.hold(b"a" * 2000), bob.hold(b"b" * 2000)
        to_bob, to_alice = await asyncio.gather(
            fetch(alice, bob.peer(), keys[1], 2000), fetch(bob, alice.peer(), keys[0], 2000)
        )
        return to_bob.value[:1], to_alice.value[:1]

    assert run(main, conditions=FIXED) == (b"b", b"a")


def test_a_session_that_the_peer_has_not_confirmed_is_not_used():
    async def main(world):
        alice, bob = await nodes(world)
        bob.hold(VALUE)
        lost = []

        def lose_the_first_accept(datagram):
            if datagram[9] == handshake.ACCEPT and not lost:
                lost.append(datagram)
                return None
            return datagram

        tap(world.network, lose_the_first_accept)
        connecting = asyncio.create_task(alice.sessions.connect(bob.peer()))
        while not lost:
            await settle(0.01)
        assert len(bob.sessions) == 1
        key = alice.hold(b"alice's")
        found = await fetch(bob, alice.peer(), key, 7)  # not through the one that nobody reads
        await connecting
        return found.value

    assert run(main, conditions=FIXED) == b"alice's"


@pytest.mark.parametrize("loss", [0.05, 0.2])
def test_handshakes_survive_loss(loss):
    async def main(world):
        alice, bob = await nodes(world)
        config = CONFIG.replace(handshake_seconds=10.0)
        alice.sessions._config = config
        return (await alice.sessions.connect(bob.peer())).node_id == bob.identity.node_id

    for seed in range(10):
        assert run(main, seed, Conditions(loss=loss))


# --- Failing to begin ----------------------------------------------------------------------------


def test_a_dead_peer_is_a_timeout():
    async def main(world):
        (alice,) = await nodes(world, 1)
        stranger = Node("stranger", world.runtime("stranger"))
        peer = handshake_peer(stranger, ("10.0.0.9", 4000))
        with pytest.raises(Timeout, match="no handshake"):
            await alice.sessions.connect(peer)
        return world.loop.time() - 1000, alice.sessions._handshakes, alice.sessions._connecting

    seconds, handshakes, connecting = run(main)
    assert seconds == pytest.approx(CONFIG.handshake_seconds)
    assert handshakes == {}
    assert connecting == {}


def handshake_peer(node, address):
    return Peer(node.identity.node_id, address, node.identity.static.public)


@pytest.mark.parametrize("changes", [{"x25519": bytes(range(32))}, {"node_id": bytes(20)}])
def test_another_x25519_key_or_node_id_than_the_peers_is_a_timeout(changes):
    async def main(world):
        alice, bob = await nodes(world)
        with pytest.raises(Timeout):
            await alice.sessions.connect(bob.peer(**changes))
        return len(alice.sessions), len(bob.sessions), bob.sessions.counters

    ours, theirs, counters = run(main)
    assert (ours, theirs) == (0, 0)
    assert counters["handshake does not authenticate"] > 0


def test_who_answers_at_the_address_without_the_keys_is_not_taken_for_the_peer():
    async def main(world):
        alice, bob, mallory = await nodes(world, 3)
        with pytest.raises(Timeout):
            await alice.sessions.connect(bob.peer(address=mallory.address))
        return len(mallory.sessions)

    assert run(main) == 0


def test_a_node_of_another_network_is_a_timeout():
    async def main(world):
        (alice,) = await nodes(world, 1)
        other = Node("other", world.runtime("other"), CONFIG.replace(network="another"))
        await other.open(world.network.open_endpoint, ("10.0.0.9", 4000))
        with pytest.raises(Timeout):
            await alice.sessions.connect(other.peer())
        return other.sessions.counters["handshake does not authenticate"]

    assert run(main) > 0


def test_closing_ends_a_handshake_under_way():
    async def main(world):
        alice, bob = await nodes(world)
        connecting = asyncio.create_task(alice.sessions.connect(bob.peer()))
        await settle(0.01)
        alice.close()
        with pytest.raises(RemoteError, match="closing"):
            await connecting
        return world.loop.time()

    assert run(main, conditions=FIXED) == pytest.approx(1000.01)


# --- Values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2])
def test_a_value_arrives_whole_whatever_is_lost(loss):
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)
        return await fetch(alice, bob.peer(), key, len(VALUE))

    for seed in range(3):
        found = run(main, seed, Conditions(loss=loss, duplication=loss, jitter=loss / 4))
        assert found.value == VALUE
        assert found.size == len(VALUE)


def test_a_range_of_a_value_arrives_and_no_more():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)
        before = world.network.bytes_sent
        found = await fetch(alice, bob.peer(), key, 1000, offset=5000)
        tail = await fetch(alice, bob.peer(), key, 1000, offset=len(VALUE) - 10)
        return found, tail, world.network.bytes_sent - before

    found, tail, sent = run(main)
    assert found.value == VALUE[5000:6000]
    assert tail.value == VALUE[-10:]
    assert sent < 10_000


def test_many_values_at_once_share_a_session():
    async def main(world):
        alice, bob = await nodes(world)
        values = [random.Random(i).randbytes(i * 3000) for i in range(30)]
        fetches = [fetch(alice, bob.peer(), bob.hold(v), max(len(v), 1)) for v in values]
        found = await asyncio.gather(*fetches)
        link = alice.sessions.link_to(bob.identity.node_id)
        assert link.is_idle
        assert link.session._downloads == {}
        return [f.value for f in found] == values, len(alice.sessions)

    assert run(main, conditions=Conditions(loss=0.02)) == (True, 1)


def test_what_the_peer_does_not_hold_is_not_found():
    async def main(world):
        alice, bob = await nodes(world)
        with pytest.raises(NotFound):
            await fetch(alice, bob.peer(), bytes(20), 10)
        return alice.sessions.link_to(bob.identity.node_id).is_idle

    assert run(main) is True


def test_a_peer_that_falls_silent_in_a_transfer_is_a_timeout():
    async def main(world):
        alice, bob = await nodes(world, config=CONFIG.replace(window_bytes=60_000))
        key = bob.hold(bytes(2**20))
        await alice.sessions.connect(bob.peer())
        world.loop.call_later(0.3, world.network.partition, {alice.address}, {bob.address})
        before = world.loop.time()
        with pytest.raises(Timeout, match="no byte came"):
            await fetch(alice, bob.peer(), key, 2**20, idle_seconds=10.0)
        link = alice.sessions.link_to(bob.identity.node_id)
        return world.loop.time() - before, link.is_idle

    seconds, is_idle = run(main, conditions=FIXED)
    assert 10 <= seconds < 11
    assert is_idle


@pytest.mark.parametrize(("unit_bytes", "patience"), [(50_000, 10), (1024, 10 + 2**18 / RATE_MIN)])
def test_a_peer_that_lets_a_value_trickle_is_a_timeout(monkeypatch, unit_bytes, patience):
    """One datagram in nine seconds: a part of a unit is nothing yet; small units are too few."""
    monkeypatch.setattr(Session, "unit_bytes", unit_bytes)

    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(bytes(2**18))
        let_trickle(world, bob.address, 9.0)
        before = world.loop.time()
        with pytest.raises(Timeout, match="hardly any"):
            await fetch(alice, bob.peer(), key, 2**18, idle_seconds=10.0)
        link = alice.sessions.link_to(bob.identity.node_id)
        return world.loop.time() - before, link.is_idle

    seconds, is_idle = run(main, conditions=FIXED)
    assert patience <= seconds < patience + 10
    assert is_idle


def test_a_cancelled_fetch_stops_the_traffic_and_frees_the_slot():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(bytes(2**20))
        bob_config = CONFIG.replace(window_bytes=60_000)
        bob.sessions._config = bob_config
        task = asyncio.create_task(fetch(alice, bob.peer(), key, 2**20))
        await settle(0.5)
        link = bob.sessions.link_to(alice.identity.node_id)
        assert link.session.uploads_active == 1
        task.cancel()
        await asyncio.wait([task])
        await settle(0.3)
        before = world.network.bytes_sent
        await settle(20)
        assert link.session.uploads_active == 0
        assert link.is_idle
        assert isinstance(bob.requests[-1], m.Cancel)
        return before, world.network.bytes_sent - before

    before, after = run(main, conditions=FIXED)
    assert 60_000 < before < 600_000
    assert after < 5000


def test_a_unit_that_was_tampered_with_is_corrupt():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)

        def spoil(datagram):
            is_unit = datagram[9] == handshake.UNIT
            return datagram[:-1] + bytes([datagram[-1] ^ 1]) if is_unit else datagram

        tap(world.network, spoil)
        with pytest.raises(Corrupt):
            await fetch(alice, bob.peer(), key, len(VALUE))
        await settle(5)
        return alice.sessions.counters["unit does not authenticate"]

    assert run(main) >= 1


def test_without_authentication_the_tampered_unit_would_be_delivered(monkeypatch):
    class Trusting:
        def __init__(self, key):
            self.encrypt = lambda nonce, text, _: bytes(text) + bytes(16)
            self.decrypt_into = self._decrypt_into

        def _decrypt_into(self, nonce, text, _, place):
            place[:] = text[:-16]

    monkeypatch.setattr(units, "AESGCM", Trusting)

    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)

        def spoil(datagram):
            if datagram[9] != handshake.UNIT:
                return datagram
            return datagram[:30] + bytes([datagram[30] ^ 1]) + datagram[31:]

        tap(world.network, spoil)
        return (await fetch(alice, bob.peer(), key, len(VALUE))).value

    value = run(main)
    assert len(value) == len(VALUE)
    assert value != VALUE


def test_a_holder_that_lies_about_the_size_gets_no_more_than_was_asked_for():
    async def main(world):
        alice, bob = await nodes(world)

        def serve(link, get):
            unit_bytes = link.session.unit_bytes
            link.send(m.Found(get.id, bytes(20), bytes(32), 2**20, 0, unit_bytes))
            link.session.upload(get.id, get.slot, [memoryview(bytes(2**20))], unit_bytes)

        bob.serve = serve
        with pytest.raises((Corrupt, Timeout)):
            await fetch(alice, bob.peer(), bytes(20), 1000)
        await settle(5)

    run(main)


# --- Address and datagram trouble -----------------------------------------------------------------


def test_datagrams_that_belong_to_no_session_are_counted_and_not_answered():
    async def main(world):
        alice, bob = await nodes(world)
        await alice.sessions.connect(bob.peer())
        await settle()
        link_id = bob.sessions.link_to(alice.identity.node_id).session.agreement.local_id
        sent = tap(world.network)
        for datagram in (
            b"\x41",
            b"\x41" + bytes(8) + b"\x04" + bytes(40),
            b"\x41" + bytes(8) + b"\x01" + bytes(20),
            b"\x41" + link_id + b"\x04" + bytes(7) + b"\x77" + bytes(40),
            b"\x41" + link_id + b"\x05" + bytes(40),
            b"\x41" + link_id + b"\x63" + bytes(40),
            b"\x42" + bytes(8) + b"\x01" + bytes(300),
            b"\x40" + link_id + b"\x04" + bytes(40),
        ):
            world.network.inject(datagram, ("10.0.0.66", 666), bob.address)
        await settle()
        return len(sent) - 8, dict(bob.sessions.counters)

    answers, counters = run(main)
    assert answers == 0
    assert counters == {
        "truncated datagram": 1,
        "unknown connection": 1,
        "truncated INIT": 1,
        "forged CONTROL": 1,
        "misplaced unit": 1,
        "unknown type in a session": 1,
        "another version": 2,
    }


def test_a_peer_whose_address_changes_is_followed_after_it_proved_the_new_one():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)
        await fetch(alice, bob.peer(), key, 10)
        old = alice.endpoint
        moved = await world.network.open_endpoint(("10.0.0.77", 5000), alice.demux)
        alice.sessions.attach(moved)
        old.close()
        link = bob.sessions.link_to(alice.identity.node_id)
        assert link.address == old.address
        found = await fetch(alice, bob.peer(), key, len(VALUE))
        return found.value == VALUE, link.address, len(bob.sessions)

    assert run(main, conditions=FIXED) == (True, ("10.0.0.77", 5000), 1)


# --- Ending --------------------------------------------------------------------------------------


def test_an_idle_session_sends_nothing_and_then_ends_at_both_ends():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(VALUE)
        await fetch(alice, bob.peer(), key, len(VALUE))
        await settle(5)
        before = world.network.counters["sent"]
        await settle(50)
        while_idle = world.network.counters["sent"] - before, len(alice.sessions)
        await settle(10)
        return while_idle, len(alice.sessions), len(bob.sessions)

    assert run(main) == ((0, 1), 0, 0)


def test_a_peer_that_restarted_is_connected_to_again():
    async def main(world):
        alice, bob = await nodes(world)
        key = bob.hold(b"before")
        await fetch(alice, bob.peer(), key, 6)
        bob.endpoint.close()  # no goodbye
        restarted = Node(1, world.runtime("restarted"))
        await restarted.open(world.network.open_endpoint, bob.address)
        restarted.hold(b"before")
        with pytest.raises(Timeout):
            await fetch(alice, bob.peer(), key, 6, idle_seconds=6.0)
        before = world.loop.time()
        again = await fetch(alice, bob.peer(), key, 6)
        return world.loop.time() - before, again.value

    seconds, value = run(main, conditions=FIXED)
    assert seconds < 0.5
    assert value == b"before"


def test_a_value_arrives_over_a_very_slow_path():
    async def main(world):
        alice, bob = await nodes(world, config=CONFIG.replace(handshake_seconds=20.0))
        key = bob.hold(VALUE)
        return (await fetch(alice, bob.peer(), key, len(VALUE), idle_seconds=30.0)).value

    slow = Conditions(latency=0.7, spread=0.0, loss=0.05)
    for seed in range(5):
        assert run(main, seed, slow) == VALUE


def test_closing_tells_the_peer_and_fails_what_waits():
    async def main(world):
        alice, bob = await nodes(world)
        bob.handle = bob.sessions._handler = lambda *_: None  # never answers
        task = asyncio.create_task(fetch(alice, bob.peer(), bytes(20), 10))
        await settle()
        bob.close()
        with pytest.raises(RemoteError, match="ended"):
            await task
        return len(alice.sessions), len(bob.sessions), world.loop.time()

    ours, theirs, now = run(main, conditions=FIXED)
    assert (ours, theirs) == (0, 0)
    assert now == pytest.approx(1001.05)


def test_a_session_gives_way_to_a_new_one_after_twelve_hours():
    async def main(world):
        alice, bob = await nodes(world, config=CONFIG.replace(session_idle_seconds=1e6))
        key = bob.hold(b"value")
        first = await alice.sessions.connect(bob.peer())
        for _ in range(13):
            await settle(3600)
            await fetch(alice, bob.peer(), key, 5)
        second = await alice.sessions.connect(bob.peer())
        return first is second, first.session.is_closed, len(alice.sessions)

    assert run(main) == (False, True, 1)


# --- Bounds --------------------------------------------------------------------------------------


def test_the_table_of_sessions_is_bounded_and_idle_ones_give_way():
    async def main(world):
        config = CONFIG.replace(sessions_max=5)
        (bob,) = await nodes(world, 1, config)
        others = []
        for number in range(8):
            other = Node(f"other {number}", world.runtime(f"other {number}"), config)
            await other.open(world.network.open_endpoint, (f"10.0.1.{number}", 4000))
            await other.sessions.connect(bob.peer())
            await settle(1)
            others.append(other)
        return len(bob.sessions), [len(other.sessions) for other in others]

    assert run(main) == (5, [0, 0, 0, 1, 1, 1, 1, 1])


def test_a_table_full_of_busy_sessions_takes_nobody_new_and_connects_to_nobody():
    async def main(world):
        config = CONFIG.replace(sessions_max=3)
        bob, carol = await nodes(world, 2, config)
        others = [Node(f"o{number}", world.runtime(number), config) for number in range(4)]
        for number, other in enumerate(others):
            await other.open(world.network.open_endpoint, (f"10.0.1.{number}", 4000))
        for other in others[:3]:
            await other.sessions.connect(bob.peer())
            link = bob.sessions.link_to(other.identity.node_id) or next(
                reversed(bob.sessions._links.values())
            )
            link.uploads_done[bytes(20)] = lambda: None
        with pytest.raises(Timeout):
            await others[3].sessions.connect(bob.peer())
        with pytest.raises(RemoteError, match="too many sessions"):
            await bob.sessions.connect(carol.peer())
        return len(bob.sessions)

    assert run(main) == 3


def test_one_peer_has_at_most_four_sessions():
    async def main(world):
        (bob,) = await nodes(world, 1)
        secret = Identity.generate(random.Random("alice").randbytes).to_bytes()
        clones = []
        for number in range(6):
            clone = Node("clone", world.runtime(f"clone {number}"))
            clone.identity = clone.sessions._identity = Identity.from_bytes(secret)
            await clone.open(world.network.open_endpoint, (f"10.0.1.{number}", 4000))
            await clone.sessions.connect(bob.peer())
            await settle(0.5)
            clones.append(clone)
        return len(bob.sessions)

    assert run(main) == 4


def test_handshakes_under_way_are_bounded():
    async def main(world):
        (alice,) = await nodes(world, 1)
        peers = [
            handshake_peer(Node(f"s{number}", world.runtime(number)), ("10.0.0.9", 4000))
            for number in range(3)
        ]
        assert sessions.HANDSHAKES_MAX == 256
        for number in range(sessions.HANDSHAKES_MAX):
            alice.sessions._handshakes[bytes([number]) * 8] = None
        with pytest.raises(RemoteError, match="too many handshakes"):
            await alice.sessions.connect(peers[0])
        alice.sessions._handshakes.clear()

    run(main)


def test_many_handshakes_at_once_do_not_make_more_sessions_than_there_may_be():
    async def main(world):
        config = CONFIG.replace(sessions_max=3)
        (bob,) = await nodes(world, 1, config)
        others = [Node(f"o{number}", world.runtime(number), config) for number in range(6)]
        for number, other in enumerate(others):
            await other.open(world.network.open_endpoint, (f"10.0.1.{number}", 4000))
        connecting = [bob.sessions.connect(other.peer()) for other in others]
        found = await asyncio.gather(*connecting, return_exceptions=True)
        refused = [error for error in found if isinstance(error, RemoteError)]
        return len(bob.sessions), len(refused)

    assert run(main) == (3, 3)


def test_answers_to_nothing_and_malformed_messages_are_counted():
    async def main(world):
        alice, bob = await nodes(world)
        link = await alice.sessions.connect(bob.peer())
        link.send(m.Done(bytes(20), 0))
        link.session.send_message(b"\xc1")
        alice.sessions.touch(link)
        await settle()
        return dict(bob.sessions.counters)

    assert run(main) == {"answer to nothing": 1, "malformed message": 1}


def test_a_merged_burst_shorter_than_a_header_is_dropped_and_counted():
    async def main(world):
        alice, bob = await nodes(world)
        link = await alice.sessions.connect(bob.peer())
        burst = b"\x41" + link.session.agreement.local_id + b"\x05" + bytes(6)
        alice.sessions.burst_received(memoryview(burst), 11, link.address)
        return sum(alice.sessions.counters.values())

    assert run(main) == 2


def test_a_peer_that_begins_anew_takes_nobody_elses_place():
    async def main(world):
        bob, alice, carol = await nodes(world, 3, CONFIG.replace(sessions_max=3))
        await carol.sessions.connect(bob.peer())
        await settle()
        lost = world.network.inject

        def without_accepts(datagram, source, destination):
            if (datagram[0], datagram[9]) != (handshake.FIRST_BYTE, handshake.ACCEPT):
                lost(datagram, source, destination)

        world.network.inject = without_accepts
        with pytest.raises(Timeout):
            await alice.sessions.connect(bob.peer())
        assert bob.sessions.link_to(carol.identity.node_id) is not None
        assert len(bob.sessions) == 2

    run(main, conditions=FIXED)
