"""Two machines joined by a wire that loses, repeats, reorders and delays (virtual time)."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field

from bytestag.crypto.identity import Identity
from bytestag.network.handshake import Initiator, Responder
from bytestag.network.session import Session
from bytestag.network.tokens import TokenMint

NETWORK = b"network!"
ALICE = ("127.0.0.1", 1001)
BOB = ("127.0.0.1", 1002)
ALICE_ID = Identity.from_bytes(bytes(range(64)))
BOB_ID = Identity.from_bytes(bytes(range(100, 164)))


def responder(identity=BOB_ID, rng=None, pow_bits=0):
    rng = rng or random.Random(5)
    mint = TokenMint(bytes(32))
    made = Responder(
        identity, NETWORK, mint, pow_bits=pow_bits, capabilities=1, burst_bytes=2**20,
        random_bytes=rng.randbytes,
    )  # fmt: skip
    return made, mint


def initiator(token=bytes(16), rng=None, identity=ALICE_ID, target=BOB_ID, network=NETWORK):
    rng = rng or random.Random(6)
    return Initiator(
        identity, network, target.node_id, target.static.public, BOB,
        capabilities=0, burst_bytes=2**20, token=token, random_bytes=rng.randbytes,
    )  # fmt: skip


def sessions(now=0.0, window_bytes=2**20, seed=7):
    """Return the two ends of a session after a handshake without trouble."""
    rng = random.Random(seed)
    answerer, mint = responder(rng=rng)
    asker = initiator(mint.issue(ALICE, now), rng)
    answer, theirs = answerer.receive(asker.datagram, ALICE, now)
    ours = asker.receive(answer)
    options = {
        "window_bytes": window_bytes,
        "idle_seconds": 600.0,
        "random_bytes": rng.randbytes,
    }
    return Session(ours, now, **options), Session(theirs, now, **options)


@dataclass
class Wire:
    """Chances in 0..1; delay in seconds, jittered by ``jitter``; larger than the MTU is refused."""

    seed: int = 0
    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.01
    jitter: float = 0.0
    mtu_bytes: int = 1472
    spoils_trains: bool = False
    """What is sent as a train and not cut before arrives nowhere."""
    rng: random.Random = field(init=False)

    def __post_init__(self):
        self.rng = random.Random(self.seed)

    def deliveries(self):
        """Return the delays of the copies that arrive."""
        copies = 1 + (self.rng.random() < self.duplication)
        return [
            self.delay + self.rng.random() * self.jitter
            for _ in range(copies)
            if self.rng.random() >= self.loss
        ]


class Pair:
    """Drives two sessions until nothing is left to do, or a time is reached."""

    def __init__(self, wire=None, **options):
        self.wire = wire or Wire()
        self.now = 0.0
        alice, bob = sessions(**options)
        self.alice, self.bob = alice, bob
        self.addresses = {id(alice): ALICE, id(bob): BOB}
        self.events = {id(alice): [], id(bob): []}
        self.bytes_sent = 0
        self._queue = []
        self._order = itertools.count()

    def other(self, session):
        return self.bob if session is self.alice else self.alice

    def events_of(self, session, kind):
        return [event for event in self.events[id(session)] if isinstance(event, kind)]

    def flush(self, session):
        self.events[id(session)].extend(session.take_events())
        for burst, _ in session.bursts_to_send(self.now):
            joined = b"".join(burst.buffers)
            if self.wire.spoils_trains and len(joined) > burst.segment_bytes and not burst.is_cut:
                continue
            for start in range(0, len(joined), burst.segment_bytes):
                datagram = joined[start : start + burst.segment_bytes]
                if len(datagram) > self.wire.mtu_bytes:
                    continue
                self.bytes_sent += len(datagram)
                for delay in self.wire.deliveries():
                    entry = (self.now + delay, next(self._order), session, datagram)
                    heapq.heappush(self._queue, entry)

    def drive(self, until, seconds=300.0):
        """Run until ``until()`` or the time is over; return whether it held."""
        end = self.now + seconds
        while not until() and self.now < end:
            for session in (self.alice, self.bob):
                self.flush(session)
            deadline = min(self.alice.next_deadline(), self.bob.next_deadline(), end)
            arrival = self._queue[0][0] if self._queue else end
            self.now = max(min(deadline, arrival), self.now)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, sender, datagram = heapq.heappop(self._queue)
                receiver = self.other(sender)
                receiver.receive(memoryview(datagram), self.addresses[id(sender)], self.now)
            for session in (self.alice, self.bob):
                if self.now >= session.next_deadline():
                    session.on_timeout(self.now)
        for session in (self.alice, self.bob):
            self.flush(session)
        return until()
