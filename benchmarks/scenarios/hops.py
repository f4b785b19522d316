"""Look-ups of random keys by random nodes, up to ten million of them.

Measured: the requests along the chain of referrals to the closest node, beside a model of the same
routing table (``benchmarks/monte_carlo.py``); how often the closest is found, and how many of the
20 truly closest; time and requests of a look-up. Nobody is dead and nothing is lost, unless the
parameters say so. Nodes are born with the tables of a network at rest; how real ones come near to
that is measured by ``join``.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.hops import watched_walks
from benchmarks.monte_carlo import Model, Rule
from benchmarks.stage import Stage
from bytestag.config import ALPHA, K
from bytestag.keys import KeyBytes

DEFAULTS: dict[str, Any] = {"lookups": 200, "population": 1}
MODEL_LOOKUPS = 1000
TARGETS = {10_000: 2.75, 10_000_000: 4.6}


async def play(stage: Stage) -> None:
    await stage.populate()
    await look_around(stage)
    expected = statistics.fmean(Model(stage.nodes, Rule(K, 5, ALPHA)).hops(MODEL_LOOKUPS))
    hops = next(row.number for row in stage._record.rows if row.name == "hops")
    stage.row("hops_of_model", expected, "hops")
    stage.row("hops_off_model", abs(hops / expected - 1), "share", "<=", 0.1)


async def look_around(stage: Stage) -> None:
    """Look up random keys, and add what came of it."""
    hops, seconds, asked, recalls = [], [], [], []
    loop = stage.world.loop
    with watched_walks() as walks:
        for done in range(stage.lookups):
            (node,) = await stage.some(1)
            target = KeyBytes(stage.rng.randbytes(20))
            began = loop.time()
            outcome = await node.run(node.client.dht_network.lookup(target, is_thorough=False))
            seconds.append(loop.time() - began)
            asked.append(outcome.asked)
            closest = stage.closest_ids(target, K, exclude=node.node_id)
            known = {contact.id for contact in outcome.known}
            recalls.append(sum(node_id in known for node_id in closest) / len(closest))
            found = bool(outcome.known) and outcome.known[0].id == closest[0]
            hops.append(walks.hops(target, closest[0]) if found else 0)
            stage.release(node)
            stage.progress("looking up", done + 1, stage.lookups)
    found_hops = [number for number in hops if number]
    stage.row("closest_found", len(found_hops) / len(hops), "share", ">=", 1.0)
    stage.row("recall", statistics.fmean(recalls), "share")
    stage.row("hops", statistics.fmean(found_hops or [0]), "hops", "<=", TARGETS.get(stage.nodes))
    stage.row("hops_max", max(hops), "hops")
    stage.row("lookup_requests", statistics.fmean(asked), "requests")
    stage.times("lookup_seconds", seconds)
