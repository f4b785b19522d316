"""The runtime of a virtual node follows from the loop and the seed."""

import asyncio

from bytestag.sim import run
from bytestag.sim.runtime import EPOCH_SECONDS


def test_the_wall_clock_moves_with_the_loop():
    async def main(world):
        runtime = world.runtime()
        before = runtime.wall()
        await asyncio.sleep(3600)
        return before, runtime.wall() - before, runtime.monotonic() - world.loop.time()

    before, passed, difference = run(main)
    assert before == EPOCH_SECONDS + 1000
    assert passed == 3600
    assert difference == 0


def test_the_same_seed_draws_the_same_and_another_draws_something_else():
    async def main(world):
        runtime = world.runtime("alice")
        return runtime.rng.random(), runtime.token_bytes(20), world.runtime("bob").token_bytes(20)

    first = run(main, seed=1)
    assert first == run(main, seed=1)
    assert first != run(main, seed=2)
    assert first[1] != first[2]


def test_offloaded_work_runs_inline_after_the_others_had_their_turn():
    order = []

    async def main(world):
        world.loop.call_soon(order.append, "other")
        result = await world.runtime().offload(lambda a, b: order.append("work") or a + b, 1, b=2)
        return result, world.loop.time()

    assert run(main) == (3, 1000.0)
    assert order == ["other", "work"]
