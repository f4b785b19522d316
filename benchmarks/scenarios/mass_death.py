"""A share of all nodes dies in one instant, as in a power cut; the others look up and read.

Measured at once after it, before anybody could notice: whether look-ups find the truly closest live
node, and when they end; whether values that still have a live holder are read. Who reads remembers
nothing of the values. The times are judged at half of the nodes and a median round trip of 100 ms.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.scenarios.publish_fetch import publish, read_all
from benchmarks.stage import SETTLING_SECONDS, Stage
from bytestag.config import ALPHA
from bytestag.keys import KeyBytes

DEFAULTS: dict[str, Any] = {
    "dead_share": 0.5, "copies": 8, "values": 100, "value_bytes": 1024, "lookups": 100,
    "population": -1, "alpha": ALPHA,
}  # fmt: skip
JUDGED = {"dead_share": 0.5, "latency": 0.05, "loss": 0.0, "alpha": ALPHA}


async def play(stage: Stage) -> None:
    await stage.populate()
    await asyncio.sleep(SETTLING_SECONDS)
    values = await publish(stage)
    stage.kill(stage.dead_share)
    alive = {kvpid: value for kvpid, value in values.items() if stage.is_held(kvpid)}
    stage.row("values_with_a_live_holder", len(alive) / len(values), "share")
    await look_up(stage)
    await read_all(stage, alive, target=0.999)


async def look_up(stage: Stage) -> None:
    """Look for the live nodes closest to random keys."""
    seconds, found = [], 0
    for number in range(stage.lookups):
        (node,) = await stage.some(1)
        target = KeyBytes(stage.rng.randbytes(20))
        began = stage.now
        network = node.client.dht_network
        outcome = await node.run(network.lookup(target, is_thorough=False, alpha=stage.alpha))
        seconds.append(stage.now - began)
        closest = stage.closest_ids(target, 1, exclude=node.node_id)
        found += bool(outcome.contacts) and outcome.contacts[0].id == closest[0]
        stage.release(node)
        stage.progress("looking up", number + 1, stage.lookups)
    stage.row("closest_found", found / stage.lookups, "share")
    stage.times("lookup_seconds", seconds)
    if all(stage.parameters[name] == value for name, value in JUDGED.items()):
        stage.judge("lookup_seconds_p50", "<=", 0.7)
        stage.judge("lookup_seconds_p95", "<=", 1.2)
