"""Tasks that are one piece of work: which failure is told, and what goes on meanwhile."""

import asyncio

import pytest

from bytestag.errors import NoSpace, NotFound
from bytestag.events.tasks import Task
from bytestag.events.together import together

NETWORK, MACHINE, BUG = NotFound("nobody"), NoSpace("full"), OSError(5, "broken disk")


def ended(*failures):
    """Return what is raised, and which tasks came to their end; each fails after a moment."""
    done = []

    async def work(number, error):
        await asyncio.sleep(number / 100)
        if error is not None:
            raise error
        done.append(number)

    async def main():
        async with together(NotFound) as tasks:
            for number, error in enumerate(failures):
                tasks.add(Task.wrap(work, number, error).start(tasks.parent))

    try:
        asyncio.run(main())
    except BaseException as error:
        return error, done
    return None, done


def test_without_a_failure_all_are_waited_for():
    assert ended(None, None, None) == (None, [0, 1, 2])


def test_a_failure_that_lets_the_others_go_on_is_told_at_the_end():
    assert ended(None, NETWORK, None, None) == (NETWORK, [0, 2, 3])


@pytest.mark.parametrize("error", [MACHINE, BUG])
def test_any_other_failure_stops_the_others_and_is_told_as_it_is(error):
    assert ended(None, error, None, None) == (error, [0])


def test_what_is_worse_is_told_though_it_came_later():
    assert ended(NETWORK, MACHINE, None) == (MACHINE, [])


def test_an_error_in_the_block_itself_is_told_as_it_is():
    async def main():
        async with together():
            raise BUG

    with pytest.raises(OSError, match="broken disk"):
        asyncio.run(main())
