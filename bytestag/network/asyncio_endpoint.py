"""AsyncioEndpoint: UDP on asyncio's datagram transport, for every other platform (shell)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from bytestag.config import TRAIN_DATAGRAM_BYTES_MAX
from bytestag.crypto.identity import Address
from bytestag.network.burst import Burst
from bytestag.network.endpoint import Endpoint, Receiver, bound_socket, granted_burst


class AsyncioEndpoint(asyncio.DatagramProtocol):
    """asyncio's datagram transport: slower, but everywhere."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._ends_soon = False
        self.address: Address = ("", 0)
        self.burst_bytes = 16 * 1024
        self.datagram_bytes_max = TRAIN_DATAGRAM_BYTES_MAX
        self.counters: Counter[str] = Counter()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.address = transport.get_extra_info("sockname")[:2]
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self.burst_bytes = granted_burst(sock)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._receiver.datagram_received(memoryview(data), (addr[0], addr[1]))
        if not self._ends_soon:
            self._ends_soon = True
            self._loop.call_soon(self._end_wakeup)

    def _end_wakeup(self) -> None:
        self._ends_soon = False
        self._receiver.wakeup_ended()

    def error_received(self, exc: Exception) -> None:
        self.counters[f"receive {type(exc).__name__}"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        pass

    def send(self, datagram: bytes, address: Address) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(datagram, address)

    def send_burst(self, burst: Burst, address: Address) -> None:
        buffers = burst.buffers
        if len(buffers) == 1:
            self.send(bytes(buffers[0]), address)
            return
        for position in range(0, len(buffers), 2):
            self.send(b"".join(buffers[position : position + 2]), address)

    def close(self) -> None:
        """Stop receiving and free the port; idempotent."""
        self._transport.close()


async def open_asyncio_endpoint(address: Address, receiver: Receiver) -> Endpoint:
    """Bind an :class:`AsyncioEndpoint`; raises AddressInUse."""
    loop = asyncio.get_running_loop()
    sock = bound_socket(address)
    _, endpoint = await loop.create_datagram_endpoint(lambda: AsyncioEndpoint(receiver), sock=sock)
    return endpoint
