"""The run behind ``bytestag demo``: real nodes, real UDP on loopback, real SQLite (composition)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytestag import config
from bytestag.cli.values import count, print_size
from bytestag.client import Client, ClientOptions
from bytestag.config import GIB, MIB
from bytestag.crypto.identity import Address, Identity
from bytestag.dht.publishing import PublishOutcome
from bytestag.events.runtime import Runtime
from bytestag.tables.opening import open_stores
from bytestag.tables.stores import Stores, memory_stores

DEMO_COPIES = 3
NAME = "demo-data"
SIZES = {
    "README.txt": 812,
    "empty.dat": 0,
    "large/recording.raw": 5 * MIB + 12_345,
    "large/table.csv": 1 * MIB,
    "naïve/données été.txt": 4_096,
    "日本語/数据 🐍.bin": 70_000,
    "one-part.bin": 256 * 1024,
    "one-part-and-a-byte.bin": 256 * 1024 + 1,
}
SMALL_FILES = 12


@dataclass(slots=True)
class DemoResult:
    """What the demo showed."""

    nodes: int = 0
    files: int = 0
    bytes: int = 0
    values: int = 0
    copies_min: int = 0
    publisher_stopped: bool = False
    verified: bool = False
    sources: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all went as it should."""
        return self.copies_min >= DEMO_COPIES and self.publisher_stopped and self.verified

    def as_object(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        return {"ok": self.ok, **dataclasses.asdict(self), "seconds": round(self.seconds, 3)}


async def run_demo(
    count_nodes: int, copies: int, runtime: Runtime, note: Callable[[str], object]
) -> DemoResult:
    """Share, push, stop the publisher, fetch elsewhere, compare."""
    result = DemoResult(nodes=count_nodes)
    began = runtime.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="bytestag-demo-"))
    try:
        source = directory / NAME
        files, size = await runtime.offload(make_files, source)
        result.files, result.bytes = files, size
        async with contextlib.AsyncExitStack() as stack:
            nodes = await _start_nodes(count_nodes, directory, runtime, stack)
            note(
                f"{count(count_nodes, 'node')} up on loopback in "
                f"{runtime.monotonic() - began:.1f} s  (temporary, nothing kept)"
            )
            link, outcome = await _publish(directory, nodes[0].address, copies, runtime, note)
            result.values, result.copies_min = outcome.rows, outcome.copies_min
            address = link.hints[0]
            result.publisher_stopped = await runtime.offload(_is_port_free, address)
            note(f"stopped the publisher on purpose; its port {address[1]} is closed")
            began_fetch = runtime.monotonic()
            dest = directory / "fetched"
            async with _node(runtime, known=nodes[-1].address) as reader:
                await reader.join()
                progress = await reader.fetch(link, dest)
            result.sources = progress.sources
            result.verified = await runtime.offload(is_same_tree, source, dest)
            note(
                f"fetched {count(progress.files, 'file')}, {print_size(progress.bytes)} in "
                f"{runtime.monotonic() - began_fetch:.1f} s from {progress.sources} nodes, "
                + ("compared byte for byte" if result.verified else "NOT the same")
            )
    finally:
        await runtime.offload(shutil.rmtree, directory, ignore_errors=True)
    result.seconds = runtime.monotonic() - began
    return result


async def _publish(
    directory: Path,
    known: Address,
    copies: int,
    runtime: Runtime,
    note: Callable[[str], object],
) -> tuple[Any, PublishOutcome]:
    """Share the files by a node that ends with this; return the link and what became of it."""
    source = directory / NAME
    async with _node(runtime, known=known, directory=directory / "publisher") as publisher:
        await publisher.join()
        root, scan = await publisher.sharing.add(source)
        link = publisher.sharing.link_to(root)
        note(f"shared {NAME}/  {count(scan.files, 'file')}, {print_size(scan.bytes_hashed)}")
        note(f"  {link}")
        outcome = await publisher.sharing.publish(source, copies=copies, keep_seconds=config.DAY)
        note(
            f"pushed {count(outcome.rows, 'value')} × {copies} copies, "
            f"{print_size(outcome.bytes_pushed)}, to {outcome.donors} donors"
        )
    return link, outcome


async def _start_nodes(
    number: int, directory: Path, runtime: Runtime, stack: contextlib.AsyncExitStack
) -> list[Client]:
    nodes: list[Client] = []
    for i in range(number):
        known = nodes[0].address if nodes else None
        place = directory / f"node-{i}"
        node = await stack.enter_async_context(
            _node(runtime, known=known, directory=place, is_donor=True)
        )
        await node.join()
        nodes.append(node)
    return nodes


@asynccontextmanager
async def _node(
    runtime: Runtime,
    *,
    known: Address | None,
    directory: Path | None = None,
    is_donor: bool = False,
) -> AsyncIterator[Client]:
    """Run a node on loopback: with a directory it keeps its tables there, else it only asks."""
    cache_bytes = GIB if is_donor else 0
    demo_config = config.local("demo").replace(cache_bytes=cache_bytes)
    identity = Identity.generate(os.urandom)
    options = ClientOptions(
        known_nodes=(known,) if known is not None else (),
        is_donor=is_donor,
        is_client=directory is None,
    )
    async with Client(
        identity,
        await _stores(directory, cache_bytes, identity, runtime),
        options,
        demo_config,
        runtime,
    ) as client:
        yield client


async def _stores(
    directory: Path | None, cache_bytes: int, identity: Identity, runtime: Runtime
) -> Stores:
    if directory is None:
        return memory_stores(0, identity.node_id, runtime.wall)
    return await runtime.offload(
        open_stores,
        directory,
        directory / "cache",
        cache_bytes,
        identity.node_id,
        runtime.wall,
    )


def make_files(directory: Path) -> tuple[int, int]:
    """Make the files of the demo; return how many and their bytes."""
    rng = random.Random(2012)
    sizes = SIZES | {f"small/{i:02}.txt": rng.randrange(1, 3000) for i in range(SMALL_FILES)}
    for name, size in sizes.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
    return len(sizes), sum(sizes.values())


def is_same_tree(one: Path, other: Path) -> bool:
    """Return whether two directories hold the same names and the same bytes."""
    return _tree(one) == _tree(other)


def _tree(directory: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def _is_port_free(address: Address) -> bool:
    """Return whether nobody can answer at a UDP address: we can have it ourselves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(address)
        except OSError:
            return False
    return True
