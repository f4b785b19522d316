"""What waits together is done together."""

import asyncio
import threading

import pytest

from bytestag.events import Batcher, TaskStopped, system_runtime
from bytestag.events.runtime import run_here


def test_what_comes_while_a_batch_is_worked_on_is_the_next_batch():
    batches = []
    may_go = threading.Event()

    def double(items):
        batches.append(list(items))
        may_go.wait(10)
        return [2 * item for item in items]

    async def main():
        runtime = system_runtime()
        async with asyncio.TaskGroup() as group:
            batcher = Batcher(double, runtime.offload, group, 3)
            waiting = [asyncio.ensure_future(batcher.do(item)) for item in range(6)]
            await asyncio.sleep(0.05)
            more = [asyncio.ensure_future(batcher.do(item)) for item in range(6, 8)]
            await asyncio.sleep(0)
            may_go.set()
            results = await asyncio.gather(*waiting, *more)
            assert await batcher.do(8) == 16
        runtime.close()
        return results

    assert asyncio.run(main()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert batches == [[0, 1, 2], [3, 4, 5], [6, 7], [8]]


def test_a_batch_costs_no_more_than_it_may_unless_it_is_one_item():
    batches = []

    def work(items):
        batches.append(list(items))
        return items

    async def main():
        async with asyncio.TaskGroup() as group:
            batcher = Batcher(work, run_here, group, 10, lambda item: item)
            await asyncio.gather(*(batcher.do(item) for item in (6, 4, 1, 20, 9, 2)))

    asyncio.run(main())
    assert batches == [[6, 4], [1], [20], [9], [2]]


def test_a_failure_is_that_of_its_batch_alone():
    def work(items):
        if "bad" in items:
            raise KeyError("bad")
        return items

    async def main():
        async with asyncio.TaskGroup() as group:
            batcher = Batcher(work, run_here, group, 2)
            items = ["a", "bad", "b"]
            return await asyncio.gather(*map(batcher.do, items), return_exceptions=True)

    first, second, third = asyncio.run(main())
    assert [type(first), type(second), third] == [KeyError, KeyError, "b"]


def test_who_left_is_not_worked_for():
    seen = []

    async def slow(work, items):
        await asyncio.sleep(0.01)
        return work(items)

    async def main():
        async with asyncio.TaskGroup() as group:
            batcher = Batcher(lambda items: seen.append(items) or items, slow, group, 1)
            first, second, third = (asyncio.ensure_future(batcher.do(n)) for n in range(3))
            await asyncio.sleep(0)
            second.cancel()
            assert (await first, await third) == (0, 2)

    asyncio.run(main())
    assert seen == [[0], [2]]


def test_those_who_wait_learn_that_the_parent_closes():
    async def forever(work, items):
        await asyncio.Event().wait()

    async def main():
        waiting = []

        async def fail(group):
            batcher = Batcher(list, forever, group, 1)
            waiting.extend(asyncio.ensure_future(batcher.do(n)) for n in range(2))
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                await fail(group)
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(main())
    assert [type(result) for result in results] == [TaskStopped, TaskStopped]


def test_work_that_forgets_a_result_fails_its_batch():
    async def main():
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            batcher = Batcher(lambda items: items[1:], run_here, group)
            return await asyncio.gather(*map(batcher.do, "abc"), return_exceptions=True)

    assert [type(result) for result in asyncio.run(main())] == [ValueError] * 3
