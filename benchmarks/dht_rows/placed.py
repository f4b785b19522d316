"""1,000 nodes, nobody dead, nothing lost: does a look-up find the closest, do copies lie there?

``lookups``: share of 200 look-ups of random keys by random nodes whose first contact was the truly
closest node. ``copies``: one node puts 100 values of 100 bytes, 20 copies each (k of the peer), and
of each value's 20 truly closest nodes, the publisher apart, the share that holds it is counted.
``gets``: share of these values that a random node reads, every byte right.

The peer is stock kademlia (k = 20, alpha = 3) in the same virtual world: ``Server.set`` of as many
values, then its own node crawl for random keys and ``Server.get`` by random nodes. Its stores may
set off a storm of stores without end; what it could not do before counts as not done.
``--quick``: 200 nodes.
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

COPIES = 20
VALUES = 100
VALUE_BYTES = 100


def measure(scale: Scale) -> Iterator[Figure]:
    nodes = 200 if scale.is_quick else 1000
    lookups = 100 if scale.is_quick else 200

    def ours(seed: int) -> Measured:
        walked = trial("join", seed, nodes=nodes, lookups=lookups)
        put = trial(
            "publish-fetch", seed, nodes=nodes, copies=COPIES, values=VALUES,
            value_bytes=VALUE_BYTES, population=0,
        )  # fmt: skip
        return {
            "lookups": walked["closest_found"],
            "hops": walked["hops"],
            "copies": put["publish_recall"],
            "gets": put["get_success"],
        }

    found = over_seeds(ours, scale.seeds)
    theirs = over_seeds(lambda s: in_child(_stock, nodes, s, lookups // 4), 1)
    for name, unit, target in (
        ("lookups", "share", 1.0),
        ("copies", "share", 0.99),
        ("gets", "share", 1.0),
    ):
        peers = {"kademlia": median(theirs, name)}
        yield figure(f"placed_{nodes}_{name}", found[name], unit, ">=", target, peers)


def _stock(nodes: int, seed: int, lookups: int) -> dict[str, float]:
    async def play(net: stock.StockNetwork) -> dict[str, float]:
        await net.join(nodes)
        closest = [(await net.look_up())[1] for _ in range(lookups)]
        values = {f"key {i}": net.rng.randbytes(VALUE_BYTES) for i in range(VALUES)}
        for key, value in values.items():
            await net.set(key, value)
            if net.has_stormed:
                break
        placed = sum(net.placed(key, COPIES) for key in values) / VALUES
        got = 0
        for key, value in values.items():
            if net.has_stormed:
                break
            got += await net.get(key) == value
        return {
            "lookups": sum(closest) / lookups,
            "copies": placed,
            "gets": got / VALUES,
            "stormed": float(net.has_stormed),
        }

    return stock.run(play, seed)
