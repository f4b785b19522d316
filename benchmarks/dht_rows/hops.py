"""Hops of a look-up at 10^4 and 10^7 nodes, k = 20, beside a Monte Carlo of the table rule in use.

A hop is a request along the chain of referrals that led to the closest node, the last one to that
node itself. 400 look-ups (200 at 10^7) of random keys by random nodes that are born with the tables
of a network at rest; the model (``benchmarks/monte_carlo.py``) shares no code with the node.
``off_model`` is the difference as a share of the model's hops. One seed at 10^7.
``--quick``: 10^4 nodes only.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.dht_rows.figures import Figure, Scale, figure, over_seeds, trial

SIZES = {10_000: (400, 2.75), 10_000_000: (200, 4.6)}


def measure(scale: Scale) -> Iterator[Figure]:
    for nodes, (lookups, target) in SIZES.items():
        if scale.is_quick and nodes > 10_000:
            continue

        def play(seed: int, nodes: int = nodes, lookups: int = lookups) -> dict[str, float]:
            return trial("hops", seed, nodes=nodes, lookups=lookups, population=1)

        found = over_seeds(play, scale.seeds if nodes <= 10_000 else 1)
        name = f"hops_1e{len(str(nodes)) - 1}"
        yield figure(name, found["hops"], "hops", "<=", target)
        yield figure(f"{name}_of_model", found["hops_of_model"], "hops")
        yield figure(f"{name}_off_model", found["hops_off_model"], "share", "<=", 0.1)
        yield figure(f"{name}_closest_found", found["closest_found"], "share", ">=", 1.0)
