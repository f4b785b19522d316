"""FnTaskSlot: bounds, order, stop."""

import asyncio
from typing import Any

import pytest

from bytestag.events import EventReactor, FnTaskSlot, SlotFull, Task, TaskStopped


async def work(seconds: float = 1.0) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def for_ever() -> None:
    await asyncio.Event().wait()


def test_no_more_than_max_size_tasks_run_at_one_time(world: Any) -> None:
    running = 0
    most = 0

    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    async def main() -> None:
        async with FnTaskSlot(max_size=3, waiting_max=2) as slot:
            for _ in range(20):
                await slot.add(count)
                assert len(slot.current_tasks) <= 3
                assert slot.queue <= 2

    world.run(main())
    assert most == 3
    assert world.loop.time() == 1000 + 7  # 20 tasks of a second, three at a time


def test_add_waits_until_there_is_room_first_come_first_served(world: Any) -> None:
    order: list[int] = []

    async def note(number: int) -> None:
        order.append(number)
        await asyncio.sleep(1)

    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=0) as slot, asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(slot.add(note, number))

    world.run(main())
    assert order == [0, 1, 2, 3, 4]


def test_add_no_block_raises_when_full(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=1) as slot:
            first = slot.add_no_block(work, 1)
            second = slot.add_no_block(work, 2)
            assert slot.current_tasks == (first,)
            assert slot.queue == 1
            with pytest.raises(SlotFull):
                slot.add_no_block(work)
            assert await second == 2
            assert world.loop.time() == 1003
            slot.add_no_block(work)

    world.run(main())


def test_a_newcomer_does_not_overtake_who_waits_in_add(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=0) as slot, asyncio.TaskGroup() as group:
            slot.add_no_block(work)
            waiting = group.create_task(slot.add(work))
            await asyncio.sleep(0)
            with pytest.raises(SlotFull):
                slot.add_no_block(work)
            await waiting
            with pytest.raises(SlotFull):
                slot.add_no_block(work)

    world.run(main())


def test_a_cancelled_adder_loses_no_place(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=0) as slot, asyncio.TaskGroup() as group:
            first = slot.add_no_block(work)
            gone = group.create_task(slot.add(work))
            granted = group.create_task(slot.add(work))
            await asyncio.sleep(0)
            gone.cancel()
            first.observer.register(lambda _: granted.cancel())  # as the place is granted
            await first
            await asyncio.sleep(0)
            assert granted.cancelled()
            assert not slot.is_full
            slot.add_no_block(work)

    world.run(main())


def test_the_observer_tells_of_each_task_twice(world: Any) -> None:
    seen: list[tuple[bool, Task[Any]]] = []

    async def main() -> None:
        async with FnTaskSlot(1) as slot:
            slot.observer.register(lambda is_added, task: seen.append((is_added, task)))
            await slot.add(work)
            await slot.add(work)

    world.run(main())
    first, second = seen[0][1], seen[1][1]
    assert seen == [(True, first), (True, second), (False, first), (False, second)]


def test_a_function_may_return_a_task_of_its_own_kind(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot() as slot:
            task = Task.wrap(work, 3)
            assert await slot.add(lambda: task) is task
            assert await task == 3
            with pytest.raises(TypeError):
                slot.add_no_block(lambda: 3)
            assert slot.current_tasks == ()
            assert not slot.is_full

    world.run(main())


def test_a_waiting_task_that_is_stopped_leaves_the_queue(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot(1) as slot:
            slot.add_no_block(work)
            waiting = slot.add_no_block(work)
            waiting.stop()
            assert slot.queue == 0
            with pytest.raises(TaskStopped):
                await waiting

    world.run(main())


def test_a_failed_task_makes_room(world: Any) -> None:
    async def fail() -> None:
        raise FileNotFoundError

    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=0) as slot:
            task = await slot.add(fail)
            assert await (await slot.add(work)) == 1
            assert isinstance(task.error, FileNotFoundError)

    world.run(main())


def test_stop_ends_what_runs_and_waits_and_accepts_nothing_more(world: Any) -> None:
    async def main() -> None:
        async with FnTaskSlot(1, waiting_max=1) as slot, asyncio.TaskGroup() as group:
            tasks = [slot.add_no_block(for_ever), slot.add_no_block(for_ever)]
            adder = group.create_task(slot.add(for_ever))
            await asyncio.sleep(0)
            slot.stop()
            slot.stop()
            for task in tasks:
                with pytest.raises(TaskStopped):
                    await task
            with pytest.raises(TaskStopped):
                await adder
            with pytest.raises(TaskStopped):
                slot.add_no_block(work)
            with pytest.raises(TaskStopped):
                await slot.add(work)

    with pytest.raises(ExceptionGroup) as caught:  # the adder's own group learns of it as well
        world.run(main())
    assert caught.group_contains(TaskStopped)


def test_an_exception_in_the_block_stops_the_tasks(world: Any) -> None:
    tasks: list[Task[Any]] = []

    async def main() -> None:
        async with FnTaskSlot() as slot:
            tasks.append(await slot.add(for_ever))
            raise KeyError

    with pytest.raises(ExceptionGroup):
        world.run(main())
    assert isinstance(tasks[0].error, TaskStopped)


def test_a_slot_runs_its_tasks_under_a_given_parent(world: Any) -> None:
    async def main() -> Task[Any]:
        async with EventReactor() as reactor:
            slot = FnTaskSlot(parent=reactor)
            assert await (await slot.add(work)) == 1
            with pytest.raises(RuntimeError):
                await slot.__aenter__()
            return await slot.add(for_ever)

    assert isinstance(world.run(main()).error, TaskStopped)


def test_a_slot_without_a_parent_or_without_room_is_refused(world: Any) -> None:
    async def main() -> None:
        slot = FnTaskSlot()
        with pytest.raises(RuntimeError):
            slot.add_no_block(work)
        with pytest.raises(RuntimeError):
            await slot.add(work)

    world.run(main())
    with pytest.raises(ValueError):
        FnTaskSlot(0)
