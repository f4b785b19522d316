"""Our nodes, and stock ones, on real sockets: N of them in two processes of N/2, on loopback.

One node puts, another in the same process gets; both processes have half of the nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import resource
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from typing import Any

from kademlia.network import Server

from benchmarks.stage import percentile
from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.crypto.identity import Address, Identity
from bytestag.daemon.memory import collect_less, spare_what_exists
from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.errors import BytestagError
from bytestag.events.runtime import system_runtime
from bytestag.keys import KeyBytes
from bytestag.tables.stores import memory_stores

CACHE_BYTES = 2**28
COPIES = 8
SETTLING_SECONDS = 1.0
PHASE_SECONDS = 10.0
Operation = Callable[[int], Awaitable[bool]]


def cpu() -> float:
    """Return the CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class OurNodes:
    """Nodes with tables in memory."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self._values: list[tuple[KeyBytes, bytes]] = []

    async def start(self, count: int, first: Address | None) -> Address:
        """Start nodes that join through the first one; return its address."""
        for _ in range(count):
            runtime = system_runtime(1)
            identity = Identity.generate(runtime.token_bytes)
            stores = memory_stores(CACHE_BYTES, identity.node_id, runtime.wall)
            known = (first,) if first else ()
            options = ClientOptions(is_donor=True, known_nodes=known)
            client = Client(identity, stores, options, config.local(), runtime)
            await client.__aenter__()
            self.clients.append(client)
            first = first or client.address
            if known:
                await client.join()
        assert first is not None
        collect_less()  # as ``bytestag node`` does
        spare_what_exists()
        return first

    def operations(self, count: int, size: int) -> dict[str, Operation]:
        """Return what puts and gets the n-th of so many values."""
        values = [os.urandom(size) for _ in range(count)]
        keyed = [(KeyBytes.new_hash(value), value) for value in values]
        putter, reader = self.clients[1], self.clients[len(self.clients) // 2]

        async def put(number: int) -> bool:
            done = await putter.putter.put(*keyed[number], copies=COPIES)
            return done.stored >= COPIES

        async def get(number: int) -> bool:
            key, value = keyed[number]
            fetcher = Fetcher(
                reader.dht_network,
                reader.stores.table,
                reader.config,
                reader._table_runtime,
                reader._group,
            )
            try:
                return await fetcher.fetch(Wanted(key, key, size=size)) == value
            except BytestagError:
                return False
            finally:
                fetcher.close()

        return {"put": put, "get": get}


class StockNodes:
    """Unmodified servers of the package kademlia."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    async def start(self, count: int, first: Address | None) -> Address:
        """Start nodes that join through the first one; return its address."""
        for _ in range(count):
            server = Server()
            await server.listen(0, "127.0.0.1")
            self.servers.append(server)
            if first:
                await server.bootstrap([first])
            first = first or server.transport.get_extra_info("sockname")[:2]
        assert first is not None
        return first

    def operations(self, count: int, size: int) -> dict[str, Operation]:
        """Return what puts and gets the n-th of so many values."""
        values = [(os.urandom(8).hex(), os.urandom(size)) for _ in range(count)]
        putter, reader = self.servers[1], self.servers[len(self.servers) // 2]

        async def put(number: int) -> bool:
            try:
                return bool(await putter.set(*values[number]))
            except ValueError:  # all candidates were evicted
                return False

        async def get(number: int) -> bool:
            key, value = values[number]
            return bool(await reader.get(key) == value)

        return {"put": put, "get": get}


KINDS: dict[str, Callable[[], Any]] = {"ours": OurNodes, "kademlia": StockNodes}


def measure(kind: str, nodes: int, operations: int, at_once: int, size: int) -> dict[str, Any]:
    """Run puts and gets; return for each rate, done, p99 in seconds, and CPU ms of both."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_measure(kind, nodes, operations, at_once, size))


async def _measure(
    kind: str, nodes: int, operations: int, at_once: int, size: int
) -> dict[str, Any]:
    mine = KINDS[kind]()
    first = await mine.start(nodes // 2, None)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    other = context.Process(target=_run_other, args=(kind, nodes - nodes // 2, first, theirs))
    other.start()
    try:
        await _hear(ours)
        await asyncio.sleep(SETTLING_SECONDS)
        warming = max(operations // 10, at_once)
        await _operate(mine.operations(warming, size), warming, at_once, ours)
        return await _operate(mine.operations(operations, size), operations, at_once, ours)
    finally:
        other.kill()
        other.join()


async def _operate(
    operations: dict[str, Operation], count: int, at_once: int, other: Connection
) -> dict[str, Any]:
    result = {}
    for name, operation in operations.items():
        used = cpu() + await _ask(other)
        result[name] = await _run(operation, count, at_once)
        used = cpu() + await _ask(other) - used
        result[name]["cpu_ms"] = 1000 * used / max(result[name].pop("ended"), 1)
    return result


async def _run(operation: Operation, count: int, at_once: int) -> dict[str, Any]:
    """Run operations, so many at one time, until the phase's time is over."""
    numbers, took, fine = iter(range(count)), [], 0
    until = time.perf_counter() + PHASE_SECONDS

    async def work() -> None:
        nonlocal fine
        for number in numbers:
            began = time.perf_counter()
            if began > until:
                return
            is_fine = await operation(number)  # others count meanwhile
            fine += is_fine
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    seconds = time.perf_counter() - began
    return {
        "rate": len(took) / seconds,
        "done": fine / max(len(took), 1),
        "p99": percentile(took, 99),
        "ended": len(took),
    }


async def _ask(other: Connection) -> float:
    """Return the CPU seconds of the other process."""
    other.send("cpu")
    return float(await _hear(other))


async def _hear(connection: Connection) -> Any:
    while not connection.poll():
        await asyncio.sleep(0.01)
    return connection.recv()


def _run_other(kind: str, nodes: int, first: Address, connection: Connection) -> None:
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(EOFError):
        asyncio.run(_serve(kind, nodes, first, connection))


async def _serve(kind: str, nodes: int, first: Address, connection: Connection) -> None:
    await KINDS[kind]().start(nodes, first)
    connection.send("ready")
    while True:
        await _hear(connection)
        connection.send(cpu())
