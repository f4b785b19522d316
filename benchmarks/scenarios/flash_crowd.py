"""Many nodes read one new file at the same time.

Its publisher has just brought the copies to the donors and goes on serving; links carry no hints,
so that readers find everything through the network. Every host's uplink is bounded. Measured: who
gets the file and when, and how much of it the publisher itself had to send.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.stage import Peer, Stage, as_node, attempt
from bytestag.config import DAY, PART_BYTES
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.fileinfo import build
from bytestag.sim.checkers import Wrong
from bytestag.sim.cluster import Node
from bytestag.sim.workload import put
from bytestag.tables.base import KVPID
from bytestag.uri import Link

DEFAULTS: dict[str, Any] = {
    "file_bytes": 1 << 20, "readers": 50, "copies": 8, "population": -1, "uplink": 1.25e6,
}  # fmt: skip


async def play(stage: Stage) -> None:
    await stage.populate()
    (publisher,) = await stage.some(1)
    whole = stage.rng.randbytes(stage.file_bytes)
    link, rows = _describe(whole, publisher.client.config.network)
    began = stage.now
    await put(as_node(publisher), rows, copies=stage.copies, keep_seconds=90 * DAY, stays=True)
    stage.checker.acknowledged(rows, 90 * DAY)
    stage.row("publish_seconds", stage.now - began, "s")
    uploaded = publisher.client.status()["bytes_uploaded"]
    others = [n for n in await stage.some(stage.readers + 1) if n.node_id != publisher.node_id]
    readers = others[: stage.readers]
    done: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        async with asyncio.TaskGroup() as group:
            for number, reader in enumerate(readers):
                path = Path(directory, str(number))
                group.create_task(_fetch(stage, reader, link, path, whole, done))
    stage.row("fetch_success", len(done) / len(readers), "share", ">=", 1.0)
    stage.times("fetch_seconds", done)
    sent = publisher.client.status()["bytes_uploaded"] - uploaded
    stage.row("publisher_sent_files", sent / len(whole), "files")
    stage.row("publisher_share", sent / (len(whole) * max(len(done), 1)), "share")


async def _fetch(
    stage: Stage, reader: Node | Peer, link: Link, path: Path, whole: bytes, done: list[float]
) -> None:
    fetched, seconds = await attempt(
        reader.run(reader.client.fetch(link, path)), stage.world.loop.time
    )
    if fetched is not None:
        if path.read_bytes() != whole:
            raise Wrong("a file was delivered with wrong bytes")
        done.append(seconds)
        path.unlink()
        stage.progress("reading", len(done), stage.readers)


def _describe(whole: bytes, network: str) -> tuple[Link, dict[KVPID, bytes]]:
    """Return the link of a file and all rows that are published with it."""
    parts = [whole[at : at + PART_BYTES] for at in range(0, len(whole), PART_BYTES)]
    hashes = [(sha1(part), blake3(part)) for part in parts]
    info, lists = build(sha1(whole), blake3(whole), len(whole), hashes, part_bytes=PART_BYTES)
    packed = info.to_bytes()
    rows = {KVPID(KeyBytes(info.hash), KeyBytes.new_hash(packed)): packed}
    for value in [packed, *parts, *lists]:
        rows[KVPID(KeyBytes.new_hash(value), KeyBytes.new_hash(value))] = value
    return Link("bytestag", info.hash, "file", "f", blake3(packed), network=network), rows
