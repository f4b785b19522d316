"""EventScheduler: in virtual time."""

import asyncio
from typing import Any

import pytest

from bytestag.events import EventReactor, EventScheduler


def test_a_one_shot_event_comes_once_at_its_time(world: Any) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        async with EventReactor() as reactor:
            reactor.register_handler("x", lambda v: seen.append((world.loop.time() - 1000, v)))
            scheduler = EventScheduler(reactor, world.runtime)
            scheduler.add_one_shot(5, "x", "late")
            scheduler.add_one_shot(2, "x", "early")
            assert len(scheduler) == 2
            await asyncio.sleep(100)
            assert len(scheduler) == 0
        return seen

    assert world.run(main()) == [(2, "early"), (5, "late")]


def test_a_periodic_event_keeps_its_beat_until_it_is_cancelled(world: Any) -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        async with EventReactor() as reactor:
            reactor.register_handler("x", lambda: seen.append(world.loop.time() - 1000))
            entry = EventScheduler(reactor, world.runtime).add_periodic(10, "x")
            await asyncio.sleep(35)
            entry.cancel()
            entry.cancel()
            await asyncio.sleep(100)
        return seen

    assert world.run(main()) == [10, 20, 30]


def test_missed_periods_are_left_out(world: Any) -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        async with EventReactor() as reactor:
            reactor.register_handler("x", lambda: seen.append(world.loop.time() - 1000))
            EventScheduler(reactor, world.runtime).add_periodic(10, "x")
            await asyncio.sleep(5)
            world.loop.now += 100  # the machine slept
            await asyncio.sleep(15)
        return seen

    assert world.run(main()) == [105, 115]


def test_an_absolute_event_follows_the_wall_clock_when_it_is_set(world: Any) -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        wall = world.runtime.wall
        async with EventReactor() as reactor:
            reactor.register_handler("x", lambda: seen.append(wall()))
            EventScheduler(reactor, world.runtime).add_absolute(wall() + 3600, "x")
            due = wall() + 3600
            await asyncio.sleep(10)
            world.wall_offset -= 600
            await asyncio.sleep(3600)
            assert seen == []
            await asyncio.sleep(601)
            assert 0 <= seen[0] - due < 1
        return seen

    assert len(world.run(main())) == 1


def test_an_absolute_event_in_the_past_comes_at_once(world: Any) -> None:
    async def main() -> None:
        async with EventReactor() as reactor:
            seen: list[int] = []
            reactor.register_handler("x", seen.append)
            EventScheduler(reactor, world.runtime).add_absolute(0, "x", 1)
            await asyncio.sleep(0.001)
            assert seen == [1]

    world.run(main())


def test_an_event_that_meets_a_full_queue_comes_later(world: Any) -> None:
    async def main() -> list[float]:
        seen: list[float] = []
        async with EventReactor(max_queue_size=1) as reactor:
            reactor.register_handler("x", lambda: seen.append(world.loop.time() - 1000))
            scheduler = EventScheduler(reactor, world.runtime)
            scheduler.add_one_shot(1, "x")
            scheduler.add_one_shot(1, "x")
            await asyncio.sleep(10)
        return seen

    assert world.run(main()) == [1, 2]


def test_entries_added_before_the_start_wait_for_it(world: Any) -> None:
    reactor = EventReactor()
    seen: list[int] = []
    reactor.register_handler("x", seen.append)
    EventScheduler(reactor, world.runtime).add_one_shot(1, "x", 7)

    async def main() -> None:
        async with reactor:
            await asyncio.sleep(2)

    world.run(main())
    assert seen == [7]


def test_cancelled_entries_do_not_pile_up(world: Any) -> None:
    scheduler = EventScheduler(EventReactor(), world.runtime)
    for _ in range(1000):
        scheduler.add_one_shot(1e6, "x").cancel()
    assert len(scheduler._heap) < 200


def test_a_stopped_reactor_leaves_no_timer_behind(world: Any) -> None:
    async def main() -> None:
        async with EventReactor() as reactor:
            scheduler = EventScheduler(reactor, world.runtime)
            scheduler.add_periodic(1, "x")
            await asyncio.sleep(3)
        assert len(scheduler) == 0
        assert not [timer for timer in world.loop._scheduled if not timer.cancelled()]

    world.run(main())


def test_a_period_of_nothing_is_refused(world: Any) -> None:
    with pytest.raises(ValueError):
        EventScheduler(EventReactor(), world.runtime).add_periodic(0, "x")
