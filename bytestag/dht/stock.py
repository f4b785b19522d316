"""The stock dialect: unmodified ``kademlia`` nodes may join a local network (shell).

They live in a set of their own and see each other through us; what they store lies in a table that
bytestag's readers never see. A first request is answered only after its address answered our ping,
so a forged source gains nothing.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from kademlia.storage import IStorage

from bytestag.codec import Raw, encode
from bytestag.config import DATAGRAM_BYTES_MAX, DAY, K
from bytestag.crypto.identity import Address
from bytestag.errors import BytestagError, PacketError
from bytestag.events.slots import FnTaskSlot, SlotFull
from bytestag.network import packets
from bytestag.network.rpc import NO_REPLY

STOCK_NODES_MAX = 1024
STOCK_NODE_SECONDS = 3600
STOCK_VALUE_BYTES_MAX = 8 * 1024
STOCK_VALUE_SECONDS = DAY
STOCK_ENTRY_BYTES = 224

Value = int | float | bool | str | bytes


class StockStorage(IStorage):
    """What stock nodes stored: bounded in bytes and time; the oldest goes first."""

    def __init__(self, bytes_max: int, now: Callable[[], float]) -> None:
        self._bytes_max = bytes_max
        self._now = now
        self._rows: OrderedDict[bytes, tuple[float, Value, int]] = OrderedDict()
        self.used_bytes = 0

    def __setitem__(self, key: bytes, value: Value) -> None:
        cost = len(encode(value)) + STOCK_ENTRY_BYTES
        if cost > STOCK_VALUE_BYTES_MAX + STOCK_ENTRY_BYTES or cost > self._bytes_max:
            raise PacketError("stock value too large")
        self._remove(key)
        self._rows[key] = (self._now(), value, cost)
        self.used_bytes += cost
        while self.used_bytes > self._bytes_max:
            self._remove(next(iter(self._rows)))

    def __getitem__(self, key: bytes) -> Value:
        stored, value, _ = self._rows[key]
        if self._now() - stored > STOCK_VALUE_SECONDS:
            self._remove(key)
            raise KeyError(key)
        return value

    def get(self, key: bytes, default: Any = None) -> Any:
        """Return the value, or ``default``."""
        try:
            return self[key]
        except KeyError:
            return default

    def iter_older_than(self, seconds_old: float) -> Iterator[tuple[bytes, Value]]:
        """Yield what was stored longer ago than that."""
        before = self._now() - seconds_old
        return iter([(key, row[1]) for key, row in self._rows.items() if row[0] <= before])

    def __iter__(self) -> Iterator[tuple[bytes, Value]]:
        return iter([(key, row[1]) for key, row in self._rows.items()])

    def __len__(self) -> int:
        return len(self._rows)

    def _remove(self, key: bytes) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            self.used_bytes -= row[2]


class StockDialect:
    """Answers the five stock methods.

    ``call`` sends a stock request and returns the undecoded reply; ``slot`` bounds the pings that
    prove newcomers.
    """

    def __init__(
        self,
        own_id: bytes,
        bytes_max: int,
        now: Callable[[], float],
        call: Callable[[Address, str, list[Any]], Awaitable[bytes]],
        slot: FnTaskSlot,
    ) -> None:
        self._own_id = own_id
        self._now = now
        self._call = call
        self._slot = slot
        self.storage = StockStorage(bytes_max, now)
        self._nodes: OrderedDict[Address, tuple[bytes, float]] = OrderedDict()
        self._proving: set[Address] = set()

    def __len__(self) -> int:
        return len(self._nodes)

    def handle(
        self, method: str, address: Address, arguments: list[Raw], sequence_id: bytes
    ) -> Any:
        """Answer a stock request, or prove its sender first and stay silent."""
        values = packets.decode_stock_arguments(arguments)
        if method == "stun":
            return NO_REPLY if values else self._response(sequence_id, list(address))
        node_id = _bin20(values[0] if values else None)
        known = self._nodes.get(address)
        if known is None or self._now() - known[1] > STOCK_NODE_SECONDS:
            self._prove(address, method, values, sequence_id)
            return NO_REPLY
        self._nodes[address] = (node_id, self._now())
        self._nodes.move_to_end(address)
        return self._response(sequence_id, self._answer(method, address, values))

    def _answer(self, method: str, address: Address, values: list[Any]) -> Any:
        if method == "ping" and len(values) == 1:
            return self._own_id
        if method == "store" and len(values) == 3 and isinstance(values[2], Value):
            self.storage[_bin20(values[1])] = values[2]
            return True
        if method in ("find_node", "find_value") and len(values) == 2:
            key = _bin20(values[1])
            value = self.storage.get(key) if method == "find_value" else None
            return {"value": value} if value is not None else self._closest(key, address)
        raise PacketError("malformed stock request")

    def _closest(self, key: bytes, asker: Address) -> list[list[Any]]:
        goal = int.from_bytes(key, "big")
        others = [(id_, a) for a, (id_, _) in self._nodes.items() if a != asker]
        nearest = heapq.nsmallest(K, others, lambda n: int.from_bytes(n[0], "big") ^ goal)
        return [[id_, host, port] for id_, (host, port) in nearest]

    def _response(self, sequence_id: bytes, result: Any) -> Any:
        datagram = packets.encode_response(sequence_id, result)
        while len(datagram) > DATAGRAM_BYTES_MAX and isinstance(result, list) and result:
            result = result[:-1]
            datagram = packets.encode_response(sequence_id, result)
        return datagram if len(datagram) <= DATAGRAM_BYTES_MAX else NO_REPLY

    def _prove(self, address: Address, method: str, values: list[Any], sequence_id: bytes) -> None:
        """Ping the sender; once it answered, its request is answered too."""
        if address in self._proving:
            return
        try:
            self._slot.add_no_block(self._prove_and_answer, address, method, values, sequence_id)
        except SlotFull:
            return
        self._proving.add(address)

    async def _prove_and_answer(
        self, address: Address, method: str, values: list[Any], sequence_id: bytes
    ) -> None:
        try:
            reply = packets.decode_stock_reply(await self._call(address, "ping", [self._own_id]))
            self._nodes[address] = (_bin20(reply), self._now())
            while len(self._nodes) > STOCK_NODES_MAX:
                self._nodes.popitem(last=False)
            response = self._response(sequence_id, self._answer(method, address, values))
        except BytestagError:
            return
        finally:
            self._proving.discard(address)
        if response is not NO_REPLY:
            self.respond(response, address)

    def respond(self, datagram: bytes, address: Address) -> None:
        """Send a late response; the protocol puts its endpoint's ``send`` here."""


def _bin20(value: Any) -> bytes:
    if isinstance(value, bytes) and len(value) == 20:
        return value
    raise PacketError("malformed stock request")
