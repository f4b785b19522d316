"""So many at one time, in order."""

import asyncio

from bytestag.events.line import Line


def entered(most, leave_after=()):
    """Return who is inside, in order of entry, when five came and some of the first left."""

    async def main():
        line, order, may_leave = Line(most), [], [asyncio.Event() for _ in range(5)]

        async def one(number):
            async with line.place():
                order.append(number)
                await may_leave[number].wait()

        tasks = [asyncio.ensure_future(one(number)) for number in range(5)]
        await asyncio.sleep(0.01)
        for number in leave_after:
            if number < 0:
                tasks[-number].cancel()
            else:
                may_leave[number].set()
            await asyncio.sleep(0.01)
        found = list(order)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    return asyncio.run(main())


def test_who_leaves_lets_the_next_in():
    assert entered(lambda: 2) == [0, 1]
    assert entered(lambda: 2, [1, 0]) == [0, 1, 2, 3]


def test_a_number_that_moves_is_followed():
    most = iter([2, 2, 2, 2, 2, 1, 1, 1, 1, 1])
    assert entered(lambda: next(most), [0]) == [0, 1]  # one inside is enough now


def test_who_is_cancelled_in_line_does_not_keep_the_others():
    assert entered(lambda: 1, [-1, 0]) == [0, 2]


def test_a_turn_that_comes_together_with_a_cancellation_is_passed_on():
    async def main():
        line, order = Line(lambda: 1), []

        async def one(number):
            async with line.place():
                order.append(number)

        async with line.place():
            first, second = (asyncio.ensure_future(one(number)) for number in range(2))
            await asyncio.sleep(0.01)
        first.cancel()  # its turn was set just now
        await second
        return order

    assert asyncio.run(main()) == [1]


def test_who_is_wide_takes_several_places_and_keeps_his_turn():
    async def main():
        line, order = Line(lambda: 4), []

        async def one(name, width, *, goes_on=False):
            async with line.place(width, goes_on=goes_on):
                order.append(name)
                await asyncio.sleep(0.01)

        async with line.place(4):
            tasks = [asyncio.ensure_future(one(f"wide {n}", 4)) for n in range(3)]
            tasks.append(asyncio.ensure_future(one("narrow", 1)))
            await asyncio.sleep(0)
            tasks.append(asyncio.ensure_future(one("going on", 4, goes_on=True)))
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == ["going on", "wide 0", "wide 1", "wide 2", "narrow"]


def test_who_shrinks_lets_others_in():
    async def main():
        line, order = Line(lambda: 4), []

        async def one(name):
            async with line.place(2):
                order.append(name)

        async with line.place(8) as place:
            tasks = [asyncio.ensure_future(one(name)) for name in range(2)]
            await asyncio.sleep(0)
            place.resize(4)
            await asyncio.sleep(0)
            assert order == []
            place.resize(3)
            await asyncio.gather(*tasks)
        async with line.place():
            return order

    assert asyncio.run(main()) == [0, 1]
