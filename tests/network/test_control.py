"""The control channel: messages arrive once, though datagrams are lost, repeated or forged."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytestag.errors import PacketError
from bytestag.network import control as c
from bytestag.network import frames
from bytestag.network.rtt import Rtt

KEYS = (bytes(32), bytes([1]) * 32)


def test_the_longest_fragment_fits_a_datagram():
    longest = frames.Message(2**32 - 1, 63, 64, bytes(frames.FRAGMENT_BYTES_MAX))
    ack = frames.encode(frames.Ack(2**64 - 1, 2**64 - 1))
    assert len(frames.encode(longest)) + len(ack) <= c.DATAGRAM_ROOM


def channels():
    return (
        c.ControlChannel(b"bob-----", KEYS[0], KEYS[1], Rtt()),
        c.ControlChannel(b"alice---", KEYS[1], KEYS[0], Rtt()),
    )


def sent(channel, now=0.0, **options):
    return list(channel.datagrams_to_send(now, **options))


def deliver(channel, datagram, now=0.0):
    return channel.receive(*channel.open(datagram), now)


def test_a_message_arrives_and_its_acknowledgement_ends_the_matter():
    alice, bob = channels()
    alice.send_message(b"hello")
    (datagram,) = sent(alice)
    assert deliver(bob, datagram, 0.1) == [b"hello"]
    assert sent(bob, 0.1) == []
    assert bob.next_deadline() == pytest.approx(0.1 + c.ACK_DELAY)
    (ack,) = sent(bob, 0.1 + c.ACK_DELAY)
    assert deliver(alice, ack, 0.2) == []
    assert alice.next_deadline() is None
    assert sent(alice, 9.0) == []


def test_an_acknowledgement_travels_with_what_is_sent_anyway():
    alice, bob = channels()
    alice.send_message(b"question")
    deliver(bob, sent(alice)[0])
    bob.send_message(b"answer")
    (both,) = sent(bob)
    assert deliver(alice, both) == [b"answer"]
    assert alice.next_deadline() == pytest.approx(c.ACK_DELAY)  # only what it owes itself


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12), st.integers(0, 2**32))
def test_messages_arrive_once_in_any_order_of_datagrams(sizes, seed):
    alice, bob = channels()
    rng = random.Random(seed)
    messages = [rng.randbytes(size) for size in sizes]
    for message in messages:
        alice.send_message(message)
    datagrams = sent(alice)
    rng.shuffle(datagrams)
    received = [message for datagram in datagrams for message in deliver(bob, datagram)]
    assert sorted(received) == sorted(messages)
    assert all(len(datagram) <= 1200 for datagram in datagrams)


def test_what_was_overtaken_goes_again_in_a_new_datagram():
    alice, bob = channels()
    alice.send_message(b"lost")
    sent(alice, 0.0)
    alice.send_message(b"later")
    (later,) = sent(alice, 1.0)
    deliver(bob, later, 1.1)
    (ack,) = sent(bob, 1.1, ack_now=True)
    deliver(alice, ack, 1.2)
    (again,) = sent(alice, 1.2)
    assert deliver(bob, again, 1.3) == [b"lost"]


def test_without_any_acknowledgement_the_oldest_is_probed_ever_more_slowly():
    alice, _ = channels()
    alice.send_message(b"anybody there?")
    sent(alice)
    times = []
    for _ in range(5):
        now = alice.next_deadline()
        alice.on_timeout(now)
        assert len(sent(alice, now)) == 1
        times.append(now)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(3.0)


def test_a_message_delivered_already_is_acknowledged_again_but_not_delivered():
    alice, bob = channels()
    alice.send_message(b"once")
    deliver(bob, sent(alice)[0])
    now = alice.next_deadline()
    alice.on_timeout(now)
    assert deliver(bob, sent(alice, now)[0], now) == []
    assert len(sent(bob, now, ack_now=True)) == 1


# --- What a stranger or a bad peer may send ------------------------------------------------------


def test_a_replayed_datagram_is_refused():
    alice, bob = channels()
    alice.send_message(b"once")
    (datagram,) = sent(alice)
    deliver(bob, datagram)
    with pytest.raises(PacketError, match="replayed"):
        bob.open(datagram)


def test_without_the_replay_window_the_same_datagram_would_be_taken_twice():
    alice, bob = channels()
    alice.send_message(b"once")
    (datagram,) = sent(alice)
    deliver(bob, datagram)
    bob._received = c.ReplayWindow()
    bob._delivered = c._Delivered()
    assert deliver(bob, datagram) == [b"once"]


@pytest.mark.parametrize("position", [0, 1, 9, 10, 17, 18, -1])
def test_a_bit_changed_anywhere_is_refused(position):
    alice, bob = channels()
    alice.send_message(b"hello")
    datagram = bytearray(sent(alice)[0])
    datagram[position] ^= 1
    with pytest.raises(PacketError):
        bob.open(bytes(datagram))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(tail):
    _, bob = channels()
    with pytest.raises(PacketError):
        bob.open(b"\x41" + bytes(9) + tail)


def test_a_datagram_with_an_unknown_frame_is_refused_and_may_be_sent_again():
    alice, bob = channels()
    datagram = alice._sealed(b"\x08")
    with pytest.raises(PacketError, match="unknown frame"):
        bob.open(datagram)
    assert bob.largest_received == -1


def test_incomplete_messages_take_bounded_memory_whatever_their_size():
    alice, bob = channels()
    for body in (bytes(1140), b""):  # an empty fragment costs memory as well
        for number in range(1, 5000):
            deliver(bob, alice.seal(frames.Message(number, 0, 64, body)))
    assert sum(map(len, bob._partial.values())) < 4000
    assert bob._partial_bytes <= c.REASSEMBLY_BYTES_MAX


def test_a_full_store_of_incomplete_messages_lets_the_oldest_be_finished():
    alice, bob = channels()
    for number in range(1, 300):
        deliver(bob, alice.seal(frames.Message(number, 0, 2, bytes(1140))))
    assert deliver(bob, alice.seal(frames.Message(0, 0, 2, b"first "))) == []
    assert deliver(bob, alice.seal(frames.Message(0, 1, 2, b"second"))) == [b"first second"]
    assert deliver(bob, alice.seal(frames.Message(1, 1, 2, b"!"))) == [bytes(1140) + b"!"]


def test_what_was_dropped_for_want_of_room_is_not_acknowledged():
    alice, bob = channels()
    datagram = alice.seal(frames.Message(c.NUMBERS_AHEAD_MAX + 1, 0, 1, b"far ahead"))
    counter = bob.largest_received
    assert deliver(bob, datagram) == []
    assert bob.largest_received == counter
    assert bob.next_deadline() is None


def test_finished_messages_give_their_memory_back():
    alice, bob = channels()
    for _ in range(20):
        alice.send_message(bytes(3000))
    for datagram in sent(alice):
        deliver(bob, datagram)
    assert bob._partial == {}
    assert bob._partial_bytes == 0


def test_at_most_64_datagrams_wait_for_an_acknowledgement():
    alice, _ = channels()
    for _ in range(100):
        alice.send_message(bytes(1000))
    assert len(sent(alice)) == c.IN_FLIGHT_MAX
    assert sent(alice) == []


def test_acknowledgements_of_what_was_never_sent_change_nothing():
    alice, bob = channels()
    deliver(bob, alice.seal(frames.Ack(2**64 - 1, 2**64 - 1)))
    assert bob.next_deadline() is None


def test_a_padded_ping_has_the_size_asked_for_and_its_acknowledgement_is_reported():
    alice, bob = channels()
    counter, datagram = alice.ping(1452, 0.0)
    assert len(datagram) == 1452
    deliver(bob, datagram)
    (ack,) = sent(bob, ack_now=True)
    deliver(alice, ack)
    assert alice.acked_pings == {counter}


# --- The replay window ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 3000), max_size=200))
def test_the_window_accepts_each_counter_once(counters):
    window, accepted = c.ReplayWindow(), set()
    for counter in counters:
        if window.is_new(counter):
            assert counter not in accepted
            window.accept(counter)
            accepted.add(counter)
        else:
            assert counter in accepted or counter <= max(accepted) - c.REPLAY_WINDOW


def test_the_window_takes_late_counters_within_1024():
    window = c.ReplayWindow()
    window.accept(2000)
    assert window.is_new(2000 - 1023)
    assert not window.is_new(2000 - 1024)
