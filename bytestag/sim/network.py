"""VirtualNetwork: datagrams that are delayed, lost, repeated, reordered, spoiled (shell).

Its endpoints are the third implementation of :class:`bytestag.network.endpoint.Endpoint`. Chance
comes from the seed alone: the same program with the same seed gives the same :attr:`trace`.

A path has one latency, made of a share of each of its two hosts; ``jitter`` is added for each
datagram and is what reorders them.
"""

from __future__ import annotations

import asyncio
import math
import random
import struct
from collections import Counter
from collections.abc import Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass

from bytestag.crypto.identity import Address
from bytestag.errors import AddressInUse
from bytestag.hashing import blake3_hasher
from bytestag.network.endpoint import Receiver
from bytestag.network.trains import Burst

FIRST_PORT = 49_152
BURST_BYTES = 2 * 1024 * 1024
HELD_BYTES_MAX = 256 * 1024
"""What waits for a frozen receiver, of the order of what Linux grants; more is dropped."""
MTU_BYTES = 1472
"""Ethernet's 1,500 less the headers of IPv4 and UDP; longer datagrams are dropped."""
Place = str | Address
Batch = list[tuple[bytes, Address]]
"""Datagrams with their sources, for one receiver."""
_TRACED = struct.Struct(">dHHI")


@dataclass(slots=True)
class Conditions:
    """What the network does to datagrams; chances in 0..1, times in seconds. May be changed."""

    latency: float = 0.05
    """Median of one way."""
    spread: float = 0.5
    """Sigma of the lognormal latency of paths; 0 gives all paths the same."""
    jitter: float = 0.0
    """Up to this is added to each datagram: what reorders them."""
    loss: float = 0.0
    duplication: float = 0.0
    corruption: float = 0.0
    """Chance that one bit is flipped."""
    mtu_bytes: int = MTU_BYTES


class VirtualEndpoint:
    """A bound address in a virtual network."""

    def __init__(self, network: VirtualNetwork, address: Address, receiver: Receiver) -> None:
        self._network = network
        self.receiver = receiver
        self.address = address
        self.burst_bytes = BURST_BYTES
        self.counters: Counter[str] = Counter()
        self.is_closed = False
        self.context = copy_context()
        """Where the receiver is called: what it starts belongs to whoever opened the endpoint."""
        self._held: Batch | None = None
        self._held_bytes = 0

    def send(self, datagram: bytes, address: Address) -> None:
        """Send one datagram; nothing after :meth:`close`."""
        if not self.is_closed:
            self._network.inject(bytes(datagram), self.address, address)

    def send_burst(self, burst: Burst, address: Address) -> None:
        """Send the datagrams of a train in order."""
        joined = b"".join(burst.buffers)
        for start in range(0, len(joined), burst.segment_bytes):
            self.send(joined[start : start + burst.segment_bytes], address)

    def close(self) -> None:
        """Stop receiving and free the port; idempotent."""
        if not self.is_closed:
            self.is_closed = True
            self._network.forget(self)

    # --- A receiver that stands still ------------------------------------------------------------

    def hold(self) -> None:
        """Keep what comes, up to 256 KiB, until :meth:`release`; idempotent."""
        if self._held is None:
            self._held, self._held_bytes = [], 0

    def release(self) -> None:
        """Hand over what was kept, at once; idempotent."""
        held, self._held = self._held, None
        if held:
            self._network.hand_over(self, held)

    def keeps(self, batch: Batch) -> bool:
        """Take a batch if the receiver stands still; return whether."""
        if self._held is None:
            return False
        for datagram, source in batch:
            if self._held_bytes + len(datagram) > HELD_BYTES_MAX:
                self._network.counters["held too long"] += 1
            else:
                self._held.append((datagram, source))
                self._held_bytes += len(datagram)
        return True


class VirtualNetwork:
    """Joins endpoints on one loop. ``counters`` tells what became of the datagrams."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seed: object = 0,
        conditions: Conditions | None = None,
    ) -> None:
        self.conditions = conditions or Conditions()
        self.counters: Counter[str] = Counter()
        self.bytes_sent = 0
        self._loop = loop
        self._seed = seed
        self._rng = random.Random(f"{seed} network")
        self._endpoints: dict[Address, VirtualEndpoint] = {}
        self._shares: dict[str, float] = {}
        self._batches: dict[tuple[Address, float], Batch] = {}
        self._context = Context()  # what is under way belongs to no sender
        self._cuts: list[tuple[frozenset[Place], frozenset[Place]]] = []
        self._trace = blake3_hasher()

    @property
    def trace(self) -> str:
        """A hash over time, source, destination and bytes of every datagram delivered so far."""
        return self._trace.digest().hex()

    @property
    def endpoints(self) -> tuple[VirtualEndpoint, ...]:
        return tuple(self._endpoints.values())

    async def open_endpoint(self, address: Address, receiver: Receiver) -> VirtualEndpoint:
        """Bind an address; port 0 gives a free one. Raises AddressInUse."""
        host, port = address
        if not port:
            port = FIRST_PORT
            while (host, port) in self._endpoints:
                port += 1
        if (host, port) in self._endpoints or port > 65_535:
            raise AddressInUse(
                f"cannot bind UDP {host}:{port}: it is taken", hint="choose another --port"
            )
        endpoint = VirtualEndpoint(self, (host, port), receiver)
        self._endpoints[host, port] = endpoint
        return endpoint

    def forget(self, endpoint: VirtualEndpoint) -> None:
        """Free the address of a closed endpoint."""
        if self._endpoints.get(endpoint.address) is endpoint:
            del self._endpoints[endpoint.address]

    def close(self) -> None:
        """Close all endpoints; what is under way is lost."""
        for endpoint in self.endpoints:
            endpoint.close()

    # --- Partitions ------------------------------------------------------------------------------

    def partition(
        self, places_a: Iterable[Place], places_b: Iterable[Place], *, one_way: bool = False
    ) -> None:
        """Drop all datagrams from A to B, and back unless ``one_way``; hosts or addresses."""
        a, b = frozenset(places_a), frozenset(places_b)
        self._cuts.append((a, b))
        if not one_way:
            self._cuts.append((b, a))

    def heal(self) -> None:
        """End all partitions."""
        self._cuts.clear()

    def _is_cut(self, source: Address, destination: Address) -> bool:
        from_, to = {source, source[0]}, {destination, destination[0]}
        return any(from_ & a and to & b for a, b in self._cuts)

    # --- Datagrams -------------------------------------------------------------------------------

    def inject(self, datagram: bytes, source: Address, destination: Address) -> None:
        """Put a datagram on its way, with any source: addresses are as easily forged as in UDP."""
        conditions, rng = self.conditions, self._rng
        self.counters["sent"] += 1
        self.bytes_sent += len(datagram)
        if len(datagram) > conditions.mtu_bytes:
            self.counters["too long"] += 1
            return
        if self._cuts and self._is_cut(source, destination):
            self.counters["cut off"] += 1
            return
        copies = 1
        if conditions.duplication and rng.random() < conditions.duplication:
            self.counters["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            if conditions.loss and rng.random() < conditions.loss:
                self.counters["lost"] += 1
            else:
                self._dispatch(self._spoiled(datagram), source, destination)

    def _spoiled(self, datagram: bytes) -> bytes:
        chance = self.conditions.corruption
        if not (datagram and chance and self._rng.random() < chance):
            return datagram
        self.counters["corrupted"] += 1
        spoiled = bytearray(datagram)
        spoiled[self._rng.randrange(len(spoiled))] ^= 1 << self._rng.randrange(8)
        return bytes(spoiled)

    def _dispatch(self, datagram: bytes, source: Address, destination: Address) -> None:
        seconds = self.latency(source[0], destination[0])
        if self.conditions.jitter:
            seconds += self._rng.random() * self.conditions.jitter
        when = self._loop.time() + seconds
        batch = self._batches.get((destination, when))
        if batch is None:
            batch = self._batches[destination, when] = []
            self._loop.call_at(when, self._deliver, destination, when, context=self._context)
        batch.append((datagram, source))

    def latency(self, source: str, destination: str) -> float:
        """Return the seconds of one way between two hosts, without jitter."""
        return self._share(source) * self._share(destination) * self.conditions.latency

    def _share(self, host: str) -> float:
        """Return a host's factor: the product of two is lognormal with the wanted spread."""
        share = self._shares.get(host)
        if share is None:
            normal = random.Random(f"{self._seed} {host}").gauss(0.0, 1.0)
            share = math.exp(normal * self.conditions.spread / math.sqrt(2))
            self._shares[host] = share
        return share

    def _deliver(self, destination: Address, when: float) -> None:
        """Hand over what arrives here now, as one wake-up of a socket would."""
        batch = self._batches.pop((destination, when))
        endpoint = self._endpoints.get(destination)
        if endpoint is None:
            self.counters["to nobody"] += len(batch)
            return
        if not endpoint.keeps(batch):
            self.hand_over(endpoint, batch)

    def hand_over(self, endpoint: VirtualEndpoint, batch: Batch) -> None:
        """Let an open endpoint's receiver have these datagrams now."""
        endpoint.context.run(self._hand_over, endpoint, batch)

    def _hand_over(self, endpoint: VirtualEndpoint, batch: Batch) -> None:
        now = self._loop.time()
        for datagram, source in batch:
            if endpoint.is_closed:
                return
            self.counters["delivered"] += 1
            to = endpoint.address
            self._trace.update(_TRACED.pack(now, source[1], to[1], len(datagram)))
            self._trace.update(f"{source[0]} {to[0]} ".encode() + datagram)
            endpoint.receiver.datagram_received(memoryview(datagram), source)
        if not endpoint.is_closed:
            endpoint.receiver.wakeup_ended()
