"""Half of 1,000 nodes die in one instant; the others look up and read at once, before they notice.

``closest``: seconds (virtual) until ``lookup`` returned, of 200 random keys by random live nodes;
one-way latency 50 ms in the median (round trip 100 ms), lognormal with the default spread, no loss.
``closest_found`` is the share of them whose first contact was the truly closest live node.
``gets``: reads of 1,000 values of 1 KiB with 8 copies that still have a live holder, each by a
random live node, counted when every byte is right.

The peer is stock kademlia (k = 20, alpha = 3) in the same virtual world: time of its own node
crawl, and whether the first of what it returns is the closest live node. Its 5 s timeouts are
virtual, too. ``--quick``: 300 nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.dht_rows import stock
from benchmarks.dht_rows.figures import (
    Figure,
    Measured,
    Scale,
    figure,
    in_child,
    median,
    over_seeds,
    trial,
)
from benchmarks.stage import percentile

SHARE = 0.5


def measure(scale: Scale) -> Iterator[Figure]:
    nodes, values, lookups = (300, 200, 100) if scale.is_quick else (1000, 1000, 200)

    def ours(seed: int) -> Measured:
        return trial(
            "mass-death", seed, nodes=nodes, dead_share=SHARE, latency=0.05, values=values,
            copies=8, lookups=lookups, population=0,
        )  # fmt: skip

    found = over_seeds(ours, scale.seeds)
    theirs = over_seeds(lambda seed: in_child(_stock, nodes, seed, lookups // 4), 1)
    for name, unit, op, target in (
        ("lookup_seconds_p50", "s", "<=", 0.7),
        ("lookup_seconds_p95", "s", "<=", 1.2),
        ("closest_found", "share", ">=", None),
    ):
        peers = {"kademlia": median(theirs, name)}
        yield figure(f"half_dead_{nodes}_{name}", found[name], unit, op, target, peers)
    yield figure(
        f"half_dead_{nodes}_gets", found["get_success"], "share", ">=", 0.999, {"kademlia": None}
    )
    yield figure(f"half_dead_{nodes}_get_seconds_p95", found["get_seconds_p95"], "s")


def _stock(nodes: int, seed: int, lookups: int) -> dict[str, float]:
    async def play(net: stock.StockNetwork) -> dict[str, float]:
        await net.join(nodes)
        net.kill(SHARE)
        seconds, found = [], 0
        for _ in range(lookups):
            took, is_closest = await net.look_up()
            seconds.append(took)
            found += is_closest
        return {
            "lookup_seconds_p50": percentile(seconds, 50),
            "lookup_seconds_p95": percentile(seconds, 95),
            "closest_found": found / lookups,
        }

    return stock.run(play, seed)
