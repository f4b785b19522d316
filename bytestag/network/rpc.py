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
from functools import partial
from typing import Any, TypeVar

from rpcudp.protocol import RPCProtocol

from bytestag.codec import Raw
from bytestag.config import Config
from bytestag.crypto.identity import Address
from bytestag.errors import BytestagError, LocalError, PacketError, Timeout
from bytestag.events.runtime import Runtime
from bytestag.network import packets
from bytestag.network.endpoint import Endpoint
from bytestag.network.replies import ReplyTable

_logger = logging.getLogger(__name__)
R = TypeVar("R")

ADDRESSES_TIMED_MAX = 4096
NO_REPLY = object()
"""What a handler returns to stay silent."""

OnEnd = Callable[[bytes | BytestagError], None]
OnSlow = Callable[[int], None]
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
        self._replies: ReplyTable[Call] = ReplyTable()
        self._timing: OrderedDict[Address, tuple[float, float]] = OrderedDict()

    def attach(self, endpoint: Endpoint) -> None:
        """Send through this endpoint from now on."""
        self.endpoint = endpoint

    # --- Calling ---------------------------------------------------------------------------------

    def begin(
        self,
        address: Address,
        method: str,
        arguments: list[Any],
        on_end: OnEnd,
        on_slow: OnSlow | None = None,
        *,
        is_repeated: bool = True,
    ) -> Call:
        """Send a request; ``on_end`` is called once, with the undecoded reply or with an error.

        After the soft time-out the same datagram goes once more, if ``is_repeated``. ``on_slow`` is
        called with 1 then, and with 2 when as much time has passed again; a reply counts until the
        hard time-out.

        Raises:
            LocalError: too many calls wait already.
        """
        if self._replies.is_full or self.endpoint is None:
            raise LocalError("too many calls under way")
        sequence_id = self.runtime.token_bytes(20)
        datagram = packets.encode_request(sequence_id, method, arguments)
        call = Call(self, address, sequence_id, datagram if is_repeated else b"", on_end, on_slow)
        self._replies.expect(sequence_id, address, call)
        self.endpoint.send(datagram, address)
        return call

    async def call(
        self,
        address: Address,
        method: str,
        arguments: list[Any],
        on_slow: OnSlow | None = None,
        *,
        is_repeated: bool = True,
    ) -> bytes:
        """Send a request and return the undecoded reply; see :meth:`begin`.

        Raises:
            Timeout: no reply.
            LocalError: too many calls wait already.
        """
        return await outcome_of(
            lambda on_end: self.begin(
                address, method, arguments, on_end, on_slow, is_repeated=is_repeated
            )
        )

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
        call = self._replies.take(msg_id, address)
        if call is None:
            raise PacketError("reply to nothing")
        self._learn(address, call.seconds)
        call.end(data)

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
        self.endpoint = None
        for call in self._replies.drain():
            call.end(Timeout("the node is closing"))

    def resend(self, call: Call) -> None:
        """Send a request once more."""
        if self.endpoint is not None:
            self.endpoint.send(call.datagram, call.address)

    def forget(self, call: Call) -> None:
        """Await a reply no longer."""
        self._replies.take(call.sequence_id, call.address)


class Call:
    """A request under way: sent again when it is slow, given up in time."""

    __slots__ = (
        "_began", "_loop", "_on_end", "_on_slow", "_rpc", "_soft_seconds", "_timer",
        "address", "datagram", "sequence_id",
    )  # fmt: skip

    def __init__(
        self,
        rpc: RPC,
        address: Address,
        sequence_id: bytes,
        datagram: bytes,
        on_end: OnEnd,
        on_slow: OnSlow | None,
    ) -> None:
        self.address = address
        self.sequence_id = sequence_id
        self.datagram = datagram
        """What is sent again; nothing if empty."""
        self._rpc = rpc
        self._on_end = on_end
        self._on_slow = on_slow
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._soft_seconds = rpc.soft_seconds(address)
        self._timer: asyncio.TimerHandle | None = self._loop.call_at(
            self._began + self._soft_seconds, self._be_slow, 1
        )

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return self._loop.time() - self._began

    def cancel(self) -> None:
        """End it without a word; idempotent."""
        self._stop_timer()
        self._rpc.forget(self)

    def end(self, outcome: bytes | BytestagError) -> None:
        """Hand over the reply or the error; it is awaited no longer."""
        self._stop_timer()
        self._on_end(outcome)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _be_slow(self, times: int) -> None:
        hard = self._began + self._rpc.config.rpc_hard_seconds
        if times == 1 and self._on_slow is not None:
            again = self._began + 2 * self._soft_seconds
            self._timer = self._loop.call_at(min(again, hard), self._be_slow, 2)
        else:
            self._timer = self._loop.call_at(hard, self._fail)
        if times == 1 and self.datagram:
            self._rpc.resend(self)
        if self._on_slow is not None:
            self._on_slow(times)

    def _fail(self) -> None:
        self._timer = None  # it refers to us: nobody but the collector would free both
        self._rpc.forget(self)
        host, port = self.address
        self._on_end(Timeout(f"no reply from {host}:{port}"))


async def outcome_of(begin: Callable[[Callable[[R | BytestagError], None]], Call]) -> R:
    """Await a call that ``begin`` starts; its error is raised, and with us it is cancelled."""
    future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
    call = begin(partial(_settle, future))
    try:
        return await future
    except asyncio.CancelledError:
        call.cancel()
        raise
    finally:
        del future, call  # they have the error, whose traceback has this frame


def _settle(future: asyncio.Future[R], outcome: R | BytestagError) -> None:
    if future.done():
        return
    if isinstance(outcome, BytestagError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
