"""Congestion control: what it makes of a bottleneck, in a model of one."""

import pytest

from bytestag.network import congestion as c
from bytestag.network.congestion import Congestion
from tests.network.link_model import Run, link

MBIT = 20
IDEAL = MBIT * 1e6 / 8 * 1428 / 1480
"""Bytes of units a second that the link takes."""
LONG = pytest.mark.long
QUEUES = (0.1, 1, 10)
"""In products of rate and delay."""


def share(run, seconds=12, measured_from=4, ideal=IDEAL):
    """Return how much of the link was used, and what share of what was sent was sent again."""
    outcome = run.run(seconds, measured_from)
    return outcome.goodput / ideal, outcome.resent / outcome.sent


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("rtt_ms", [*(pytest.param(ms, marks=LONG) for ms in (10, 200)), 50])
@pytest.mark.parametrize("loss", [0.01, *(pytest.param(p, marks=LONG) for p in (0, 0.02, 0.05))])
def test_random_loss_costs_little_more_than_what_is_lost(loss, rtt_ms, queue):
    used, resent = share(Run(*link(MBIT, rtt_ms, queue, loss)))
    assert used >= 0.9 * (1 - loss)
    assert resent <= loss + (0.01 if queue >= 1 else 0.04)  # less room than one round's probe


def test_what_slows_down_at_every_loss_is_dead_at_one_in_a_hundred(monkeypatch):
    class Halving(Congestion):
        """Slow start and halving, as Reno."""

        window = 48 * 1024
        threshold = 10**9
        halved_at = 0.0
        send_at = lambda self: 0.0  # noqa: E731

        @property
        def window_bytes(self):
            return self.window

        def acked(self, size, snapshot, now):
            super().acked(size, snapshot, now)
            self.now = now
            is_slow_start = self.window < self.threshold
            self.window += size if is_slow_start else size * 1452 / self.window

        def lost(self, size, snapshot):
            if self.now > self.halved_at + 0.05:
                self.window = self.threshold = max(self.window / 2, 4 * 1452)
                self.halved_at = self.now

    used, _ = share(Run(*link(MBIT, 50, 1, 0.02), congestion=Halving(2**21)))
    assert used < 0.3


def test_lost_acknowledgements_cost_nothing():
    there, back = link(MBIT, 50)
    back.loss = 0.3
    used, resent = share(Run(there, back))
    assert used > 0.95
    assert resent < 0.02


@pytest.mark.parametrize("jitter", [0.001, 0.02])
def test_reordering_is_told_from_loss(jitter):
    used, resent = share(Run(*link(MBIT, 50, jitter=jitter)))
    assert used > 0.95
    assert resent < 0.03


@pytest.mark.parametrize(("before", "after"), [(5, MBIT), (MBIT, 5)])
def test_a_rate_that_changes_is_found_within_two_seconds(before, after):
    there, back = link(before, 50)
    there.queue_bytes = MBIT * 1e6 / 8 * 0.05
    run = Run(there, back)
    run.at(6, lambda: setattr(there, "rate", after * 1e6 / 8))
    used, _ = share(run, 12, 8, IDEAL * after / MBIT)
    assert used > 0.9


def test_a_receiver_that_stalls_gets_all_when_it_goes_on():
    run = Run(*link(MBIT, 50))
    run.at(5, lambda: setattr(run, "is_stalled", True))
    run.at(7, run.resume)
    used, resent = share(run, 12, 8)
    assert used > 0.95
    assert resent < 0.02


def test_pauses_of_the_application_are_not_taken_for_the_paths_rate():
    run = Run(*link(MBIT, 50), data_bytes=0)

    def more():
        run.left = 100_000 if run.now < 6 else None
        run._pump()
        if run.left is not None:
            run.at(run.now + 0.5, more)

    run.at(0, more)
    used, _ = share(run, 12, 7)
    assert used > 0.9


def test_too_much_loss_slows_down_but_not_to_a_halt():
    used, _ = share(Run(*link(MBIT, 50, 1, 0.15)), 12, 5)
    assert used > 0.6


def test_the_background_manner_leaves_queues_short_and_uses_what_is_free():
    run = Run(*link(MBIT, 50, 10), congestion=Congestion(2**21, c.BACKGROUND_QUEUE_SECONDS))
    run.run(4)
    run.there.queue_seconds = 0
    used, _ = share(run, 10, 4)
    assert used > 0.95
    assert run.there.queue_seconds <= 0.020


@pytest.mark.parametrize(
    ("queue_seconds", "most"), [(c.BACKGROUND_QUEUE_SECONDS, 0.2), (c.NORMAL_QUEUE_SECONDS, 2.0)]
)
def test_the_background_manner_yields_to_who_keeps_a_queue_filled_and_comes_back(
    queue_seconds, most
):
    ideal = IDEAL * 5 / MBIT
    run = Run(*link(5, 50, 10), congestion=Congestion(2**21, queue_seconds))
    run.run(3)
    run.there.others_seconds = 0.06
    used, _ = share(run, 30, 12, ideal)  # another manner would trust the longer delay by then
    is_background = queue_seconds == c.BACKGROUND_QUEUE_SECONDS
    assert used < most
    assert used > 0.02 if is_background else used > 0.4
    if is_background:  # nor for some minutes
        used, _ = share(run, 180, 160, ideal)
        assert used < most
    run.there.others_seconds = 0.0
    used, _ = share(run, run.now + 20, run.now + 12, ideal)
    assert used > 0.9


def test_whatever_is_acknowledged_lost_or_delayed_the_next_datagram_is_seconds_away():
    congestion = Congestion(0)
    now = 0.0
    for _ in range(1000):  # half of all is lost, and what arrives is late
        kept = congestion.sent(1452, 0, now)
        gone = congestion.sent(1452, 1452, now)
        now += 3.0
        congestion.lost(1452, gone)
        congestion.acked(1452, kept, now)
        congestion.ack_ended(0, now)
        assert congestion.send_at() < now + 5
        now = max(now, congestion.send_at())


def test_another_path_is_learnt_anew_and_nothing_of_it_from_what_was_sent_before():
    run = Run(*link(100, 10))
    run.run(3)
    congestion = run.sender.congestion
    fast = congestion.rate

    def move():
        congestion.path_changed(run.now)
        assert (congestion.rate, congestion.window_bytes) == (0, c.INITIAL_BYTES)
        run.there.rate, run.there.delay = MBIT * 1e6 / 8, 0.1  # what is on its way still arrives
        run.there.queue_bytes = MBIT * 1e6 / 8 * 0.2

    run.at(3.0, move)
    run.run(3.5)
    assert 0 < congestion.rate < fast / 3
    assert congestion.delay > 0.1
    used, _ = share(run, 8, 4.5)
    assert used > 0.9


def test_the_window_never_exceeds_its_bound():
    run = Run(*link(MBIT, 200, 10), congestion=Congestion(2**21, window_bytes_max=100_000))
    most = 0

    def look():
        nonlocal most
        most = max(most, run.sender._in_flight)
        run.at(run.now + 0.01, look)

    run.at(0, look)
    run.run(5)
    assert 50_000 < most < 100_000 + 65_536
