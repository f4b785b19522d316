"""One node publishes values, and others, each at random, read them one after the other.

Measured: what publishing costs, whether the copies lie on the truly closest nodes, whether every
value is read and how long that takes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.stage import Peer, Stage, as_node, attempt
from bytestag.config import DAY
from bytestag.sim.cluster import Node
from bytestag.sim.workload import get, put, random_values
from bytestag.tables.base import KVPID

DEFAULTS: dict[str, Any] = {"copies": 8, "values": 100, "value_bytes": 1024, "population": -1}
KEEP_SECONDS = 90 * DAY


async def play(stage: Stage) -> None:
    await stage.populate()
    values = await publish(stage)
    await read_all(stage, values, target=1.0)


async def publish(
    stage: Stage, publisher: Node | Peer | None = None, *, is_judged: bool = True
) -> dict[KVPID, bytes]:
    """Let a node, by default a random one, publish the values, and add what that cost."""
    publisher = publisher or (await stage.some(1))[0]
    values = random_values(stage.values, stage.value_bytes, stage.rng)
    before, began = stage.sent, stage.now
    outcome = await put(as_node(publisher), values, copies=stage.copies, keep_seconds=KEEP_SECONDS)
    stage.checker.published(values)
    if outcome.copies_min:
        stage.checker.promised(values)
    seconds = stage.now - began
    datagrams, bytes_ = (after - b for after, b in zip(stage.sent, before, strict=True))
    wanted = min(stage.copies, stage.nodes - 1)
    stage.row("publish_seconds", seconds, "s")
    stage.row("publish_copies_min", outcome.copies_min, "copies", "==",
              wanted if is_judged else None)  # fmt: skip
    stage.row("publish_datagrams_per_value", datagrams / len(values), "datagrams")
    stage.row("publish_bytes_per_value", bytes_ / len(values), "bytes")
    placed = [stage.placed(kvpid, wanted, exclude=publisher.node_id) for kvpid in values]
    stage.row("publish_recall", statistics.fmean(placed), "share", ">=",
              0.99 if is_judged else None)  # fmt: skip
    stage.release(publisher)
    return values


async def read_all(stage: Stage, values: Mapping[KVPID, bytes], *, target: float) -> None:
    """Read each value once, by a random live node. Raises Wrong for a wrong byte."""
    seconds, done = [], 0
    for number, kvpid in enumerate(values):
        (reader,) = await stage.some(1)
        read, took = await attempt(get(as_node(reader), kvpid), stage.world.loop.time)
        if read is not None:
            stage.checker.delivered(kvpid, read)
            done += 1
            seconds.append(took)
        stage.release(reader)
        stage.progress("reading", number + 1, len(values))
    stage.row("get_success", done / max(len(values), 1), "share", ">=", target)
    stage.times("get_seconds", seconds)
