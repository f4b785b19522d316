"""A publisher leaves once its values have their copies, and days pass.

Nodes come and go (Weibull, shape 0.5), and have done so for an hour; some come back empty. Each
value is read once a day by a random live node. Measured: reads that succeed, how many copies there
are, running or off, and what all that is sent costs each node and day: refresh and joining as well
as repair.
"""

from __future__ import annotations

import asyncio
import statistics
from typing import Any

from benchmarks.scenarios.churn import SETTLING_SECONDS, make_churn, read_on
from benchmarks.stage import Stage
from bytestag.config import DAY, HOUR
from bytestag.sim.workload import put, random_values
from bytestag.tables.base import KVPID, KVPTable, Standing

DEFAULTS: dict[str, Any] = {
    "days": 3.0, "copies": 8, "values": 100, "value_bytes": 1024, "session_minutes": 60.0,
    "empty_share": 0.0035, "repair_minutes": 60.0,
}  # fmt: skip
"""Of 2.9 returns a day; so one node in a hundred comes back empty on each."""
KEEP_SECONDS = 90 * DAY
WATCHED_SECONDS = 3 * HOUR


async def play(stage: Stage) -> None:
    nodes = await stage.join(stage.nodes)
    values = random_values(stage.values, stage.value_bytes, stage.rng)
    seconds = stage.days * DAY
    curves: dict[str, list[list[float]]] = {"copies_running": [], "copies_in_all": []}
    async with asyncio.TaskGroup() as group:
        group.create_task(make_churn(stage).run(nodes, SETTLING_SECONDS + seconds))
        await asyncio.sleep(SETTLING_SECONDS)
        (publisher,) = await stage.join(1, is_donor=False)
        outcome = await put(publisher, values, copies=stage.copies, keep_seconds=KEEP_SECONDS)
        stage.row("published_copies_min", outcome.copies_min, "copies")
        assert stage.cluster is not None
        await stage.cluster.stop(publisher)
        bytes_ = stage.sent[1]
        watching = group.create_task(_watch(stage, list(values), curves))
        reads = max(1, round(stage.values * stage.days))
        running = await read_on(stage, list(values), reads, seconds, "read")
        sent = stage.sent[1]
        watching.cancel()
    for name, points in curves.items():
        stage.series(name, points)
        stage.row(f"{name}_mean", statistics.fmean(y for _, y in points), "copies")
    stage.row("values_without_a_copy", _count_lost(stage, list(values)), "values", "<=", 0)
    stage.row("running", running, "nodes")
    stage.row("bytes_per_node_day", (sent - bytes_) / stage.nodes / stage.days, "bytes")


async def _watch(stage: Stage, kvpids: list[KVPID], curves: dict[str, list[list[float]]]) -> None:
    """Count copies now and then."""
    assert stage.cluster is not None
    began, wanted = stage.now, frozenset(kvpids)
    while True:
        day = (stage.now - began) / DAY
        on = [node.stores.cache for node in stage.running]
        in_all = [node.stores.cache for node in stage.cluster.nodes]
        for name, caches in (("copies_running", on), ("copies_in_all", in_all)):
            copies = sum(
                _keeps(cache, kvpid) for cache in caches for kvpid in cache if kvpid in wanted
            )
            curves[name].append([day, copies / len(kvpids)])
        await asyncio.sleep(WATCHED_SECONDS)


def _keeps(cache: KVPTable, kvpid: KVPID) -> bool:
    """Whether a node holds a value because of its deposit; what a read left behind is no copy."""
    rows = cache.records_by_key(kvpid.key)
    return any(row.index == kvpid.index and row.standing is Standing.KEPT for row in rows)


def _count_lost(stage: Stage, kvpids: list[KVPID]) -> int:
    """Return how many values nobody has in the end, running or off."""
    assert stage.cluster is not None
    caches = [node.stores.cache for node in stage.cluster.nodes]
    return sum(not any(kvpid in cache for cache in caches) for kvpid in kvpids)
