"""A world ends clean or says what was left behind."""

import asyncio
import contextlib

import pytest

from bytestag.errors import NotFound
from bytestag.sim import Deadlock, Leak, run


def test_the_result_of_a_coroutine_or_a_function_of_the_world_is_returned():
    async def plain():
        await asyncio.sleep(10)
        return 1

    async def worldly(world):
        return world.seed

    assert run(plain()) == 1
    assert run(worldly, seed=7) == 7


def test_a_task_that_is_left_behind_is_an_error():
    async def forgotten():
        await asyncio.sleep(1)

    async def main(world):
        world.loop.create_task(forgotten())

    with pytest.raises(Leak, match="forgotten"):
        run(main)


def test_an_error_in_a_callback_is_an_error():
    async def main(world):
        world.loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(Leak) as caught:
        run(main)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_the_program_raises_comes_through_and_its_tasks_are_ended():
    ended = []

    async def background():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1e6)
        ended.append(True)

    async def main(world):
        world.loop.create_task(background())
        await asyncio.sleep(1)
        raise NotFound("nothing")

    with pytest.raises(NotFound):
        run(main)
    assert ended == [True]


def test_a_deadlock_comes_through():
    async def main(world):
        await world.loop.create_future()

    with pytest.raises(Deadlock):
        run(main)


def test_endpoints_are_closed_at_the_end():
    class Nobody:
        def datagram_received(self, datagram, address): ...

        def wakeup_ended(self): ...

    async def main(world):
        return await world.network.open_endpoint(("10.0.0.1", 0), Nobody())

    assert run(main).is_closed
