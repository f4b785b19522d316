"""Line: so many at one time as a function says, first come, first served (shell over asyncio).

A semaphore whose number moves, and of which one may take several, up to a part of all; whoever
leaves lets in those who are next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Line:
    """``most`` returns how many may be inside now; it is asked when one comes and one leaves.

    Nobody gets more than the ``parts``-th part of that for himself.
    """

    def __init__(self, most: Callable[[], int], parts: int = 1) -> None:
        self._most = most
        self._parts = parts
        self._inside = 0
        self._waiting: deque[tuple[asyncio.Future[int], int]] = deque()

    @asynccontextmanager
    async def place(self, width: int = 1, *, goes_on: bool = False) -> AsyncIterator[int]:
        """Wait for a place, and have it for the length of the block; yield how wide it is.

        Who is wide waits for one free place as all others do, and may stand over the edge. Who goes
        on with what he has begun waits in front.
        """
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        entry = turn, width
        if goes_on:
            self._waiting.appendleft(entry)
        else:
            self._waiting.append(entry)
        self._let_in()
        try:
            given = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(turn.result())  # the place came together with the cancellation
            raise
        try:
            yield given
        finally:
            self._leave(given)

    def _leave(self, width: int) -> None:
        self._inside -= width
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._inside < (most := self._most()):
            turn, width = self._waiting.popleft()
            if not turn.done():
                given = min(width, max(most // self._parts, 1))
                self._inside += given
                turn.set_result(given)
