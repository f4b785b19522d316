"""Line: so many at one time as a function says, first come, first served (shell over asyncio).

A semaphore whose number moves; each that leaves wakes one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Line:
    """``most`` returns how many may be inside now; one that waits looks when another leaves."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._inside = 0
        self._turns: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place, and have it for the length of the block."""
        while self._inside >= self._most():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turns.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_next()  # the turn came together with the cancellation
                raise
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._wake_next()

    def _wake_next(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                return
