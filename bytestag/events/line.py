"""Line: so many at one time as a function says, first come, first served (shell over asyncio).

A semaphore whose number moves, and of which one may take several; whoever leaves lets in those who
are next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Place:
    """Where somebody stands in a :class:`Line`."""

    def __init__(self, line: Line, width: int) -> None:
        self._line = line
        self.width = width

    def resize(self, width: int) -> None:
        """Take less room from now on, so that others come in; or more again, over the edge."""
        self.width, more = width, self.width - width
        self._line.give_back(more)


class Line:
    """``most`` returns how many may be inside now; it is asked when one comes and one leaves."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._inside = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @asynccontextmanager
    async def place(self, width: int = 1, *, goes_on: bool = False) -> AsyncIterator[Place]:
        """Wait for a place, and have it for the length of the block.

        Who is wide waits for one free place as all others do, and may stand over the edge. Who goes
        on with what he has begun waits in front.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = turn, width
        if goes_on:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(width)  # the place came together with the cancellation
            raise
        place = Place(self, width)
        try:
            yield place
        finally:
            self.give_back(place.width)

    def give_back(self, width: int) -> None:
        """So much room is free again."""
        self._inside -= width
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._inside < self._most():
            turn, width = self._waiting.popleft()
            if not turn.done():
                self._inside += width
                turn.set_result(None)
