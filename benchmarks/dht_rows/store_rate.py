"""How many values one holder takes for each second of its CPU time; two processes on loopback."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
from multiprocessing.connection import Connection

from benchmarks.dht_rows.socket_nodes import OurNodes, _ask, _hear, cpu
from bytestag.crypto.identity import Address
from bytestag.keys import KeyBytes

VALUES = 20_000
WARMING = 2000
AT_ONCE = 256
VALUE_BYTES = 100
SETTLING_SECONDS = 0.5


def store_rate(seed: int) -> float:
    """Return the values that were confirmed for each CPU second of the holder."""
    logging.disable(logging.CRITICAL)
    return asyncio.run(_store_rate())


async def _store_rate() -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=_hold, args=(theirs,))
    holder.start()
    try:
        nodes = OurNodes()
        await nodes.start(1, await _hear(ours))
        await asyncio.sleep(SETTLING_SECONDS)
        await _put(nodes, WARMING)
        used = await _ask(ours)
        stored = await _put(nodes, VALUES)
        return stored / (await _ask(ours) - used)
    finally:
        holder.kill()
        holder.join()


async def _put(nodes: OurNodes, count: int) -> int:
    """Put values; return how many were confirmed."""
    putter = nodes.clients[0].putter
    values = [os.urandom(VALUE_BYTES) for _ in range(count)]
    waiting, stored = iter(values), itertools.count()

    async def work() -> None:
        for value in waiting:
            done = await putter.put(KeyBytes.new_hash(value), value, copies=1)
            if done.stored:
                next(stored)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return next(stored)


def _hold(connection: Connection) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    nodes = OurNodes()
    address: Address = await nodes.start(1, None)
    connection.send(address)
    while True:
        await _hear(connection)
        connection.send(cpu())
