"""A bottleneck between a TrainSender and a TrainReceiver, in virtual time (no sockets, no loop)."""

import heapq
import itertools
import random
from dataclasses import dataclass

from bytestag.network.arrivals import TrainReceiver
from bytestag.network.congestion import Congestion
from bytestag.network.rtt import Rtt
from bytestag.network.trains import TrainSender
from bytestag.network.units import UNIT_HEAD, Upload, unit_bytes_for

DATAGRAM_BYTES = 1452
IP_BYTES = 28
UNIT_BYTES = unit_bytes_for(DATAGRAM_BYTES)
VALUE_BYTES = 4 * UNIT_BYTES
WAKEUP_SECONDS = 0.001


@dataclass
class Path:
    """One way: bytes a second, seconds, and what a queue holds."""

    rate: float
    delay: float
    queue_bytes: float
    loss: float = 0.0
    jitter: float = 0.0
    busy_until: float = 0.0
    dropped: int = 0
    queue_seconds: float = 0.0
    others_seconds: float = 0.0
    """How long a queue others keep filled, who send less when more comes."""

    def arrival(self, size, now, rng):
        """Return when a datagram arrives; None if it does not."""
        waiting = max(self.busy_until - now, self.others_seconds)
        if waiting * self.rate > self.queue_bytes:
            self.dropped += 1
            return None
        self.queue_seconds = max(waiting, self.queue_seconds)
        self.busy_until = now + waiting + size / self.rate
        if rng.random() < self.loss:
            return None
        return self.busy_until + self.delay + rng.random() * self.jitter


@dataclass
class Outcome:
    """What a run came to."""

    goodput: float
    """Bytes of units a second, from ``measured_from`` on."""
    resent: int
    sent: int
    dropped: int
    queue_seconds: float
    delivered: list


class Run:
    """Sends for some virtual seconds over a path and back; ``at`` changes things on the way."""

    def __init__(self, there, back, *, seed=1, congestion=None, data_bytes=None):
        self.there, self.back = there, back
        self.rng = random.Random(seed)
        self.sender = TrainSender(bytes(8), Rtt(), congestion or Congestion(2**21))
        self.sender.datagram_bytes = DATAGRAM_BYTES
        self.receiver = TrainReceiver()
        self.now = 0.0
        self.sent = 0
        self.got = set()
        self.delivered = []
        """(time, bytes that were new)."""
        self.left = data_bytes
        self.is_stalled = False
        self._held = []
        self._events = []
        self._order = itertools.count()
        self._ids = itertools.count()
        self._ack_due = False
        self._wake_at = None

    def at(self, time, action):
        heapq.heappush(self._events, (time, next(self._order), action))

    def run(self, seconds, measured_from=0.0):
        self.at(self.now, self._pump)
        while self._events and self._events[0][0] <= seconds:
            self.now, _, action = heapq.heappop(self._events)
            action()
        body = sum(size for time, size in self.delivered if time >= measured_from)
        return Outcome(
            body / (seconds - measured_from),
            self.sender.resent_segments,
            self.sent,
            self.there.dropped,
            self.there.queue_seconds,
            self.delivered,
        )

    def _feed(self):
        self.sender.take_finished()
        while self.sender.active < 24 and (self.left is None or self.left > 0):
            id_ = next(self._ids).to_bytes(20, "big")
            size = VALUE_BYTES if self.left is None else min(VALUE_BYTES, self.left)
            if self.left is not None:
                self.left -= size
            value = [memoryview(bytes(size))]
            self.sender.add(
                Upload(id_, int.from_bytes(id_, "big") % 65536, value, bytes(32), UNIT_BYTES)
            )

    def _pump(self):
        self._feed()
        for burst in self.sender.bursts_to_send(self.now):
            joined = b"".join(burst.buffers)
            for start in range(0, len(joined), burst.segment_bytes):
                self._send(joined[start : start + burst.segment_bytes])
        deadline = self.sender.next_deadline()
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = max(deadline, self.now + 1e-6)
            self.at(self._wake_at, self._on_timer)

    def _on_timer(self):
        if self.now != self._wake_at:
            return  # an earlier one was set meanwhile
        self._wake_at = None
        self.sender.on_timeout(self.now)
        self._pump()

    def _send(self, datagram):
        self.sent += 1
        arrival = self.there.arrival(len(datagram) + IP_BYTES, self.now, self.rng)
        if arrival is not None:
            head = UNIT_HEAD.unpack_from(datagram)
            self.at(arrival, lambda: self._receive(head, len(datagram)))

    def _receive(self, head, size):
        if self.is_stalled:
            self._held.append((head, size))
            return
        _, train, index, segment, slot, unit, _ = head
        self.receiver.receive(train, index)
        if (slot, unit, segment, train // 2**20) not in self.got:
            self.got.add((slot, unit, segment, train // 2**20))
            self.delivered.append((self.now, size - UNIT_HEAD.size))
        if not self._ack_due:
            self._ack_due = True
            self.at(self.now + WAKEUP_SECONDS, self._acknowledge)

    def resume(self):
        self.is_stalled = False
        held, self._held = self._held, []
        for head, size in held:
            self._receive(head, size)

    def _acknowledge(self):
        self._ack_due = False
        for units in self.receiver.units_to_send(self.now):
            size = 60 + 12 * len(units.pairs)
            arrival = self.back.arrival(size, self.now, self.rng)
            if arrival is not None:
                self.at(arrival, lambda units=units: self._receive_ack(units))
        deadline = self.receiver.next_deadline()
        if deadline is not None:
            self._ack_due = True
            self.at(deadline, self._acknowledge)

    def _receive_ack(self, units):
        self.sender.receive_units(units, self.now)
        self._pump()


def link(mbit, rtt_ms, queue_bdp=1.0, loss=0.0, **changes):
    """Return the two ways of a link."""
    rate, delay = mbit * 1e6 / 8, rtt_ms / 2000
    queue = max(queue_bdp * rate * 2 * delay, 3000)
    return Path(rate, delay, queue, loss, **changes), Path(rate, delay, 1e9, loss)
