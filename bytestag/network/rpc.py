"""RPC: one request, one reply, over rpcudp's frame (shell; the only user of rpcudp).

Of :class:`rpcudp.protocol.RPCProtocol` the frame remains. Replaced is what it does unsafely: it
takes a reply from any address, starts tasks for malformed datagrams, answers any method name, and
leaks what waits for a cancelled call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

from rpcudp.protocol import RPCProtocol

from bytestag.codec import Raw
from bytestag.config import Config
from bytestag.crypto.identity import Address
from bytestag.errors import LocalError, PacketError, Timeout
from bytestag.events.runtime import Runtime
from bytestag.network import packets
from bytestag.network.endpoint import Endpoint
from bytestag.network.replies import ReplyTable

_logger = logging.getLogger(__name__)

ADDRESSES_TIMED_MAX = 4096
NO_REPLY = object()
"""What a handler returns to stay silent."""

Handler = Callable[[Address, list[Raw], bytes, int], Any]
"""(address, arguments, sequence ID, datagram bytes) -> encoded response, or NO_REPLY."""


class RPC(RPCProtocol):
    """The control plane of one node. A subclass declares handlers in ``handlers``."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        # By name: a subclass that is a KademliaProtocol too has another __init__ in between.
        RPCProtocol.__init__(self, config.rpc_hard_seconds)
        self.config = config
        self.runtime = runtime
        self.handlers: dict[str, Handler] = {}
        self.counters: Counter[str] = Counter()
        self.endpoint: Endpoint | None = None
        self._replies: ReplyTable[asyncio.Future[bytes]] = ReplyTable()
        self._timing: OrderedDict[Address, tuple[float, float]] = OrderedDict()

    def attach(self, endpoint: Endpoint) -> None:
        """Send through this endpoint from now on."""
        self.endpoint = endpoint

    # --- Calling ---------------------------------------------------------------------------------

    async def call(
        self,
        address: Address,
        method: str,
        arguments: list[Any],
        on_slow: Callable[[int], None] | None = None,
        *,
        is_repeated: bool = True,
    ) -> bytes:
        """Send a request and return the undecoded reply.

        After the soft time-out the same datagram goes once more, if ``is_repeated``. ``on_slow`` is
        called with 1 then, and with 2 when as much time has passed again; a reply counts until the
        hard time-out.

        Raises:
            Timeout: no reply.
            LocalError: too many calls wait already.
        """
        if self._replies.is_full or self.endpoint is None:
            raise LocalError("too many calls under way")
        loop = asyncio.get_running_loop()
        sequence_id = self.runtime.token_bytes(20)
        datagram = packets.encode_request(sequence_id, method, arguments)
        future: asyncio.Future[bytes] = loop.create_future()
        self._replies.expect(sequence_id, address, future)
        began = loop.time()

        soft_seconds = self.soft_seconds(address)

        def on_soft_timeout() -> None:
            if self.endpoint is not None and is_repeated:
                self.endpoint.send(datagram, address)
            if on_slow is not None:
                on_slow(1)

        timers = [loop.call_later(soft_seconds, on_soft_timeout)]
        if on_slow is not None:
            timers.append(loop.call_later(2 * soft_seconds, on_slow, 2))
        self.endpoint.send(datagram, address)
        try:
            async with asyncio.timeout(self.config.rpc_hard_seconds):
                body = await future
        except Timeout:  # a TimeoutError as well: closing has its own message
            raise
        except TimeoutError:
            raise Timeout(f"no reply from {address[0]}:{address[1]}") from None
        finally:
            for timer in timers:
                timer.cancel()
            self._replies.take(sequence_id, address)
        self._learn(address, loop.time() - began)
        return body

    def soft_seconds(self, address: Address) -> float:
        """Return the soft time-out of an address (RFC 6298, within the configured bounds)."""
        timing = self._timing.get(address)
        if timing is None:
            return self.config.rpc_soft_seconds
        seconds = timing[0] + 4 * timing[1]
        return min(max(seconds, self.config.rpc_soft_seconds_min), self.config.rpc_soft_seconds_max)

    def rtt_seconds(self, address: Address) -> float | None:
        """Return the smoothed round-trip time of an address, if it ever answered."""
        timing = self._timing.get(address)
        return timing[0] if timing else None

    def _learn(self, address: Address, seconds: float) -> None:
        smoothed, deviation = self._timing.pop(address, (seconds, seconds / 2))
        deviation += (abs(seconds - smoothed) - deviation) / 4
        smoothed += (seconds - smoothed) / 8
        self._timing[address] = (smoothed, deviation)
        if len(self._timing) > ADDRESSES_TIMED_MAX:
            self._timing.popitem(last=False)

    # --- Receiving -------------------------------------------------------------------------------

    def datagram_received(self, data: bytes | memoryview, addr: Address) -> None:
        """Take a control datagram; what is wrong with it is counted, never raised."""
        try:
            if len(data) > packets.STOCK_DATAGRAM_BYTES_MAX:
                raise PacketError("control datagram too long")
            datagram = bytes(data)
            sequence_id, body = packets.split(datagram)
            if datagram[0] == packets.RESPONSE:
                self._accept_response(sequence_id, body, addr)
            else:
                self._accept_request(sequence_id, body, addr)
        except PacketError as error:
            self.counters[error.message.split(":")[0]] += 1

    def _accept_response(self, msg_id: bytes, data: bytes, address: Address) -> None:
        future = self._replies.take(msg_id, address)
        if future is None or future.done():
            raise PacketError("reply to nothing")
        future.set_result(data)

    def _accept_request(self, msg_id: bytes, data: bytes, address: Address) -> None:
        method, arguments = packets.decode_request(data)
        handler = self.handlers.get(method)
        if handler is None:
            raise PacketError("method not spoken here")
        size = len(data) + packets.HEAD_BYTES
        response = handler(address, arguments, msg_id, size)
        if response is not NO_REPLY and self.endpoint is not None:
            self.endpoint.send(response, address)

    def close(self) -> None:
        """Fail every call that waits; idempotent."""
        for future in self._replies.drain():
            if not future.done():
                future.set_exception(Timeout("the node is closing"))
        self.endpoint = None
