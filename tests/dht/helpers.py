"""Clusters of real nodes in a virtual world, with tables in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.fileinfo import build
from bytestag.models.parts import PART_BYTES
from bytestag.sim import cluster
from bytestag.tables.base import KVPID, own_record
from bytestag.uri import Link


class Cluster:
    """A :class:`bytestag.sim.cluster.Cluster` whose members are clients, called from outside."""

    def __init__(self, world, base=None, **changes):
        self.world = world
        self.nodes = cluster.Cluster(world, base, **changes)
        self.clients = []

    @property
    def config(self):
        return self.nodes.config

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self.nodes.__aexit__(*exc)

    async def start(self, *, joins=True, **options):
        """Start one node; it joins through ``known`` or the first node."""
        node = await self.nodes.start(joins=False, **options)
        self.clients.append(node.client)
        if joins and node.options.known_nodes:
            await node.client.join()
        return node.client

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
        for node in self._nodes_of(client):
            await self.nodes.stop(node)

    def crash(self, client):
        """End a node as if its machine had died."""
        self.nodes.crash(*self._nodes_of(client))

    def true_closest(self, key, count, *, accept=lambda client: True):
        """Return the nodes closest to a key, by looking at all of them."""
        closest = self.nodes.true_closest(key, count, accept=lambda node: accept(node.client))
        return [node.client for node in closest]

    def holders(self, kvpid):
        return [node.client for node in self.nodes.holders(kvpid)]

    def _nodes_of(self, client):
        return [node for node in self.nodes.running if node.client is client]


def values(count, size=500, seed=0):
    """Return distinct values by KVPID."""
    made = [(b"%d %d " % (seed, n)) * (size // 4 + 1) for n in range(count)]
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
