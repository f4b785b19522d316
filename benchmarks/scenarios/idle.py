"""Nodes that nobody uses.

Measured: what each sends by itself, from ten minutes after the last has joined: refresh, checks on
contacts, and repair, of which there is nothing to do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.stage import Stage
from bytestag.config import HOUR, MINUTE

DEFAULTS: dict[str, Any] = {"hours": 2.0}
SETTLING_SECONDS = 10 * MINUTE
WATCHED_SECONDS = 5 * MINUTE
BYTES_PER_SECOND_MAX = 1000


async def play(stage: Stage) -> None:
    await stage.join(stage.nodes)
    await asyncio.sleep(SETTLING_SECONDS)
    datagrams, bytes_ = first = stage.sent
    count = max(1, round(stage.hours * HOUR / WATCHED_SECONDS))
    points = []
    for number in range(count):
        await asyncio.sleep(WATCHED_SECONDS)
        sent = stage.sent
        rate = (sent[1] - bytes_) / WATCHED_SECONDS / stage.nodes
        points.append([(number + 1) * WATCHED_SECONDS / HOUR, rate])
        datagrams, bytes_ = sent
        stage.progress("watching", number + 1, count)
    node_seconds = count * WATCHED_SECONDS * stage.nodes
    traffic = (bytes_ - first[1]) / node_seconds
    stage.row("traffic_per_node", traffic, "B/s", "<=", BYTES_PER_SECOND_MAX)
    stage.row("datagrams_per_node", (datagrams - first[0]) / node_seconds, "1/s")
    stage.row("traffic_per_node_max", max(rate for _, rate in points), "B/s")
    stage.series("traffic", points)
