"""Paths: how long datagrams take between hosts, which links are special, which are cut (pure).

A path has one latency: that of its hosts' groups, if a matrix knows both, or else the product of
the median and of a share of each of its two hosts, which is lognormal over all paths.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping

from bytestag.sim.conditions import Conditions, Place

Names = Collection[Place]
"""What an endpoint can be meant by: its address, its host, that of the NAT in front of it."""


class Paths:
    """Latencies, overrides, partitions."""

    def __init__(self, seed: object) -> None:
        self.cuts: list[tuple[frozenset[Place], frozenset[Place]]] = []
        self.overrides: list[tuple[frozenset[Place], frozenset[Place], Conditions]] = []
        self._seed = seed
        self._shares: dict[str, float] = {}
        self._groups: Mapping[str, str] = {}
        self._matrix: Mapping[tuple[str, str], float] = {}

    # --- Latency ---------------------------------------------------------------------------------

    def use_matrix(
        self, groups: Mapping[str, str], seconds: Mapping[tuple[str, str], float]
    ) -> None:
        """Take latencies of one way from a matrix: host -> group, (group, group) -> seconds.

        Either order of two groups will do. Pairs that it does not know keep the lognormal latency.
        """
        self._groups = groups
        self._matrix = {**{(b, a): s for (a, b), s in seconds.items()}, **seconds}

    def latency(self, source: str, destination: str, conditions: Conditions) -> float:
        """Return the seconds of one way between two hosts, without jitter."""
        if self._matrix:
            groups = self._groups.get(source, ""), self._groups.get(destination, "")
            seconds = self._matrix.get(groups)
            if seconds is not None:
                return seconds
        if not conditions.spread:
            return conditions.latency
        spread = conditions.spread
        return self._share(source, spread) * self._share(destination, spread) * conditions.latency

    def _share(self, host: str, spread: float) -> float:
        """Return a host's factor: the product of two is lognormal with the wanted spread."""
        share = self._shares.get(host)
        if share is None:
            normal = random.Random(f"{self._seed} {host}").gauss(0.0, 1.0)
            share = math.exp(normal * spread / math.sqrt(2))
            self._shares[host] = share
        return share

    # --- Special links ---------------------------------------------------------------------------

    def override(
        self,
        places_a: Iterable[Place],
        places_b: Iterable[Place],
        conditions: Conditions,
        *,
        one_way: bool = False,
    ) -> None:
        """Give the links from A to B other conditions, and back unless ``one_way``; the last wins.

        With no spread its latency is that of each of these links.
        """
        a, b = frozenset(places_a), frozenset(places_b)
        self.overrides.append((a, b, conditions))
        if not one_way:
            self.overrides.append((b, a, conditions))

    def conditions(self, source: Names, destination: Names, usual: Conditions) -> Conditions:
        """Return the conditions of a link."""
        for a, b, conditions in reversed(self.overrides):
            if not (a.isdisjoint(source) or b.isdisjoint(destination)):
                return conditions
        return usual

    def cut(
        self, places_a: Iterable[Place], places_b: Iterable[Place], *, one_way: bool = False
    ) -> None:
        """Drop all datagrams from A to B, and back unless ``one_way``."""
        a, b = frozenset(places_a), frozenset(places_b)
        self.cuts.append((a, b))
        if not one_way:
            self.cuts.append((b, a))

    def is_cut(self, source: Names, destination: Names) -> bool:
        """Whether a partition lies between two endpoints."""
        return any(not (a.isdisjoint(source) or b.isdisjoint(destination)) for a, b in self.cuts)
