"""EventReactor: dispatch, bounds, stop, threads."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from bytestag.errors import Timeout
from bytestag.events import EventID, EventQueueFull, EventReactor, Task, TaskStopped


def test_event_ids_are_equal_by_their_arguments() -> None:
    assert EventID("a", 1) == EventID("a", 1)
    assert hash(EventID("a", 1)) == hash(EventID("a", 1))
    assert EventID("a", 1) != EventID("a", 2)
    assert EventID("a") != "a"
    assert repr(EventID("a", 1)) == "EventID('a', 1)"


def test_events_reach_their_handlers_in_order(world: Any) -> None:
    calls: list[object] = []

    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.register_handler("x", lambda *data: calls.append(("first", *data)))
            reactor.register_handler("x", lambda *data: calls.append(("second", *data)))
            reactor.register_handler(EventID("y", 1), lambda: calls.append("y"))
            reactor.put("x", 1, 2)
            reactor.put(EventID("y", 1))
            reactor.put("nobody listens")
            reactor.put("x", 3)

    world.run(main())
    assert calls == [("first", 1, 2), ("second", 1, 2), "y", ("first", 3), ("second", 3)]


def test_events_put_before_the_start_are_dispatched_after_it(world: Any) -> None:
    calls: list[int] = []
    reactor = EventReactor()
    reactor.register_handler("x", calls.append)
    reactor.put("x", 1)
    assert reactor.queue_size == 1

    async def main() -> None:
        async with reactor:
            pass

    world.run(main())
    assert calls == [1]


def test_an_event_beyond_the_limit_is_refused_but_stop_is_taken() -> None:
    reactor = EventReactor(max_queue_size=2)
    reactor.put("x")
    reactor.put("x")
    with pytest.raises(EventQueueFull):
        reactor.put("x")
    reactor.put(EventReactor.STOP_ID)
    assert reactor.queue_size == 3
    assert reactor.max_queue_size == 2


def test_a_failing_handler_is_logged_and_stops_nothing(
    world: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fail(value: int) -> None:
        raise RuntimeError("broken handler")

    async def fail_later(value: int) -> None:
        raise RuntimeError("broken coroutine")

    async def main() -> None:
        async with EventReactor() as reactor:
            for handler in (fail, fail_later, calls.append):
                reactor.register_handler("x", handler)
            reactor.put("x", 1)
            reactor.put("x", 2)
            await asyncio.sleep(1)

    with caplog.at_level(logging.ERROR):
        world.run(main())
    assert calls == [1, 2]
    assert "broken handler" in caplog.text
    assert "broken coroutine" in caplog.text


def test_a_handler_that_puts_events_for_ever_does_not_starve_the_loop(world: Any) -> None:
    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.register_handler("again", lambda: reactor.put("again"))
            reactor.put("again")
            for _ in range(5):
                await asyncio.sleep(0)

    world.run(main())


def test_stop_tells_its_handlers_before_the_tasks_are_cancelled(world: Any) -> None:
    calls: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            calls.append("cancelled")

    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.register_handler(EventReactor.STOP_ID, lambda: calls.append("told"))
            reactor.create_task(work())
            await asyncio.sleep(0)
            reactor.put(EventReactor.STOP_ID)
            await reactor.wait_stopped()
            reactor.put("x")
            assert reactor.queue_size == 0
            with pytest.raises(RuntimeError):
                reactor.create_task(work())

    world.run(main())
    assert calls == ["told", "cancelled"]


def test_an_exception_in_the_block_stops_the_tasks_and_is_raised(world: Any) -> None:
    ended: list[int] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.create_task(work())
            await asyncio.sleep(0)
            raise KeyError("x")

    with pytest.raises(ExceptionGroup) as caught:
        world.run(main())
    assert caught.group_contains(KeyError)
    assert ended == [1]


def test_a_failing_root_task_ends_the_reactor(world: Any) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.create_task(fail())
            await reactor.wait_stopped()

    with pytest.raises(ExceptionGroup) as caught:
        world.run(main())
    assert caught.group_contains(ZeroDivisionError)


def test_a_reactor_runs_once(world: Any) -> None:
    async def main() -> None:
        async with EventReactor() as reactor:
            with pytest.raises(RuntimeError):
                await reactor.__aenter__()
            with pytest.raises(RuntimeError):
                reactor.start()

    world.run(main())


def test_a_reactor_in_a_thread_takes_events_and_tasks_from_another() -> None:
    reactor = EventReactor()
    seen: list[object] = []
    told = threading.Event()
    reactor.register_handler("x", lambda value: (seen.append(value), told.set()))
    reactor.start()

    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    task = Task.wrap(double, 21)
    reactor.start_task(task)
    assert task.result(timeout=10) == 42
    reactor.put("x", threading.get_ident())
    assert told.wait(10)
    reactor.stop()
    reactor.stop()
    assert seen == [threading.get_ident()]


def test_a_task_given_to_a_stopped_reactor_ends_as_stopped() -> None:
    reactor = EventReactor()
    reactor.start()
    reactor.stop()
    task = Task.wrap(asyncio.sleep, 1)
    reactor.start_task(task)
    with pytest.raises(TaskStopped):
        task.result(timeout=10)


def test_a_call_that_waits_when_the_reactor_stops_is_refused(world: Any) -> None:
    calls: list[str] = []

    async def main() -> None:
        async with EventReactor() as reactor:
            reactor.post(lambda: calls.append("called"), lambda: calls.append("refused"))
            raise KeyError

    with pytest.raises(ExceptionGroup):
        world.run(main())
    assert calls == ["refused"]


def test_blocking_stop_raises_what_ended_the_reactor() -> None:
    reactor = EventReactor()
    ended = threading.Event()
    reactor.register_handler(EventReactor.STOP_ID, ended.set)
    reactor.start()

    async def fail() -> None:
        raise ZeroDivisionError

    reactor.post(lambda: reactor.create_task(fail()))
    assert ended.wait(10)
    with pytest.raises(ExceptionGroup) as caught:
        reactor.stop()
    assert caught.group_contains(ZeroDivisionError)


def test_blocking_stop_is_bounded() -> None:
    reactor = EventReactor()
    blocked, go_on = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        go_on.wait(10)

    reactor.register_handler("block", block)
    reactor.start()
    reactor.put("block")
    assert blocked.wait(10)
    with pytest.raises(Timeout):
        reactor.stop(timeout=0.01)
    go_on.set()
    reactor.stop()


def test_a_coroutine_function_hears_of_the_stop_and_may_clean_up() -> None:
    done: list[str] = []

    async def clean_up() -> None:
        await asyncio.sleep(0)
        done.append("cleaned up")

    async def scenario() -> None:
        async with EventReactor() as reactor:
            reactor.register_handler(EventReactor.STOP_ID, clean_up)
            reactor.create_task(asyncio.Event().wait())

    asyncio.run(scenario())
    assert done == ["cleaned up"]
