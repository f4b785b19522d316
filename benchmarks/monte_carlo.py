"""The hops that a routing table's rule promises: a model of look-ups without nodes or messages.

Identities are 64 random bits in order. A node's bucket is a random choice of ``k`` among the
identities of its range, or all of them; a range is split while it holds more than ``k`` and either
holds the node itself or has a depth that is no multiple of ``split_every`` (1 for the buckets of
the Kademlia paper, 5 for ours). Answers come in waves: ``alpha`` of the closest are asked, all
answer, the next are chosen. Nothing here is shared with :mod:`bytestag`.

The hops of a look-up are the requests along the chain that led to the closest node: 1 if the asker
knew it.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

BITS = 64
DEPTH_MAX = 60


@dataclass(frozen=True, slots=True)
class Rule:
    """How tables are built and look-ups are made."""

    k: int = 20
    split_every: int = 5
    alpha: int = 8


class Model:
    """A network of so many identities."""

    def __init__(self, nodes: int, rule: Rule, seed: object = 0) -> None:
        self._rule = rule
        self._chance = random.Random(f"{seed} model")
        self._ids = array("Q", sorted(self._chance.getrandbits(BITS) for _ in range(nodes)))

    def hops(self, lookups: int) -> list[int]:
        """Return the hops of look-ups of random keys by random nodes; 0 where it was not found."""
        chance = self._chance
        return [
            self._lookup(self._ids[chance.randrange(len(self._ids))], chance.getrandbits(BITS))
            for _ in range(lookups)
        ]

    def _lookup(self, asker: int, target: int) -> int:
        k, alpha = self._rule.k, self._rule.alpha
        depths = {node ^ target: 1 for node in self._known_to(asker, target)}
        asked: set[int] = {asker ^ target}
        while True:
            wave = [d for d in sorted(depths)[:k] if d not in asked][:alpha]
            if not wave:
                best = min(depths)
                return depths[best] if best == self._closest(asker, target) else 0
            for distance in wave:
                asked.add(distance)
                for node in self._known_to(distance ^ target, target):
                    if node != asker:
                        depths.setdefault(node ^ target, depths[distance] + 1)

    def _closest(self, asker: int, target: int) -> int:
        """Return the distance of the node closest to a target, the asker apart."""
        for depth in range(DEPTH_MAX, -1, -1):
            first, end = self._range(target >> (BITS - depth), depth)
            if end - first > 2:
                return min(node ^ target for node in self._ids[first:end] if node != asker)
        raise ValueError("a model has more than two nodes")

    def _known_to(self, owner: int, target: int) -> list[int]:
        """Return the ``k`` contacts in a node's table that are closest to a target."""
        found: list[int] = []
        for members in self._buckets(owner, target, 0, 0):
            found += members
            if len(found) >= self._rule.k:
                break
        return sorted(found, key=lambda node: node ^ target)[: self._rule.k]

    def _buckets(self, owner: int, target: int, prefix: int, depth: int) -> Iterator[list[int]]:
        """Yield the members of each bucket of a subtree, the one nearest to the target first."""
        first, end = self._range(prefix, depth)
        if first == end:
            return
        is_own = owner >> (BITS - depth) == prefix
        may_split = depth < DEPTH_MAX and (is_own or depth % self._rule.split_every)
        if end - first - is_own > self._rule.k and may_split:
            nearer = target >> (BITS - depth - 1) & 1
            for bit in (nearer, 1 - nearer):
                yield from self._buckets(owner, target, 2 * prefix | bit, depth + 1)
            return
        ranks = self._chance.sample(range(first, end), min(end - first, self._rule.k + is_own))
        yield [self._ids[rank] for rank in ranks if self._ids[rank] != owner][: self._rule.k]

    def _range(self, prefix: int, depth: int) -> tuple[int, int]:
        shift = BITS - depth
        first = bisect_left(self._ids, prefix << shift)
        if prefix + 1 == 1 << depth:
            return first, len(self._ids)
        return first, bisect_left(self._ids, (prefix + 1) << shift, first)


def main() -> int:
    """Print, and draw, the hops for several k and sizes of the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--k", default="4,8,12,16,20,32", help="sizes of a bucket")
    parser.add_argument("--nodes", default="10000,100000", help="sizes of the network")
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--plot", help="file to draw into")
    arguments = parser.parse_args()
    sizes = [int(k) for k in arguments.k.split(",")]
    curves = {}
    for nodes in map(int, arguments.nodes.split(",")):
        means = [statistics.fmean(Model(nodes, Rule(k=k)).hops(arguments.lookups)) for k in sizes]
        curves[nodes] = means
        for k, mean in zip(sizes, means, strict=True):
            print(f"nodes {nodes}  k {k}  hops {mean:.2f}", flush=True)
    if arguments.plot:
        _draw(sizes, curves, arguments.plot)
    return 0


def _draw(sizes: list[int], curves: dict[int, list[float]], path: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    axes = figure.subplots()
    for nodes, means in curves.items():
        axes.plot(sizes, means, "o-", label=f"{nodes:,} nodes")
    axes.set(xlabel="k", ylabel="hops to the closest node", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
