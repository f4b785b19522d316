"""10,000 full nodes, each joined through others by the node's own code, in one process.

``wall``: real seconds from nothing until the last has joined; ``rss``: the most memory that the
process ever had, the interpreter and 100 look-ups afterwards among it. ``lookups`` is the share of
these whose first contact was the truly closest node: they serve. One seed.

The peer is stock kademlia in the same world: as many unmodified servers that ``bootstrap`` in the
same way, through two that are there. ``--quick``: 500 nodes, judged in proportion.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.dht_rows import stock
from benchmarks.dht_rows.figures import Figure, Scale, figure, in_child, trial
from benchmarks.trials import rss_mib_max

SECONDS_MAX = 600.0
GIB_MAX = 6.0
NODES = 10_000


def measure(scale: Scale) -> Iterator[Figure]:
    nodes = NODES // 20 if scale.is_quick else NODES
    share = nodes / NODES
    found = trial("join", 1, nodes=nodes, lookups=100)
    theirs = in_child(_stock, nodes, 1)
    peers = {"kademlia": theirs["wall"]}
    wall = found["join_wall"]
    yield figure(f"joined_{nodes}_wall", wall, "s", "<=", share * SECONDS_MAX, peers)
    peers = {"kademlia": theirs["rss_gib"]}
    yield figure(f"joined_{nodes}_rss", found["rss_gib"], "GiB", "<=", share * GIB_MAX, peers)
    peers = {"kademlia": theirs["lookups"]}
    yield figure(f"joined_{nodes}_lookups", found["closest_found"], "share", ">=", 1.0, peers)
    yield figure(f"joined_{nodes}_contacts", found["contacts"], "contacts")
    datagrams = found["join_datagrams_per_node"]
    yield figure(f"joined_{nodes}_datagrams", datagrams, "datagrams/node")


def _stock(nodes: int, seed: int) -> dict[str, float]:
    async def play(net: stock.StockNetwork) -> dict[str, float]:
        began = time.perf_counter()
        await net.join(nodes)
        wall = time.perf_counter() - began
        found = [(await net.look_up())[1] for _ in range(100)]
        rss = rss_mib_max() / 1024
        return {"wall": wall, "rss_gib": rss, "lookups": sum(found) / len(found)}

    return stock.run(play, seed)
