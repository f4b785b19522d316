"""Nodes come and go as their habits say, each by its own chance."""

import asyncio
import random
import statistics

import pytest

from bytestag.sim import run
from bytestag.sim.churn import Churn, Habits, Weibull
from bytestag.sim.cluster import Cluster
from bytestag.sim.workload import get, put, random_values


def test_sessions_have_the_median_the_mean_and_the_heavy_tail_that_they_should():
    rng = random.Random(1)
    habit = Weibull(shape=0.5, median=3600)
    drawn = [habit.draw(rng) for _ in range(20_000)]
    assert statistics.median(drawn) == pytest.approx(3600, rel=0.05)
    assert statistics.mean(drawn) == pytest.approx(habit.mean, rel=0.05)
    assert habit.mean > 4 * 3600
    rests = [habit.draw_rest(rng) for _ in range(20_000)]
    # The mean rest of a renewal process is E[X²] / 2 E[X]: with shape 0.5 that is 6 scales.
    assert statistics.mean(rests) == pytest.approx(6 * habit.scale, rel=0.1)


def test_nodes_come_and_go_and_what_has_holders_is_read():
    habits = Habits(Weibull(0.5, 300), Weibull(0.5, 300), empty_share=0.2, stop_share=0.3)

    async def main(world):
        async with Cluster(world) as cluster:
            first, *others = await cluster.start_many(12)
            values = random_values(5, 500, random.Random(1))
            assert (await put(first, values)).copies_min == 8
            churn = Churn(cluster, habits, world.seed)
            await churn.run(others, 2 * 3600)
            await asyncio.sleep(60)
            held = [kvpid for kvpid in values if cluster.holders(kvpid)]
            assert [await get(first, kvpid) for kvpid in held] == [values[k] for k in held] != []
            return dict(churn.counters), [node.lives for node in cluster.nodes]

    first, second = run(main, seed=1), run(main, seed=1)
    assert first == second != run(main, seed=2)
    counters, lives = first
    assert set(counters) == {"crashes", "stops", "returns", "empty returns"}
    assert lives[0] == 1
    assert sum(lives[1:]) == 11 + counters["returns"] + counters["empty returns"]
