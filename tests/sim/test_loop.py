"""Time that jumps: timers, time-outs and task groups obey it; what asyncio must keep for that."""

import asyncio
import threading

import pytest

from bytestag.sim.loop import CANCELLED_MIN, START_SECONDS, Deadlock, VirtualLoop


@pytest.fixture
def loop():
    loop = VirtualLoop()
    yield loop
    loop.close()


def test_a_year_of_sleep_takes_no_time_and_the_clock_is_exact(loop):
    before = loop.time()
    loop.run_until_complete(asyncio.sleep(365 * 86_400))
    assert loop.time() == before + 365 * 86_400


def test_the_clock_stands_while_something_is_ready(loop):
    async def main():
        for _ in range(100):
            await asyncio.sleep(0)
        return loop.time()

    assert loop.run_until_complete(main()) == START_SECONDS


def test_timers_fire_in_order_of_their_time_and_none_early(loop):
    fired = []
    for seconds in (3.0, 1.0, 2.0, 1.0 + 1e-9, 1e9):
        loop.call_later(seconds, lambda at=seconds: fired.append((loop.time() - 1000.0, at)))
    loop.run_until_complete(asyncio.sleep(2e9))
    assert [at for _, at in fired] == [1.0, 1.0 + 1e-9, 2.0, 3.0, 1e9]
    assert all(now >= at - 1e-12 for now, at in fired)


def test_timers_still_fire_one_by_one_when_the_clock_is_late(loop):
    loop.run_until_complete(asyncio.sleep(1e12))  # here 1e-9 is less than the clock can tell
    loop.run_until_complete(asyncio.sleep(0.5))
    assert loop.time() == pytest.approx(1e12 + 1000.5)


def test_a_cancelled_timer_does_not_move_the_clock(loop):
    loop.call_later(50.0, lambda: None).cancel()
    loop.run_until_complete(asyncio.sleep(1.0))
    assert loop.time() == START_SECONDS + 1.0


def test_timeouts_and_task_groups_obey_the_clock(loop):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(asyncio.sleep(100, "slow"))
            group.create_task(asyncio.sleep(1))
        return slow.result()

    assert loop.run_until_complete(main()) == "slow"
    assert loop.time() == START_SECONDS + 3700


def test_what_can_never_happen_is_an_error_that_names_who_waits(loop):
    async def wait_for_godot():
        await asyncio.Event().wait()

    task = loop.create_task(wait_for_godot())
    with pytest.raises(Deadlock, match="wait_for_godot"):
        loop.run_until_complete(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))


def test_threads_are_refused(loop):
    async def main():
        await asyncio.to_thread(threading.get_ident)

    with pytest.raises(RuntimeError, match="no threads"):
        loop.run_until_complete(main())


def test_timers_of_one_time_fire_in_the_order_they_were_set(loop):
    fired = []
    for number in range(20):
        loop.call_at(loop.time() + 5.0, fired.append, number)
    loop.run_until_complete(asyncio.sleep(6))
    assert fired == list(range(20))


def test_cancelled_timers_do_not_pile_up(loop):
    async def main():
        for _ in range(20 * CANCELLED_MIN):
            loop.call_later(1e6, lambda: None).cancel()
            await asyncio.sleep(0.001)
        return len(loop._timers)

    assert loop.run_until_complete(main()) < 2 * CANCELLED_MIN


def test_asyncio_still_keeps_what_the_loop_relies_on(loop):
    loop.call_soon(lambda: None)
    assert len(loop._ready) == 1
    timer = loop.call_at(loop.time() + 5.0, lambda: None)
    assert (timer._when, timer._scheduled, timer._cancelled) == (loop.time() + 5.0, True, False)
    loop._run_once()  # what is ready runs before time passes
    assert loop.time() == START_SECONDS
    loop._run_once()
    assert loop.time() == timer.when()
    assert not timer._scheduled
    told = []
    loop._timer_handle_cancelled = told.append
    cancelled = loop.call_later(1.0, lambda: None)
    cancelled.cancel()
    assert told == [cancelled]
    loop.call_soon(loop.stop)
    loop.run_forever()  # ends although a timer is set: _run_once is called until _stopping
    assert loop._stopping is False
