"""Congestion: how fast to send, learnt from what arrives when (pure).

Shaped as BBR (Cardwell et al., ACM Queue 14(5), 2016; delivery rates as in
draft-cheng-iccrg-delivery-rate-estimation): the rate of a path is the most that was delivered in
the last ten rounds, its delay the least that was seen in ten seconds, and what is on its way is
kept near their product. A lost datagram alone slows nothing, for at one lost in a hundred CUBIC and
LEDBAT fall to a hundredth of the path; more than a tenth lost does. How much may wait in queues
beyond the product is the one knob of politeness. In the background manner a round in which no
datagram found a queue shorter than that is somebody else's doing, and is yielded to: without that
CUBIC, which fills any queue, is left three quarters of a path instead of nine tenths.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from typing import NamedTuple

NORMAL_QUEUE_SECONDS = 0.040
BACKGROUND_QUEUE_SECONDS = 0.015
STARTUP_GAIN = 2.77
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
RATE_ROUNDS = 10
DELAY_SECONDS = 10.0
BASE_SECONDS = 120.0
"""Who yields believes a longer delay so much later, and step by step: the queues of others are not
the path."""
YIELD_ABOVE = 1.25
YIELD_FACTOR = 0.7
PROBE_DELAY_SECONDS = 0.2
GROWTH = 1.25
ROUNDS_WITHOUT_GROWTH = 3
LOSS_MAX = 0.1
OVERSHOT = 0.2
"""So much is lost when a start runs over a queue that is short."""
LOSS_ROUNDS = 4
LOSS_FACTOR = 0.85
LOSS_MORE = 1.25
LOSS_FORGOTTEN_ROUNDS = 64
INITIAL_BYTES = 48 * 1024
WINDOW_BYTES_MIN = 4 * 1452
RATE_MIN = 4 * 1024.0
"""Whoever sends less shows less: without a floor there would be no way back."""
TICK_SECONDS = 0.001
"""Timers are not finer: so much is sent at one go."""
TRAIN_SEGMENTS_MIN = 2


class Snapshot(NamedTuple):
    """What was known when something was sent; its acknowledgement brings it back."""

    sent: float
    delivered: int
    delivered_at: float
    first_sent: float
    is_limited: bool
    """Whether it was not the path that held us up."""


class Phase(enum.Enum):
    """What the sender is after."""

    STARTUP = enum.auto()
    DRAIN = enum.auto()
    CRUISE = enum.auto()
    DELAY = enum.auto()
    """Keep little on its way for a moment, to see the delay of empty queues."""


class Congestion:
    """The window and the pace of one path. Times are seconds, sizes bytes."""

    def __init__(
        self,
        burst_bytes: int,
        queue_seconds: float = NORMAL_QUEUE_SECONDS,
        window_bytes_max: float = math.inf,
    ) -> None:
        self.queue_seconds = queue_seconds
        self._yields = queue_seconds <= BACKGROUND_QUEUE_SECONDS
        self._is_yielding = False
        self._window: float | None = None
        self._pace: float | None = None
        """Both are asked for each train, and change when something is acknowledged."""
        self._burst_bytes = burst_bytes
        self._window_bytes_max = window_bytes_max
        self._phase = Phase.STARTUP
        self._phase_since = 0.0
        self._cycle = 0
        self._delivered = 0
        self._delivered_at = 0.0
        self._first_sent = 0.0
        self._limited_until = 0
        self._round = 0
        self._round_end = 0
        self._rates: deque[tuple[int, float]] = deque()
        """(round, bytes a second), falling: the first is the largest of the last rounds."""
        self._delay = math.inf
        self._delay_at = 0.0
        """When it was looked for or seen."""
        self._delay_seen_at = 0.0
        self._queued_seconds = 0.0
        """How long the last datagram acknowledged had waited in queues."""
        self._least_queued = math.inf
        """The same, the least of this round."""
        self._full_rate = 0.0
        self._rounds_without_growth = 0
        self._losses: deque[tuple[int, int]] = deque([(0, 0)], maxlen=LOSS_ROUNDS)
        """(delivered, lost) of the last rounds."""
        self._loss_max = LOSS_MAX
        """The share of what is sent that may be lost."""
        self._next_send = 0.0
        self._newest: Snapshot | None = None
        self._since = 0.0
        """When this path was taken; what was sent before shows nothing of it."""

    # --- What may be sent ------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """What the path delivers, bytes a second; 0 before anything is known."""
        return max(self._rates[0][1], RATE_MIN) if self._rates else 0.0

    @property
    def delay(self) -> float:
        """The least round trip seen of late, seconds; infinity before the first."""
        return self._delay

    @property
    def delivered(self) -> int:
        """Bytes acknowledged since the session began."""
        return self._delivered

    @property
    def window_bytes(self) -> float:
        """How much may be on its way."""
        if self._window is None:
            self._window = self._find_window()
        return self._window

    def _find_window(self) -> float:
        if not self._rates or self._delay == math.inf:
            return min(INITIAL_BYTES, self._window_bytes_max)
        product = self.rate * self._delay
        if self._phase is Phase.DELAY:
            window = product / 2
        else:
            least = WINDOW_BYTES_MIN if self._is_yielding else INITIAL_BYTES
            queue = max(min(self.queue_seconds * self.rate, self._burst_bytes), least)
            window = 2 * product + self._tick_bytes * 3
            if self._phase is not Phase.STARTUP or self._queued_seconds >= self.queue_seconds / 4:
                window = min(window, product + queue)
        return min(max(window, WINDOW_BYTES_MIN), self._window_bytes_max)

    @property
    def pace(self) -> float:
        """Bytes a second that may be sent."""
        if self._pace is None:
            self._pace = self._find_pace()
        return self._pace

    def _find_pace(self) -> float:
        if not self._rates:
            delay = self._delay if self._delay < math.inf else 0.1
            return STARTUP_GAIN * INITIAL_BYTES / max(delay, TICK_SECONDS)
        match self._phase:
            case Phase.STARTUP:
                return STARTUP_GAIN * self.rate
            case Phase.DRAIN:
                return self.rate / STARTUP_GAIN
            case Phase.CRUISE:
                return CYCLE[self._cycle] * self.rate
        return self.rate

    def segments(self, datagram_bytes: int, most: int) -> int:
        """Return how many datagrams to send as one train: about a tick's worth."""
        return min(max(int(self._tick_bytes / datagram_bytes), TRAIN_SEGMENTS_MIN), most)

    @property
    def _tick_bytes(self) -> float:
        return self.pace * TICK_SECONDS

    def send_at(self) -> float:
        """Return from when on the pace allows to send more."""
        return self._next_send - TICK_SECONDS

    # --- What happens ----------------------------------------------------------------------------

    def sent(self, size: int, in_flight: int, now: float) -> Snapshot:
        """Bytes are sent; return what :meth:`acked` will want to know. ``in_flight`` is before."""
        if not in_flight:
            self._first_sent = self._delivered_at = now
        self._next_send = max(self._next_send, now - TICK_SECONDS) + size / self.pace
        is_limited = self._limited_until > self._delivered
        return Snapshot(now, self._delivered, self._delivered_at, self._first_sent, is_limited)

    def limited(self, in_flight: int) -> None:
        """There is nothing to send, though the window has room: what comes now shows no rate."""
        self._limited_until = self._delivered + max(in_flight, 1)

    def acked(self, size: int, snapshot: Snapshot, now: float) -> None:
        """Bytes were acknowledged; after the last of an acknowledgement: :meth:`ack_ended`."""
        if snapshot.sent < self._since:
            return
        self._delivered += size
        self._delivered_at = now
        delivered, lost = self._losses[-1]
        self._losses[-1] = delivered + size, lost
        if self._newest is None or snapshot.sent >= self._newest.sent:
            self._newest = snapshot

    def lost(self, size: int, snapshot: Snapshot) -> None:
        """Bytes were lost."""
        if snapshot.sent < self._since:
            return
        delivered, lost = self._losses[-1]
        self._losses[-1] = delivered, lost + size

    def ack_ended(self, in_flight: int, now: float) -> None:
        """Learn from an acknowledgement; ``in_flight`` is what is still on its way."""
        newest, self._newest = self._newest, None
        self._window = self._pace = None
        if newest is None:
            return
        self._first_sent = newest.sent
        delay = max(now - newest.sent, 1e-6)
        self._queued_seconds = delay - min(self._delay, delay)
        self._least_queued = min(self._least_queued, self._queued_seconds)
        has_expired = now > self._delay_at + DELAY_SECONDS
        if delay <= self._delay or (has_expired and self._may_be_longer(now)):
            # Others may have kept a queue filled all the time.
            most = self._delay + self.queue_seconds if self._yields else math.inf
            self._delay, self._delay_at, self._delay_seen_at = min(delay, most), now, now
        is_new_round = newest.delivered >= self._round_end
        if is_new_round:
            self._round += 1
            self._round_end = self._delivered
        elapsed = max(newest.sent - newest.first_sent, now - newest.delivered_at, self._delay)
        self._learn_rate((self._delivered - newest.delivered) / elapsed, newest.is_limited)
        if is_new_round:
            self._end_round(is_limited=newest.is_limited)
        self._go_on(in_flight, now, has_expired=has_expired)

    def _may_be_longer(self, now: float) -> bool:
        """Whether what is measured now, with little on its way, may be the path's delay."""
        is_old = not self._yields or now > self._delay_seen_at + BASE_SECONDS
        return is_old and self._phase is Phase.DELAY

    def path_changed(self, now: float) -> None:
        """Begin anew: what one path takes says nothing about another (RFC 9000, 9.4)."""
        self._window = self._pace = None
        self._since = self._first_sent = self._delivered_at = self._next_send = now
        self._rates.clear()
        self._delay, self._delay_at = math.inf, now
        self._full_rate, self._rounds_without_growth = 0.0, 0
        self._is_yielding = False
        self._losses = deque([(0, 0)], maxlen=LOSS_ROUNDS)
        self._loss_max = LOSS_MAX
        self._enter(Phase.STARTUP, now)

    def _learn_rate(self, rate: float, is_limited: bool) -> None:
        rates = self._rates
        if is_limited and rate <= self.rate:
            return
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((self._round, rate))
        while rates[0][0] <= self._round - RATE_ROUNDS:
            rates.popleft()

    def _end_round(self, *, is_limited: bool) -> None:
        delivered = sum(size for size, _ in self._losses)
        lost = sum(size for _, size in self._losses)
        share = lost / max(delivered + lost, 1)
        is_lossy = share > self._loss_max
        if is_lossy and self._phase is not Phase.STARTUP:
            self._rates = deque([(self._round, self.rate * LOSS_FACTOR)])
            self._losses.clear()
            # If as much is lost when we send less, it is not we who cause it.
            self._loss_max = share * LOSS_MORE
        elif self._round % LOSS_FORGOTTEN_ROUNDS == 0:
            self._loss_max = LOSS_MAX
        self._losses.append((0, 0))
        if self._yields and self._phase is not Phase.STARTUP:
            self._yield()
        self._least_queued = math.inf
        if self._phase is not Phase.STARTUP or (is_limited and not is_lossy):
            return
        if self.rate >= self._full_rate * GROWTH and not is_lossy:
            self._full_rate, self._rounds_without_growth = self.rate, 0
        else:
            self._rounds_without_growth += ROUNDS_WITHOUT_GROWTH if share > OVERSHOT else 1

    def _yield(self) -> None:
        """Send less if all of this round found a queue that is longer than ours would be."""
        queued = self._least_queued
        self._is_yielding = self.queue_seconds * YIELD_ABOVE < queued < math.inf
        if self._is_yielding:
            least = WINDOW_BYTES_MIN / (self._delay + queued)
            self._rates = deque([(self._round, max(self.rate * YIELD_FACTOR, least))])

    def _go_on(self, in_flight: int, now: float, *, has_expired: bool) -> None:
        """Pass to the phase that is due."""
        product = self.rate * self._delay
        spent = now - self._phase_since
        match self._phase:
            case Phase.STARTUP if self._rounds_without_growth >= ROUNDS_WITHOUT_GROWTH:
                self._enter(Phase.DRAIN, now)
            case Phase.DRAIN if in_flight <= product:
                self._enter(Phase.CRUISE, now)
            case Phase.CRUISE:
                gain = CYCLE[self._cycle]
                if spent > self._delay or (gain < 1 and in_flight <= product):
                    self._cycle = (self._cycle + 1) % len(CYCLE)
                    self._phase_since = now
            case Phase.DELAY if spent > max(PROBE_DELAY_SECONDS, 2 * self._delay):
                self._delay_at = now
                self._enter(Phase.CRUISE, now)
        if has_expired and self._phase in (Phase.CRUISE, Phase.DRAIN):
            self._enter(Phase.DELAY, now)

    def _enter(self, phase: Phase, now: float) -> None:
        self._phase, self._phase_since = phase, now
        self._cycle = 2
