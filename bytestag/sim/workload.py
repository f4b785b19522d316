"""Workload: what the users of a simulated network do (composition)."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import replace

from bytestag.config import DAY
from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.dht.publishing import PublishOutcome
from bytestag.keys import KeyBytes
from bytestag.sim.cluster import Node
from bytestag.tables.base import KVPID, own_record

COPIES = 8


def random_values(count: int, size: int, rng: random.Random) -> dict[KVPID, bytes]:
    """Return values of ``size`` random bytes, each under its own hash."""
    made = [rng.randbytes(size) for _ in range(count)]
    return {KVPID(KeyBytes.new_hash(value), KeyBytes.new_hash(value)): value for value in made}


async def put(
    node: Node,
    values: Mapping[KVPID, bytes],
    *,
    copies: int = COPIES,
    keep_seconds: int = DAY,
    stays: bool = False,
) -> PublishOutcome:
    """Let a node publish values. Raises Killed if it crashes meanwhile.

    Its originals are removed at the end, unless it ``stays`` a holder of what it published; after
    a crash it still has them.
    """
    return await node.run(_put(node, values, copies, keep_seconds, stays=stays))


async def _put(
    node: Node, values: Mapping[KVPID, bytes], copies: int, keep_seconds: int, *, stays: bool
) -> PublishOutcome:
    client, table = node.client, node.stores.cache
    now = client.runtime.wall()
    records = [replace(own_record(kvpid, v), timestamp=int(now)) for kvpid, v in values.items()]
    table.store_many(list(zip(records, values.values(), strict=True)), now)
    outcome = await client.publisher.publish(records, copies=copies, keep_seconds=keep_seconds)
    if not stays:
        withdraw(node, values)
    return outcome


def withdraw(node: Node, kvpids: Collection[KVPID]) -> None:
    """Remove what a node published from its own table."""
    for kvpid in kvpids:
        for record in node.stores.cache.records_by_key(kvpid.key):
            if record.index == kvpid.index and record.is_original:
                node.stores.cache.remove(kvpid, record.blake3)


async def get(node: Node, kvpid: KVPID) -> bytes:
    """Let a node get a value, verified, as ``fetch`` does. Raises as Fetcher.fetch does; Killed."""
    return await node.run(_get(node, kvpid))


async def _get(node: Node, kvpid: KVPID) -> bytes:
    client = node.client
    fetcher = Fetcher(
        client.dht_network,
        client.stores.table,
        client.config,
        client.runtime,
        client._group,
        client._path_cache,
    )
    try:
        return await fetcher.fetch(Wanted(kvpid.key, kvpid.index))
    finally:
        fetcher.close()
