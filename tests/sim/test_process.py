"""What belongs to a process is killed and frozen with it, and nothing else is."""

import asyncio
import gc

import pytest

from bytestag.sim import run
from bytestag.sim.loop import OWNER
from bytestag.sim.process import Killed, Process, kill


async def tick(ticks, seconds=1.0):
    """Count, and say what was counted in the end."""
    try:
        while True:
            await asyncio.sleep(seconds)
            ticks.append(asyncio.get_running_loop().time())
    finally:
        await asyncio.sleep(0)  # clean-up that awaits is cut off


def test_only_what_a_process_started_is_killed_with_it():
    async def main(world):
        mine, others = [], []
        process, other = Process(world.loop), Process(world.loop)
        work = [asyncio.ensure_future(process.run(tick(mine)))]
        work.append(asyncio.ensure_future(other.run(tick(others))))
        await asyncio.sleep(10.5)
        kill(world.loop, [process, process])
        kill(world.loop, [process])
        await asyncio.sleep(10)
        assert (len(mine), len(others)) == (10, 20)
        assert process.is_dead
        assert process.tasks == world.loop.waiting_for(process) == []
        kill(world.loop, [other])
        with pytest.raises(Killed):
            await work[0]
        with pytest.raises(Killed):
            await process.run(tick(mine))
        await asyncio.gather(*work, return_exceptions=True)

    run(main)


def test_what_its_tasks_start_belongs_to_it_too():
    async def main(world):
        ticks = []

        async def start():
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.create_task, tick(ticks))
            await asyncio.sleep(0.5)

        process = Process(world.loop)
        await process.run(start())
        assert len(process.tasks) == 1
        kill(world.loop, [process])
        await asyncio.sleep(10)
        return ticks

    assert run(main) == []


def test_a_killed_generator_does_not_stir_when_it_is_collected():
    async def main(world):
        stirred = []

        async def items():
            queue = asyncio.Queue()
            try:
                while True:
                    yield await queue.get()
            finally:
                stirred.append(OWNER.get() is process)

        async def use():
            async for _ in items():
                pass

        process = Process(world.loop)
        work = asyncio.ensure_future(process.run(use()))
        await asyncio.sleep(1)
        kill(world.loop, [process])
        with pytest.raises(Killed):
            await work
        assert stirred == [True]  # Python runs clean-up; it does so now and in there
        gc.collect()
        await asyncio.sleep(1)
        return stirred

    assert run(main) == [True]


def test_who_waits_for_a_process_may_give_up():
    async def main(world):
        process, ticks = Process(world.loop), []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.5):
                await process.run(tick(ticks))
        await asyncio.sleep(10)
        return len(ticks), process.tasks

    assert run(main) == (3, [])


def test_a_frozen_process_stands_still_and_goes_on_late():
    async def main(world):
        ticks = []
        process = Process(world.loop)
        work = asyncio.ensure_future(process.run(tick(ticks)))
        await asyncio.sleep(2.5)
        process.freeze()
        process.freeze()
        new = asyncio.ensure_future(process.run(asyncio.sleep(0, "new")))
        await asyncio.sleep(10)
        assert len(ticks) == 2
        assert not new.done()
        process.thaw()
        process.thaw()
        assert await new == "new"
        await asyncio.sleep(1.5)
        kill(world.loop, [process])
        await asyncio.gather(work, return_exceptions=True)
        return [at - 1000 for at in ticks]

    assert run(main) == [1.0, 2.0, 12.5, 13.5]


def test_asyncio_still_keeps_what_processes_rely_on():
    async def main(world):
        process = Process(world.loop)
        handle = process.context.run(world.loop.call_later, 5.0, print)
        assert handle._context.get(OWNER) is process
        assert world.loop.waiting_for(process) == [handle]
        task = world.loop.create_task(asyncio.sleep(1), context=process.context)
        assert process.tasks == [task]
        assert task._log_destroy_pending
        kill(world.loop, [process])
        assert task not in asyncio.all_tasks()
        assert not task.done()

    run(main)
