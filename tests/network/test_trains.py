"""Trains: the window, what counts as lost, what is sent again, what is acknowledged."""

import pytest

from bytestag.network.arrivals import (
    REPEATED_PAIRS,
    TRAINS_AT_ONCE,
    TRAINS_REMEMBERED_MAX,
    TrainReceiver,
)
from bytestag.network.congestion import Snapshot
from bytestag.network.frames import UNIT_PAIRS_MAX, Units
from bytestag.network.rtt import Rtt
from bytestag.network.trains import (
    BYTES_AT_ONCE,
    PROBE_SEGMENTS,
    TrainSender,
)
from bytestag.network.units import UNIT_HEAD, Upload, unit_bytes_for

UNIT_BYTES = unit_bytes_for(1200)


class Open:
    """A path that takes what a window allows, at once."""

    def __init__(self, window_bytes):
        self.window_bytes = window_bytes
        self.segments = lambda size, most: most
        self.acked = self.lost = self.ack_ended = self.limited = lambda *args: None

    def send_at(self):
        return 0.0

    def sent(self, size, in_flight, now):
        return Snapshot(now, 0, 0.0, 0.0, False)


def sender(value_bytes=10 * UNIT_BYTES, window_bytes=10**9, rtt=0.1):
    estimator = Rtt()
    estimator.sample(rtt)
    made = TrainSender(bytes(8), estimator, Open(window_bytes))
    upload = Upload(bytes(20), 5, [memoryview(bytes(value_bytes))], bytes(32), UNIT_BYTES)
    made.add(upload)
    return made, upload


def heads(burst):
    """Return (train, index, segment, unit) of each datagram of a burst."""
    fields = [UNIT_HEAD.unpack(head) for head in burst.buffers[::2]]
    return [(train, index, segment, unit) for _, train, index, segment, _, unit, _ in fields]


def sent(made, now):
    return [head for burst in made.bursts_to_send(now) for head in heads(burst)]


def acked(*trains, bitmap=2**64 - 1):
    return Units(tuple((train, bitmap) for train in trains))


def test_one_unit_is_one_train_and_numbers_rise():
    made, _ = sender()
    bursts = list(made.bursts_to_send(0.0))
    assert len(bursts) == 10
    for number, burst in enumerate(bursts):
        assert heads(burst) == [(number, index, index, number) for index in range(44)]
        assert burst.segment_bytes == 1200


def test_the_window_is_filled_and_then_waited_for():
    made, _ = sender(window_bytes=100_000)
    first = sent(made, 0.0)
    assert {train for train, *_ in first} == {0, 1}
    assert sent(made, 0.01) == []
    made.receive_units(acked(0), 0.1)
    assert {train for train, *_ in sent(made, 0.1)} == {2}


def test_everything_acknowledged_finishes_the_upload_once():
    made, upload = sender()
    sent(made, 0.0)
    made.receive_units(acked(*range(10)), 0.1)
    assert upload.is_done
    assert made.take_finished() == [upload]
    assert made.take_finished() == []
    assert made.active == 0
    assert made.next_deadline() is None


def test_what_a_later_train_overtook_is_lost_after_a_quarter_of_an_rtt_and_only_that_goes_again():
    made, _ = sender(3 * UNIT_BYTES, window_bytes=1)  # one train at a time
    assert len(sent(made, 0.0)) == 44
    made.congestion.window_bytes = 10**9
    assert len(sent(made, 0.05)) == 88
    made.receive_units(Units(((0, 2**44 - 1 - 0b101), (1, 2**44 - 1))), 0.12)
    assert sent(made, 0.12) == []  # too early to tell loss from reordering
    deadline = made.next_deadline()
    assert deadline == pytest.approx(0.0 + 0.1 * 1.25, abs=0.02)
    made.on_timeout(deadline + 1e-9)
    again = sent(made, deadline + 1e-9)
    assert again == [(3, 0, 0, 0), (3, 1, 2, 0)]
    assert made.resent_segments == 2


def test_without_a_later_acknowledgement_nothing_is_lost_before_the_probe_timeout():
    made, _ = sender(UNIT_BYTES)
    sent(made, 0.0)
    made.receive_units(Units(((0, 0b1),)), 0.1)
    made.on_timeout(0.2)
    assert sent(made, 0.2) == []


def test_a_probe_is_small_and_the_next_one_waits_twice_as_long():
    made, _ = sender()
    sent(made, 0.0)
    first = made.next_deadline()
    made.on_timeout(first)
    assert len(sent(made, first)) == PROBE_SEGMENTS
    assert sent(made, first + 0.001) == []
    second = made.next_deadline()
    assert second - first == pytest.approx(2 * first, rel=0.01)
    made.receive_units(acked(10), second)  # somebody is there again: the rest goes
    assert len(sent(made, second)) == 440 - PROBE_SEGMENTS


def test_acknowledgements_of_trains_never_sent_or_sent_before_change_nothing():
    made, upload = sender()
    sent(made, 0.0)
    made.receive_units(acked(77, 2**32 - 1), 0.1)
    assert not upload.is_done
    made.receive_units(acked(0), 0.1)
    made.receive_units(acked(0), 0.2)
    assert made.resent_segments == 0


def test_who_acknowledges_a_number_that_was_left_out_is_found_out():
    estimator = Rtt()
    made = TrainSender(bytes(8), estimator, Open(10**9), lambda: 100)
    made.add(Upload(bytes(20), 5, [memoryview(bytes(200 * UNIT_BYTES))], bytes(32), UNIT_BYTES))
    numbers = {train for _ in range(9) for train, *_ in sent(made, 0.0)}
    assert set(range(202)) - numbers == {3, 105}  # 100 // 32, and a hundred and one later
    for number in sorted(numbers)[:50]:
        assert made.receive_units(acked(number), 0.1)
    assert made.receive_units(Units(((3, 0),)), 0.1)
    assert made.receive_units(acked(10**9), 0.1)
    assert not made.receive_units(acked(104, 105, 106), 0.1)


def test_a_probe_that_is_answered_shows_what_was_lost_before():
    made, _ = sender(2 * UNIT_BYTES)
    sent(made, 0.0)
    probe_at = made.next_deadline()
    made.on_timeout(probe_at)
    assert sent(made, probe_at) == [(2, 0, 42, 1), (2, 1, 43, 1)]  # the newest
    made.receive_units(acked(2), probe_at + 0.1)
    again = sent(made, probe_at + 0.1)
    assert [(unit, segment) for *_, segment, unit in again] == [
        *((0, segment) for segment in range(44)),
        *((1, segment) for segment in range(42)),
    ]


def test_what_was_taken_for_lost_too_soon_makes_patient():
    made, _ = sender(3 * UNIT_BYTES, window_bytes=1)
    sent(made, 0.0)
    made.congestion.window_bytes = 10**9
    sent(made, 0.01)
    made.receive_units(acked(1), 0.12)
    made.on_timeout(0.2)
    assert sent(made, 0.2)[0] == (3, 0, 0, 0)
    made.receive_units(acked(0), 0.21)  # it was only late
    made.add(Upload(bytes([1]) * 20, 6, [memoryview(bytes(10))], bytes(32), UNIT_BYTES))
    sent(made, 0.22)
    made.receive_units(acked(2), 0.23)
    assert made._patience == 2.0


def test_a_slow_path_gets_a_unit_in_pieces():
    made, upload = sender(UNIT_BYTES)
    made.congestion.segments = lambda size, most: 10
    first = list(made.bursts_to_send(0.0))
    assert [heads(burst)[0] for burst in first] == [
        (0, 0, 0, 0), (1, 0, 10, 0), (2, 0, 20, 0), (3, 0, 30, 0), (4, 0, 40, 0)
    ]  # fmt: skip
    assert [len(heads(burst)) for burst in first] == [10, 10, 10, 10, 4]
    made.receive_units(acked(*range(5)), 0.1)
    assert upload.is_done


def test_a_unit_whose_upload_is_cancelled_halfway_is_not_sent_on():
    made, upload = sender(UNIT_BYTES)
    made.congestion.segments = lambda size, most: 10
    next(made.bursts_to_send(0.0))
    made.cancel(upload.transfer_id)
    assert sent(made, 0.0) == []


def test_a_cancelled_upload_is_not_sent_again():
    made, upload = sender()
    sent(made, 0.0)
    made.cancel(upload.transfer_id)
    made.on_timeout(made.next_deadline())
    assert sent(made, 1.0) == []
    assert made.take_finished() == []


def other(number=1, value_bytes=10):
    value = [memoryview(bytes(value_bytes))]
    return Upload(bytes([number]) * 20, 6, value, bytes(32), UNIT_BYTES)


def test_what_comes_after_a_cancelled_upload_is_sent_though_nothing_was_acknowledged():
    made, upload = sender(UNIT_BYTES)
    sent(made, 0.0)
    made.cancel(upload.transfer_id)
    now = 0.0
    while (deadline := made.next_deadline()) is not None:
        now = deadline
        made.on_timeout(now)
        assert sent(made, now) == []
    made.add(other())
    assert [(segment, unit) for _, _, segment, unit in sent(made, now)] == [(0, 0)]


def test_a_probe_of_what_was_cancelled_is_something_new():
    made, upload = sender(UNIT_BYTES, window_bytes=1)
    sent(made, 0.0)
    made.cancel(upload.transfer_id)
    made.add(other())
    now = made.next_deadline()
    made.on_timeout(now)
    assert len(sent(made, now)) == 1


def test_of_cancelled_uploads_no_bytes_are_kept():
    made, _ = sender(window_bytes=1)
    sent(made, 0.0)  # the first one goes on
    for number in range(1, 10):
        value = bytearray(10 * UNIT_BYTES)
        upload = Upload(bytes([number]) * 20, 6, [memoryview(value)], bytes(32), UNIT_BYTES)
        made.add(upload)
        made.cancel(upload.transfer_id)
        del upload
        value.clear()  # BufferError if somebody has a view of it
        assert not value


def test_a_cancelled_upload_keeps_no_ciphertext_while_its_trains_are_on_their_way():
    made, upload = sender()
    sent(made, 0.0)
    assert upload.units
    made.cancel(upload.transfer_id)
    assert not upload.units


def test_one_wake_up_sends_so_much_at_most_however_fast_the_path_seems_to_be():
    made, upload = sender(100 * UNIT_BYTES)
    sizes = []
    while not upload.is_done:
        bursts = list(made.bursts_to_send(0.0))
        sizes.append(sum(len(b) for burst in bursts for b in burst.buffers))
        made.receive_units(acked(*range(100)), 0.0)
    assert len(sizes) > 1
    assert max(sizes) < 1.1 * BYTES_AT_ONCE


def test_uploads_are_sent_in_order_of_arrival():
    made, _ = sender(UNIT_BYTES)
    made.add(Upload(bytes([1]) * 20, 6, [memoryview(bytes(10))], bytes(32), UNIT_BYTES))
    slots = [UNIT_HEAD.unpack(b.buffers[0])[4] for b in made.bursts_to_send(0.0)]
    assert slots == [5, 6]
    assert made.active == 2


def test_an_empty_upload_is_finished_at_once():
    made, _ = sender(0)
    assert len(made.take_finished()) == 1
    assert sent(made, 0.0) == []


# --- The receiving end ---------------------------------------------------------------------------


def test_each_train_is_acknowledged_once_for_each_time_something_new_came():
    receiver = TrainReceiver()
    receiver.receive(7, 0)
    receiver.receive(7, 3)
    assert list(receiver.units_to_send(1)) == [Units(((7, 0b1001),))]
    assert list(receiver.units_to_send(2)) == []


def test_while_many_trains_come_some_are_acknowledged_together():
    receiver = TrainReceiver()
    told = []
    for train in range(100):
        now = train / 10_000
        receiver.receive(train, 0)
        told += [(now, units) for units in receiver.units_to_send(now)]
    assert [now for now, _ in told] == pytest.approx([n / 1000 for n in range(10)], abs=2e-4)
    assert receiver.next_deadline() == pytest.approx(0.010, abs=2e-4)
    assert list(receiver.units_to_send(0.011))
    assert receiver.next_deadline() is None


def test_very_many_are_acknowledged_at_once():
    receiver = TrainReceiver()
    receiver.receive(0, 0)
    assert list(receiver.units_to_send(0))
    for train in range(1, TRAINS_AT_ONCE + 1):
        assert not list(receiver.units_to_send(0))
        receiver.receive(train, 0)
    assert list(receiver.units_to_send(0))


def test_the_last_trains_are_repeated_lest_an_acknowledgement_was_lost():
    receiver = TrainReceiver()
    for train in range(10):
        receiver.receive(train, 0)
        list(receiver.units_to_send(train))
    receiver.receive(10, 0)
    (units,) = receiver.units_to_send(10)
    assert sorted(train for train, _ in units.pairs) == list(range(11 - REPEATED_PAIRS, 11))


def test_what_an_acknowledgement_told_is_told_once_more_by_the_next():
    receiver = TrainReceiver()
    for train in range(20):
        receiver.receive(train, 0)
    list(receiver.units_to_send(5))  # lost
    receiver.receive(20, 0)
    (units,) = receiver.units_to_send(6)
    assert sorted(train for train, _ in units.pairs) == list(range(21))
    receiver.receive(21, 0)
    (units,) = receiver.units_to_send(7)
    assert len(units.pairs) == REPEATED_PAIRS


def test_many_trains_are_acknowledged_in_several_frames_and_old_ones_forgotten():
    receiver = TrainReceiver()
    for train in range(TRAINS_REMEMBERED_MAX + 50):
        receiver.receive(train, train % 64)
    frames = list(receiver.units_to_send(8))
    assert max(len(frame.pairs) for frame in frames) <= UNIT_PAIRS_MAX
    trains = [train for frame in frames for train, _ in frame.pairs]
    assert sorted(trains) == list(range(50, TRAINS_REMEMBERED_MAX + 50))


def test_what_is_to_be_acknowledged_is_bounded():
    receiver = TrainReceiver()
    for train in range(10_000):
        receiver.receive(train, 0)
    pairs = sum(len(units.pairs) for units in receiver.units_to_send(9))
    assert pairs <= 256 + 4
