"""Task: result, failure, stop, progress, hooks."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from bytestag.errors import NotFound, Timeout
from bytestag.events import EventReactor, Task, TaskStopped


async def answer(value: int) -> int:
    await asyncio.sleep(1)
    return value


async def for_ever() -> None:
    await asyncio.Event().wait()


class Counting(Task[str]):
    async def run(self, count: int, word: str = "done") -> str:
        for number in range(count):
            self.progress = number
            await asyncio.sleep(1)
        return word


def test_a_task_gives_its_result_to_who_awaits_it(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(answer, 5)
            assert not task.is_running
            assert task.start(group) is task
            assert task.is_running
            assert task.result_ is None
            assert await task == 5
            assert (task.is_running, task.is_finished, task.result_) == (False, True, 5)
            assert task.result() == 5
            assert await task == 5

    world.run(main())


def test_a_subclass_overrides_run_and_reports_progress(world: Any) -> None:
    async def main() -> list[int]:
        seen: list[int] = []
        async with asyncio.TaskGroup() as group:
            task = Counting(3, word="ready")
            task.progress_observer.register(seen.append)
            assert await task.start(group) == "ready"
            assert task.progress == 2
        return seen

    assert world.run(main()) == [0, 1, 2]


def test_the_observer_is_called_once_with_the_task_even_if_late(world: Any) -> None:
    async def main() -> None:
        seen: list[Task[Any]] = []
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(answer, 1)
            task.observer.register(seen.append)
            await task.start(group)
            task.observer.register(seen.append)
        assert seen == [task, task]

    world.run(main())


def test_a_failure_is_kept_for_who_asks_and_spares_the_parent(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            expected = Task.wrap(fail, NotFound("nobody has it")).start(group)
            surprising = Task.wrap(fail, ZeroDivisionError("a bug")).start(group)
            for task, kind in ((expected, NotFound), (surprising, ZeroDivisionError)):
                with pytest.raises(kind):
                    await task
                assert isinstance(task.error, kind)
                assert task.result_ is None

    with caplog.at_level(logging.ERROR):
        world.run(main())
    assert "a bug" in caplog.text
    assert "nobody has it" not in caplog.text


def test_a_stopped_task_is_cancelled_and_its_waiters_are_told(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(for_ever).start(group)
            await asyncio.sleep(0)
            task.stop()
            task.stop()
            assert not task.is_running
            with pytest.raises(TaskStopped):
                await task
            assert task.is_finished

    world.run(main())


def test_a_task_stopped_before_its_first_step_is_finished_too(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(for_ever).start(group)
            task.stop()
            with pytest.raises(TaskStopped):
                await task

    world.run(main())


def test_a_task_stopped_before_its_start_never_runs(world: Any) -> None:
    async def main() -> None:
        task = Counting(3)
        task.stop()
        assert task.is_finished
        async with asyncio.TaskGroup() as group:
            task.start(group)
        assert task.progress is None

    world.run(main())


def test_cancelling_a_waiter_leaves_the_task_alone(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(answer, 5).start(group)

            async def wait() -> int:
                return await task

            waiter = group.create_task(wait())
            await asyncio.sleep(0.5)
            waiter.cancel()
            assert await task == 5
            assert waiter.cancelled()

    world.run(main())


def test_cancellation_of_the_parent_goes_through_the_task(world: Any) -> None:
    tasks: list[Task[Any]] = []

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks.append(Task.wrap(for_ever).start(group))
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(ExceptionGroup):
        world.run(main())
    assert isinstance(tasks[0].error, TaskStopped)


def test_a_task_under_a_closing_parent_ends_as_stopped(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            pass
        task = Task.wrap(for_ever).start(group)
        with pytest.raises(TaskStopped):
            await task

    world.run(main())


def test_a_hooked_child_stops_with_its_parent_and_lends_its_progress(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            parent = Task.wrap(for_ever).start(group)
            child = Counting(10).start(group)
            parent.hook_task(child)
            await asyncio.sleep(2.5)
            assert parent.progress == 2
            parent.stop()
            with pytest.raises(TaskStopped):
                await child
            late = Counting(10).start(group)
            parent.hook_task(late)
            with pytest.raises(TaskStopped):
                await late

    world.run(main())


def test_a_finished_child_is_unhooked(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            parent = Task.wrap(for_ever).start(group)
            child = Counting(1).start(group)
            parent.hook_task(child)
            await child
            child.progress = 99
            assert parent.progress == 0
            parent.stop()

    world.run(main())


def test_a_task_runs_once(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(answer, 1).start(group)
            with pytest.raises(RuntimeError):
                task.start(group)

    world.run(main())


def test_a_blocking_result_in_the_own_loop_is_refused(world: Any) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            task = Task.wrap(answer, 1).start(group)
            with pytest.raises(RuntimeError, match="await the task"):
                task.result()

    world.run(main())


def test_another_thread_waits_stops_and_times_out() -> None:
    reactor = EventReactor()
    reactor.start()
    task = Task.wrap(for_ever)
    reactor.start_task(task)
    with pytest.raises(Timeout):
        task.result(timeout=0.01)
    task.stop()
    with pytest.raises(TaskStopped):
        task.result(timeout=10)
    reactor.stop()


def test_a_task_of_one_loop_can_be_awaited_in_another() -> None:
    reactor = EventReactor()
    reactor.start()
    gate = threading.Event()

    async def wait_for_gate() -> str:
        while not gate.is_set():
            await asyncio.sleep(0)
        return "through"

    task = Task.wrap(wait_for_gate)
    reactor.start_task(task)

    async def main() -> str:
        asyncio.get_running_loop().call_soon(gate.set)
        return await task

    assert asyncio.run(main()) == "through"
    reactor.stop()


def test_a_task_stopped_by_another_thread_while_it_starts_does_not_run() -> None:
    ran: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        ran.append(1)

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:

            class Stopping:
                def create_task(self, coro: Any, *, name: str | None = None) -> asyncio.Task[Any]:
                    stopper = threading.Thread(target=task.stop)
                    stopper.start()
                    stopper.join()
                    return group.create_task(coro, name=name)

            task = Task.wrap(work)
            task.start(Stopping())
        assert isinstance(task.error, TaskStopped)
        assert ran == []

    asyncio.run(scenario())
