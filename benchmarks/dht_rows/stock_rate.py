"""How many requests an unmodified node of the package ``kademlia`` serves on one core."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

import umsgpack
from kademlia.network import Server
from kademlia.node import Node

NODES = 10_000
REQUESTS = 5000
STORES = 200
HELD = 800
VALUE_BYTES = 100
ASKER = ("10.1.2.3", 4000)


class CountingTransport:
    """Takes what is sent, and only counts it."""

    def __init__(self) -> None:
        self.sent = 0

    def sendto(self, datagram: bytes, address: tuple[str, int]) -> None:
        self.sent += datagram[0] == 1


def stock_rates(seed: int) -> dict[str, float]:
    """Return requests answered in a second of CPU time, by kind."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_stock_rates(seed))


async def _stock_rates(seed: int) -> dict[str, float]:
    rng, server, transport = random.Random(seed), Server(), CountingTransport()
    server.protocol = server._create_protocol()  # type: ignore[attr-defined]
    server.protocol.connection_made(transport)
    asker = rng.randbytes(20)
    for i in range(NODES):
        address = (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 4000)
        server.protocol.router.add_contact(Node(rng.randbytes(20), *address))
    requests: dict[str, Callable[[], list[object]]] = {
        "ping": lambda: ["ping", [asker]],
        "find_node": lambda: ["find_node", [asker, rng.randbytes(20)]],
        "store": lambda: ["store", [asker, rng.randbytes(20), rng.randbytes(VALUE_BYTES)]],
    }
    found = {}
    for kind, make in requests.items():
        count = REQUESTS
        if kind == "store":
            count = STORES
            for _ in range(HELD):
                server.storage[rng.randbytes(20)] = rng.randbytes(VALUE_BYTES)
        datagrams = [b"\0" + rng.randbytes(20) + umsgpack.packb(make()) for _ in range(count)]
        transport.sent, began = 0, time.process_time()
        for datagram in datagrams:
            server.protocol.datagram_received(datagram, ASKER)
        while transport.sent < count:
            await asyncio.sleep(0)
        found[kind] = count / (time.process_time() - began)
    return found
