"""Batcher: what waits together is done together, off the loop (shell).

A hop to a thread costs as much as reading or hashing a small value. While one batch is worked on,
the next gathers; so hops grow rare exactly when there is much to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from bytestag.events.runtime import Offload
from bytestag.events.tasks import Parent, Task, TaskStopped

T = TypeVar("T")
R = TypeVar("R")

BATCH_MAX = 16


class Batcher(Generic[T, R]):
    """Runs ``work`` on lists of items, one list at a time.

    What the items of one list cost is ``most`` together, unless it is one alone.
    ``work`` returns a result for each item; what it raises, each of them raises. It belongs to the
    loop's thread; its tasks run under ``parent``.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R]],
        offload: Offload,
        parent: Parent,
        most: int = BATCH_MAX,
        cost: Callable[[T], int] = lambda item: 1,
    ) -> None:
        self._work = work
        self._offload = offload
        self._parent = parent
        self._most = most
        self._cost = cost
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._task: Task[None] | None = None

    async def do(self, item: T) -> R:
        """Return what ``work`` returns for an item.

        Raises TaskStopped if the parent is closing. If the caller is cancelled, the item may be
        worked on all the same.
        """
        turn: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, turn))
        if self._task is None:
            self._task = Task.wrap(self._run)
            self._task.observer.register(self._on_ended)
            self._task.start(self._parent)
        return await turn

    async def _run(self) -> None:
        while self._waiting:
            batch = [(item, turn) for item, turn in self._take() if not turn.done()]
            if not batch:
                continue
            try:
                results = await self._offload(self._work, [item for item, _ in batch])
                done = list(zip(batch, results, strict=True))
            except Exception as error:
                for _, turn in batch:
                    _fail(turn, error)
            except BaseException:
                self._waiting.extendleft(reversed(batch))  # they learn it when the task has ended
                raise
            else:
                for (_, turn), result in done:
                    if not turn.done():
                        turn.set_result(result)
        self._task = None

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Return what is worked on next."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        room = self._most
        while self._waiting:
            room -= self._cost(self._waiting[0][0])
            if batch and room < 0:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _on_ended(self, task: Task[None]) -> None:
        if self._task is task:  # it was stopped
            self._task = None
            while self._waiting:
                _fail(self._waiting.popleft()[1], task.error or TaskStopped("it was stopped"))


def _fail(turn: asyncio.Future[R], error: BaseException) -> None:
    if not turn.done():
        turn.set_exception(error)
        turn.exception()  # whoever waited may be gone
