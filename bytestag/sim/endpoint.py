"""VirtualEndpoint: a bound address in a virtual network (shell).

The third implementation of :class:`bytestag.network.endpoint.Endpoint`.
"""

from __future__ import annotations

from collections import Counter
from contextvars import copy_context
from typing import Protocol

from bytestag.config import TRAIN_DATAGRAM_BYTES_MAX
from bytestag.crypto.identity import Address
from bytestag.network.burst import Burst
from bytestag.network.endpoint import Receiver

BURST_BYTES = 2 * 1024 * 1024
HELD_BYTES_MAX = 256 * 1024
"""What waits for a frozen receiver, of the order of what Linux grants; more is dropped."""
Batch = list[tuple[bytes, Address]]
"""Datagrams with their sources, for one receiver."""


class Carrier(Protocol):
    """What an endpoint needs of its network."""

    counters: Counter[str]

    def inject(self, datagram: bytes, source: Address, destination: Address) -> None: ...

    def forget(self, endpoint: VirtualEndpoint) -> None: ...

    def hand_over(self, endpoint: VirtualEndpoint, batch: Batch) -> None: ...


class VirtualEndpoint:
    """Sends from where it is, and hands what comes to its receiver."""

    def __init__(
        self, network: Carrier, address: Address, place: Address, receiver: Receiver
    ) -> None:
        self._network = network
        self.receiver = receiver
        self.address = address
        """What it was bound to; 0.0.0.0 is every address of its host."""
        self.place = place
        """Where it is in the network."""
        self.burst_bytes = BURST_BYTES
        self.datagram_bytes_max = TRAIN_DATAGRAM_BYTES_MAX
        self.counters: Counter[str] = Counter()
        self.is_closed = False
        self.context = copy_context()
        """Where the receiver is called: what it starts belongs to whoever opened the endpoint."""
        self._held: Batch | None = None
        self._held_bytes = 0

    def send(self, datagram: bytes, address: Address) -> None:
        """Send one datagram; nothing after :meth:`close`."""
        if not self.is_closed:
            self._network.inject(bytes(datagram), self.place, address)

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
