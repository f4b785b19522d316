"""A node announces many keys in one sweep over the key space, and renews them.

Measured: the requests and all datagrams that it sends, and all bytes, both ways, for each key;
what the holders say; whether the 20 nodes truly closest to a key have its record. Judged for a
million keys.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.stage import Stage
from bytestag.dht.providing import Announced, SortedKeys
from bytestag.keys import KeyBytes

DEFAULTS: dict[str, Any] = {"keys": 10_000, "lookups": 100, "population": -1}
JUDGED_KEYS = 1_000_000


async def play(stage: Stage) -> None:
    await stage.populate()
    (node,) = await stage.some(1)
    keys = SortedKeys(KeyBytes(stage.rng.randbytes(20)) for _ in range(stage.keys))
    done = await _announce(stage, node, keys, "announce", (0.40, 500.0), is_renewal=False)
    stage.row("announce_records", done.accepted, "records")
    stage.row("announce_unreachable", done.unreachable, "holders")
    copies = min(node.client.config.record_copies, stage.nodes - 1)
    sample = stage.rng.sample(keys.between(0, 1 << 160), min(stage.lookups, len(keys)))
    shares = []
    for key in sample:
        near = stage.closest_stores(key, copies, exclude=node.node_id)
        wall = node.client.runtime.wall()
        shares.append(sum(bool(s and s.providers.lookup(key, wall)) for s in near) / copies)
    stage.row("announce_recall", statistics.fmean(shares), "share", ">=", 0.99)
    done = await _announce(stage, node, keys, "renewal", (0.02, None), is_renewal=True)
    stage.row("renewal_records", done.renewed, "records")
    stage.row("renewal_brought_anew", done.accepted, "records")


async def _announce(
    stage: Stage,
    node: Any,
    keys: SortedKeys,
    name: str,
    targets: tuple[float | None, float | None],
    *,
    is_renewal: bool,
) -> Announced:
    """Announce or renew, and add the cost for each key."""
    counted = stage.count_sent(node)
    bytes_, began = stage.sent[1], stage.now
    stage.progress(name, 0, 1)
    done: Announced = await node.run(node.client.announcer.announce(keys, is_renewal=is_renewal))
    stage.progress(name, 1, 1)
    if len(keys) < JUDGED_KEYS:
        targets = (None, None)
    stage.row(f"{name}_seconds", stage.now - began, "s")
    requests, datagrams = counted()
    stage.row(f"{name}_requests_per_key", requests / len(keys), "datagrams", "<=", targets[0])
    stage.row(f"{name}_datagrams_per_key", datagrams / len(keys), "datagrams")
    bytes_per_key = (stage.sent[1] - bytes_) / len(keys)
    stage.row(f"{name}_bytes_per_key", bytes_per_key, "bytes", "<=", targets[1])
    return done
