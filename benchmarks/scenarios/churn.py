"""Nodes come and go; values are read meanwhile.

Sessions and times off are Weibull distributed (shape 0.5), most end with a crash. Measured: what
each running node sends, reads that succeed at once and after one more try by another node, those
left apart whose reader went off. The network has been like this for an hour when one more node,
which stays and holds nothing, publishes the values. Some reads are of values whose holders are all
off: they are counted, and said apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from benchmarks.scenarios.publish_fetch import publish
from benchmarks.stage import Stage, attempt
from bytestag.config import HOUR, MINUTE
from bytestag.sim.churn import Churn, Habits, Weibull
from bytestag.sim.cluster import Node
from bytestag.sim.workload import get
from bytestag.tables.base import KVPID

DEFAULTS: dict[str, Any] = {
    "hours": 1.0, "copies": 8, "values": 100, "value_bytes": 1024, "lookups": 300,
    "session_minutes": 60.0, "empty_share": 0.0,
}  # fmt: skip
RETRY_SECONDS = 5.0
SETTLING_SECONDS = HOUR
PUBLISHING_SECONDS = 10 * MINUTE


async def play(stage: Stage) -> None:
    nodes = await stage.join(stage.nodes)
    churn = make_churn(stage)
    seconds = stage.hours * HOUR
    async with asyncio.TaskGroup() as group:
        group.create_task(churn.run(nodes, SETTLING_SECONDS + PUBLISHING_SECONDS + seconds))
        await asyncio.sleep(SETTLING_SECONDS)
        publishing = stage.now
        (publisher,) = await stage.join(1, is_donor=False)
        values = await publish(stage, publisher, is_judged=False)
        await asyncio.sleep(max(0.0, publishing + PUBLISHING_SECONDS - stage.now))
        datagrams, bytes_ = stage.sent
        running = await read_on(stage, list(values), stage.lookups, seconds, "get")
        sent = stage.sent
    node_seconds = running * seconds
    stage.row("running", running, "nodes")
    stage.row("traffic_per_node", (sent[1] - bytes_) / node_seconds, "B/s")
    stage.row("datagrams_per_node", (sent[0] - datagrams) / node_seconds, "1/s")
    ends = churn.counters["crashes"] + churn.counters["stops"]
    stage.row("ends_per_node_hour", ends / stage.nodes / (stage.now / HOUR), "1/h")


def make_churn(stage: Stage) -> Churn:
    """Return the churn of the stage's parameters."""
    length = Weibull(0.5, stage.session_minutes * MINUTE)
    assert stage.cluster is not None
    return Churn(stage.cluster, Habits(length, length, stage.empty_share), stage.world.seed)


async def read_on(
    stage: Stage, kvpids: Sequence[KVPID], reads: int, seconds: float, name: str
) -> float:
    """Spread reads over a time, and add how they went; return how many nodes ran on average.

    The values were acknowledged for longer than that.
    """
    stage.checker.promised(kvpids)
    at_once = retried = tried = running = unheld = 0
    took: list[float] = []
    for number in range(reads):
        await asyncio.sleep(seconds / reads)
        running += len(stage.running)
        kvpid = kvpids[number % len(kvpids)]
        outcome = await _read(stage, kvpid, took)
        if outcome is None:
            continue
        tried += 1
        at_once += outcome
        unheld += not outcome and not stage.is_held(kvpid)
        if not outcome:
            await asyncio.sleep(RETRY_SECONDS)
            outcome = await _read(stage, kvpid, took)
        retried += bool(outcome)
        stage.progress("reading", number + 1, reads)
    stage.row(f"{name}_at_once", at_once / max(tried, 1), "share", ">=", 0.99)
    stage.row(f"{name}_with_one_retry", retried / max(tried, 1), "share", ">=", 0.999)
    stage.row(f"{name}_failed_without_holder", unheld / max(tried, 1), "share")
    stage.times(f"{name}_seconds", took)
    return running / reads


async def _read(stage: Stage, kvpid: KVPID, took: list[float]) -> bool | None:
    """Return whether a random node could read a value; None if it went off, or nobody is on."""
    if not stage.running:
        return None
    node: Node = stage.rng.choice(stage.running)
    life = node.lives
    value, seconds = await attempt(get(node, kvpid), stage.world.loop.time)
    if not node.is_running or node.lives != life:
        return None
    if value is not None:
        stage.checker.delivered(kvpid, value)
        took.append(seconds)
    return value is not None
