"""VirtualNetwork: datagrams that are delayed, queued, lost, repeated, reordered, spoiled (shell).

Chance comes from the seed alone: the same program with the same seed gives the same :attr:`trace`.
What is not asked for costs next to nothing: a large network carries millions of datagrams.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from contextvars import Context
from functools import partial

from bytestag.crypto.identity import Address
from bytestag.errors import AddressInUse
from bytestag.hashing import blake3_hasher
from bytestag.network.endpoint import OpenEndpoint, Receiver
from bytestag.sim.conditions import REORDERED_LATENCIES, Conditions, Place
from bytestag.sim.endpoint import Batch, VirtualEndpoint
from bytestag.sim.nat import NatBox
from bytestag.sim.paths import Paths
from bytestag.sim.uplinks import Uplink

FIRST_PORT = 49_152
_TRACED = struct.Struct(">dHHI")


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
        self._rng = random.Random(f"{seed} network")
        self._paths = Paths(seed)
        self._uplinks: dict[str, Uplink] = {}
        self._endpoints: dict[Address, VirtualEndpoint] = {}
        self._batches: dict[tuple[Address, float], Batch] = {}
        self._boxes: dict[str, NatBox] = {}
        """By the hosts behind them."""
        self._outer: dict[str, NatBox] = {}
        self._context = Context()  # what is under way belongs to no sender
        self._trace = blake3_hasher()

    @property
    def trace(self) -> str:
        """A hash over time, source, destination and bytes of every datagram delivered so far."""
        return self._trace.digest().hex()

    @property
    def endpoints(self) -> tuple[VirtualEndpoint, ...]:
        return tuple(self._endpoints.values())

    # --- Endpoints -------------------------------------------------------------------------------

    async def open_endpoint(
        self, address: Address, receiver: Receiver, *, host: str = ""
    ) -> VirtualEndpoint:
        """Bind an address; port 0 gives a free one. Raises AddressInUse.

        ``host`` is where 0.0.0.0 is.
        """
        is_everywhere = host and ipaddress.ip_address(address[0]).is_unspecified
        place = self._free(host if is_everywhere else address[0], address[1])
        endpoint = VirtualEndpoint(self, (address[0], place[1]), place, receiver)
        self._endpoints[place] = endpoint
        return endpoint

    def opener(self, host: str) -> OpenEndpoint:
        """Return :meth:`open_endpoint` as a machine has it whose address is ``host``."""
        return partial(self.open_endpoint, host=host)

    def move(self, endpoint: VirtualEndpoint, host: str) -> None:
        """Give a running endpoint's machine another address, as a roaming laptop gets one.

        What is under way to the old one is lost. Raises AddressInUse.
        """
        place = self._free(host, endpoint.place[1])
        self.forget(endpoint)
        endpoint.place = place
        self._endpoints[place] = endpoint

    def _free(self, host: str, port: int) -> Address:
        if not port:
            port = FIRST_PORT
            while (host, port) in self._endpoints:
                port += 1
        if (host, port) in self._endpoints or port > 65_535:
            raise AddressInUse(
                f"cannot bind UDP {host}:{port}: it is taken", hint="choose another --port"
            )
        return host, port

    def forget(self, endpoint: VirtualEndpoint) -> None:
        """Free the address of a closed endpoint."""
        if self._endpoints.get(endpoint.place) is endpoint:
            del self._endpoints[endpoint.place]

    def close(self) -> None:
        """Close all endpoints; what is under way is lost."""
        for endpoint in self.endpoints:
            endpoint.close()

    # --- Faults ----------------------------------------------------------------------------------

    def partition(
        self, places_a: Iterable[Place], places_b: Iterable[Place], *, one_way: bool = False
    ) -> None:
        """Drop all datagrams from A to B, and back unless ``one_way``; hosts or addresses."""
        self._paths.cut(places_a, places_b, one_way=one_way)

    def heal(self) -> None:
        """End all partitions."""
        self._paths.cuts.clear()

    def override(
        self,
        places_a: Iterable[Place],
        places_b: Iterable[Place],
        conditions: Conditions,
        *,
        one_way: bool = False,
    ) -> None:
        """Give some links other conditions; see :meth:`bytestag.sim.paths.Paths.override`."""
        self._paths.override(places_a, places_b, conditions, one_way=one_way)

    def end_overrides(self) -> None:
        """Give all links the usual conditions."""
        self._paths.overrides.clear()

    def use_matrix(
        self, groups: Mapping[str, str], seconds: Mapping[tuple[str, str], float]
    ) -> None:
        """Take latencies from a matrix: host -> group, (group, group) -> seconds of one way."""
        self._paths.use_matrix(groups, seconds)

    def set_uplink(self, host: str, bytes_per_second: float, queue_bytes: int = 0) -> None:
        """Say how fast a host sends (0: without limit) and how much may wait there."""
        queue_bytes = queue_bytes or self.conditions.queue_bytes
        self._uplinks[host] = Uplink(bytes_per_second, queue_bytes)

    def put_behind(self, box: NatBox, hosts: Iterable[str]) -> None:
        """Put hosts behind a NAT box: from outside they are where the box is.

        A host that moves behind another box leaves its old one.
        """
        self._outer[box.outer_host] = box
        for host in hosts:
            self._boxes[host] = box

    def latency(self, source: str, destination: str) -> float:
        """Return the seconds of one way between two hosts, as it usually is, without jitter."""
        return self._paths.latency(source, destination, self.conditions)

    # --- Datagrams -------------------------------------------------------------------------------

    def inject(self, datagram: bytes, source: Address, destination: Address) -> None:
        """Put a datagram on its way, with any source: addresses are as easily forged as in UDP."""
        conditions, rng, paths = self.conditions, self._rng, self._paths
        self.counters["sent"] += 1
        self.bytes_sent += len(datagram)
        if paths.overrides or paths.cuts:
            names = self._names(source), self._names(destination)
            conditions = paths.conditions(*names, conditions)
            if paths.is_cut(*names):
                self.counters["cut off"] += 1
                return
        if len(datagram) > conditions.mtu_bytes:
            self.counters["too long"] += 1
            return
        waits = 0.0
        if conditions.uplink_bytes_per_second or self._uplinks:
            out = self._uplink(source[0], conditions).receive(len(datagram), self._loop.time())
            if out is None:
                self.counters["queue full"] += 1
                return
            waits = out
        if self._boxes:
            outer = self._outside(source, destination)
            if outer is None:
                self.counters["to nobody"] += 1
                return
            source = outer
        copies = 1
        if conditions.duplication and rng.random() < conditions.duplication:
            self.counters["duplicated"] += 1
            copies = 2
        for _ in range(copies):
            if conditions.loss and rng.random() < conditions.loss:
                self.counters["lost"] += 1
                continue
            chance = conditions.corruption
            spoiled = self._spoiled(datagram) if chance and rng.random() < chance else datagram
            self._dispatch(spoiled, source, destination, conditions, waits)

    def _spoiled(self, datagram: bytes) -> bytes:
        if not datagram:
            return datagram
        self.counters["corrupted"] += 1
        spoiled = bytearray(datagram)
        spoiled[self._rng.randrange(len(spoiled))] ^= 1 << self._rng.randrange(8)
        return bytes(spoiled)

    def _dispatch(
        self,
        datagram: bytes,
        source: Address,
        destination: Address,
        conditions: Conditions,
        waits: float,
    ) -> None:
        seconds = self._paths.latency(source[0], destination[0], conditions)
        if conditions.jitter:
            waits += self._rng.random() * conditions.jitter
        if conditions.reordering and self._rng.random() < conditions.reordering:
            self.counters["reordered"] += 1
            waits += self._rng.random() * REORDERED_LATENCIES * seconds
        when = self._loop.time() + seconds + waits
        batch = self._batches.get((destination, when))
        if batch is None:
            batch = self._batches[destination, when] = []
            self._loop.call_at(when, self._deliver, destination, when, context=self._context)
        batch.append((datagram, source))

    def _deliver(self, destination: Address, when: float) -> None:
        """Hand over what arrives here now, as one wake-up of a socket would."""
        batch = self._batches.pop((destination, when))
        endpoint = self._endpoints.get(destination)
        if endpoint is None and self._outer:
            endpoint, batch = self._inside(destination, batch)
        if endpoint is None:
            self.counters["to nobody"] += len(batch)
        elif not endpoint.keeps(batch):
            self.hand_over(endpoint, batch)

    def hand_over(self, endpoint: VirtualEndpoint, batch: Batch) -> None:
        """Let an endpoint's receiver have these datagrams now."""
        endpoint.context.run(self._hand_over, endpoint, batch)

    def _hand_over(self, endpoint: VirtualEndpoint, batch: Batch) -> None:
        now, to = self._loop.time(), endpoint.place
        for datagram, source in batch:
            if endpoint.is_closed:
                return
            self.counters["delivered"] += 1
            head = _TRACED.pack(now, source[1], to[1], len(datagram))
            self._trace.update(head + f"{source[0]} {to[0]} ".encode() + datagram)
            endpoint.receiver.datagram_received(memoryview(datagram), source)
        if not endpoint.is_closed:
            endpoint.receiver.wakeup_ended()

    # --- What only some networks have ------------------------------------------------------------

    def _uplink(self, host: str, conditions: Conditions) -> Uplink:
        uplink = self._uplinks.get(host)
        if uplink is None:
            rate, queue_bytes = conditions.uplink_bytes_per_second, conditions.queue_bytes
            uplink = self._uplinks[host] = Uplink(rate, queue_bytes)
        return uplink

    def _names(self, address: Address) -> tuple[Place, ...]:
        """Return what an endpoint is meant by: its address, its host, and both behind a NAT."""
        host, port = address
        if host in self._boxes:
            return address, host, self._boxes[host].outer_host
        if host in self._outer and (inner := self._outer[host].inner(port)) is not None:
            return address, host, inner, inner[0]
        return address, host

    def _outside(self, source: Address, destination: Address) -> Address | None:
        """Return where a datagram comes from, as it is seen outside; None if it cannot arrive."""
        box, other = self._boxes.get(source[0]), self._boxes.get(destination[0])
        if other is not None:
            return source if other is box else None
        if box is None:
            return source
        return box.outwards(source, destination, self._loop.time())

    def _inside(self, outer: Address, batch: Batch) -> tuple[VirtualEndpoint | None, Batch]:
        """Return who is behind an outer address, and what the box lets through to it."""
        box = self._outer.get(outer[0])
        inner = box.inner(outer[1]) if box is not None else None
        if box is None or inner is None:
            return None, batch
        now = self._loop.time()
        through = [row for row in batch if box.inwards(row[1], outer[1], now) is not None]
        self.counters["filtered"] += len(batch) - len(through)
        return (self._endpoints.get(inner) if through else None), through
