"""Clusters of real nodes in a virtual world, with tables in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.crypto.identity import Identity
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.fileinfo import build
from bytestag.models.parts import PART_BYTES
from bytestag.tables.base import KVPID, own_record
from bytestag.tables.stores import memory_stores
from bytestag.uri import Link


class Cluster:
    """Starts nodes at 10.x addresses and stops them all at the end."""

    def __init__(self, world, base=None, **changes):
        self.world = world
        self.config = (base or config.local()).replace(**changes)
        self.clients = []
        self._stack = contextlib.AsyncExitStack()
        self._stopped = set()

    async def __aenter__(self):
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self._stack.__aexit__(*exc)

    async def start(self, *, known=None, cache_bytes=2**30, joins=True, stores=None, identity=None,
                    host=None, base=None, **options):  # fmt: skip
        """Start one node; it joins through ``known`` or the first node."""
        number = len(self.clients)
        runtime = self.world.runtime(f"node {number}")
        identity = identity or Identity.generate(runtime.token_bytes)
        stores = stores or memory_stores(cache_bytes, identity.node_id, runtime.wall)
        if known is None and self.clients:
            known = [self.clients[0].address]
        host = host or f"10.0.{number // 250}.{number % 250 + 1}"
        made = ClientOptions(
            address=(host, 4000),
            known_nodes=tuple(known or ()),
            open_endpoint=self.world.network.open_endpoint,
            **{"is_donor": cache_bytes > 0, **options},
        )
        settings = (base or self.config).replace(cache_bytes=cache_bytes)
        client = Client(identity, stores, made, settings, runtime)
        await client.__aenter__()
        self._stack.push_async_callback(self.stop, client)
        self.clients.append(client)
        if joins and known:
            await client.join()
        return client

    async def start_many(self, count, **options):
        """Start nodes, a few at a time."""
        for begin in range(0, count, 10):
            size = min(10, count - begin)
            await asyncio.gather(*(self._start_later(i, **options) for i in range(size)))
        return self.clients

    async def _start_later(self, order, **options):
        if order and not self.clients:
            await asyncio.sleep(0.001 * order)
        return await self.start(**options)

    async def stop(self, client):
        """Stop one node cleanly."""
        if client not in self._stopped:
            self._stopped.add(client)
            await client.__aexit__(None, None, None)

    def crash(self, client):
        """Cut a node off as if its machine had died."""
        client._endpoint.close()

    def true_closest(self, key, count, *, accept=lambda client: True):
        """Return the nodes closest to a key, by looking at all of them."""
        alive = [c for c in self.clients if c not in self._stopped and accept(c)]
        return sorted(alive, key=lambda c: c.identity.node_id.distance_int(KeyBytes(key)))[:count]

    def holders(self, kvpid):
        return [c for c in self.clients if kvpid in c.stores.cache and c not in self._stopped]


def values(count, size=500, seed=0):
    """Return distinct values by KVPID."""
    made = [(b"%d %d " % (seed, n)) * (size // 8 + 1) for n in range(count)]
    cut = [value[:size] for value in made]
    return {KVPID(KeyBytes.new_hash(v), KeyBytes.new_hash(v)): v for v in cut}


def add_values(client, rows):
    """Put values into a node's own table as its originals; return their records."""
    records = []
    for kvpid, value in rows.items():
        record = replace(own_record(kvpid, value), timestamp=int(client.runtime.wall()))
        client.stores.cache.store(record, value, client.runtime.wall())
        records.append(record)
    return records


async def publisher(cluster, **options):
    """Start a node that publishes and takes nothing from others."""
    client = await cluster.start(**options)
    client.protocol.capabilities = 0
    return client


def row_name(kvpid, value):
    return (kvpid, blake3(value))


# --- Files ---------------------------------------------------------------------------------------


def content(size, seed=0):
    """Return bytes no two parts of which are equal."""
    return b"".join(sha1(b"%d %d" % (seed, n)) for n in range(-(-size // 20)))[:size]


def own(value, key=None):
    """Return the row of a value, found by its own hash or by another key."""
    index = KeyBytes.new_hash(value)
    return {KVPID(KeyBytes(key or index), index): value}


def described(whole, part_bytes=PART_BYTES, **fields):
    """Return the FileInfo of a file and all rows that are published with it."""
    parts = [whole[i : i + part_bytes] for i in range(0, len(whole), part_bytes)]
    hashes = [(sha1(part), blake3(part)) for part in parts]
    info, lists = build(
        fields.get("hash", sha1(whole)),
        fields.get("blake3", blake3(whole)),
        fields.get("size", len(whole)),
        hashes,
        part_bytes=part_bytes,
    )
    rows = own(info.to_bytes()) | own(info.to_bytes(), info.hash)
    for value in [*parts, *lists]:
        rows |= own(value)
    return info, rows


def link_of(info, **fields):
    """Return the link of a file that ``share`` would print, without addresses."""
    packed = info.to_bytes()
    return Link("bytestag", info.hash, "file", "f", blake3(packed), network="local", **fields)


def entry_of(whole, **fields):
    """Return the manifest entry of a file."""
    info, _ = described(whole)
    made = FileEntry(sha1(whole), len(whole), blake3(whole), info.id, blake3(info.to_bytes()))
    return replace(made, **fields)


def tree(files, empty=()):
    """Return the manifest of ``{"path/name": bytes}`` and all rows of it but its own."""
    rows = {}
    for whole in files.values():
        rows |= described(whole)[1]
    listed = [(path.split("/"), entry_of(whole)) for path, whole in files.items()]
    return DirectoryManifest.build(listed, [path.split("/") for path in empty]), rows


def link_of_tree(manifest, **fields):
    """Return the link of a directory whose manifest is one value, and the manifest's row."""
    packed = manifest.to_bytes()
    key = KeyBytes.new_hash(packed)
    return Link("bytestag", key, "d", "d", blake3(packed), network="local", **fields), own(packed)


def serve(client, change):
    """Make a node send ``change(record, true bytes)`` whenever somebody GETs a row."""
    table = client.stores.table
    true_read = table.read_row
    table.read_row = lambda record: change(record, true_read(record))


def get_nothing(client):
    """Make a node silent inside sessions: it takes requests and never answers."""
    client._serving.handle = lambda link, request: None
