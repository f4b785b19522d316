"""Churn: nodes that come and go for as long as people leave machines on (composition).

Sessions and times off are Weibull distributed, as measurements of networks found them: with a shape
below 1 most sessions are short and a few very long.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bytestag.config import HOUR
from bytestag.sim.cluster import Cluster, Node
from bytestag.sim.process import Killed


@dataclass(frozen=True, slots=True)
class Weibull:
    """Times in seconds with a shape and a median."""

    shape: float = 0.5
    median: float = HOUR

    @property
    def scale(self) -> float:
        return float(self.median / math.log(2) ** (1 / self.shape))

    @property
    def mean(self) -> float:
        return self.scale * math.gamma(1 + 1 / self.shape)

    def draw(self, rng: random.Random) -> float:
        """Return the length of one session."""
        return rng.weibullvariate(self.scale, self.shape)

    def draw_rest(self, rng: random.Random) -> float:
        """Return what is left, at a random instant, of the session that it falls into.

        Long sessions are met more often: of one met, (length/scale)^shape is gamma distributed.
        """
        met = self.scale * rng.gammavariate(1 + 1 / self.shape, 1.0) ** (1 / self.shape)
        return float(met * rng.random())


@dataclass(frozen=True, slots=True)
class Habits:
    """How the people behave whose nodes these are."""

    on: Weibull = Weibull()
    off: Weibull = Weibull()
    empty_share: float = 0.0
    """Share of returns without state, as somebody new."""
    stop_share: float = 0.0
    """Share of sessions that end in order; the others end with a crash."""


class Churn:
    """Lets nodes come and go. Each has a chance of its own: it does not depend on the others."""

    def __init__(self, cluster: Cluster, habits: Habits | None = None, seed: object = 0) -> None:
        self._cluster = cluster
        self._habits = habits or Habits()
        self._seed = seed
        self.counters: Counter[str] = Counter()
        """``crashes``, ``stops``, ``returns``, ``empty returns``."""

    async def run(self, nodes: Sequence[Node], seconds: float, *, is_settled: bool = True) -> None:
        """Let running nodes come and go for a time; they stay as they are at its end.

        If ``is_settled``, it is as if they had done so for long: some are off at once, and the
        sessions of the others began a while ago.
        """
        until = self._cluster.world.loop.time() + seconds
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(self._live(node, until, is_settled=is_settled))

    async def _live(self, node: Node, until: float, *, is_settled: bool) -> None:
        rng = random.Random(f"{self._seed} churn {node.number}")
        on, off = self._habits.on, self._habits.off
        is_off = is_settled and rng.random() < off.mean / (on.mean + off.mean)
        first = (off if is_off else on).draw_rest(rng) if is_settled else on.draw(rng)
        if is_off:
            await self._leave(node, rng)
        if not await self._sleep(first, until):
            return
        while True:
            if node.is_running:
                await self._leave(node, rng)
                if not await self._sleep(off.draw(rng), until):
                    return
            await self._return(node, rng)
            if not await self._sleep(on.draw(rng), until):
                return

    async def _sleep(self, seconds: float, until: float) -> bool:
        """Sleep, but not beyond ``until``; return whether there is time left."""
        left = until - self._cluster.world.loop.time()
        await asyncio.sleep(max(min(seconds, left), 0.0))
        return seconds < left

    async def _leave(self, node: Node, rng: random.Random) -> None:
        if rng.random() < self._habits.stop_share:
            self.counters["stops"] += 1
            await self._cluster.stop(node)
        else:
            self.counters["crashes"] += 1
            self._cluster.crash(node)

    async def _return(self, node: Node, rng: random.Random) -> None:
        is_empty = rng.random() < self._habits.empty_share
        self.counters["empty returns" if is_empty else "returns"] += 1
        try:
            await self._cluster.come_back(node, with_state=not is_empty)
        except Killed:  # by somebody else, while it joined
            pass
