"""Full nodes join one after the other, and serve.

Measured: real seconds and memory of each node, what joining costs the network, whether look-ups by
random nodes then find the truly closest, and in how many hops. The targets are those of ten
thousand nodes, in proportion.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from benchmarks.scenarios.hops import look_around
from benchmarks.stage import SETTLING_SECONDS, Stage, wall
from benchmarks.trials import rss_mib_max

DEFAULTS: dict[str, Any] = {"lookups": 100}
SECONDS_PER_NODE_MAX = 0.06
MIB_PER_NODE_MAX = 0.6144
SMALL_NODES = 1000
"""Below, the program itself weighs more than the nodes."""


async def play(stage: Stage) -> None:
    began, mib = wall(), rss_mib_max()
    await stage.join(stage.nodes)
    seconds, (datagrams, bytes_) = wall() - began, stage.sent
    is_judged = stage.nodes >= SMALL_NODES
    stage.row("join_wall", seconds, "s")
    stage.row("join_wall_per_node", seconds / stage.nodes, "s", "<=",
              SECONDS_PER_NODE_MAX if is_judged else None)  # fmt: skip
    stage.row("memory_per_node", (rss_mib_max() - mib) / stage.nodes, "MiB", "<=",
              MIB_PER_NODE_MAX if is_judged else None)  # fmt: skip
    stage.row("join_datagrams_per_node", datagrams / stage.nodes, "datagrams")
    stage.row("join_bytes_per_node", bytes_ / stage.nodes, "bytes")
    contacts = [len(node.client.protocol.router) for node in stage.running]
    stage.row("contacts", statistics.median(contacts), "contacts")
    await asyncio.sleep(SETTLING_SECONDS)
    await look_around(stage)
