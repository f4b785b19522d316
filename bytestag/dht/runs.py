"""Runs: things that follow each other are asked for together; what is left, one by one (shell)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from bytestag.config import RUN_BYTES_MAX
from bytestag.events.slots import FnTaskSlot
from bytestag.events.together import Together
from bytestag.network.messages import VALUES_AT_ONCE_MAX

T = TypeVar("T")


class Runs(Generic[T]):
    """Makes runs of what is added, of 4 MiB at most, and lands each in a slot.

    ``land_run`` returns those that it could not land; they are given to ``land_one`` soon.
    """

    def __init__(
        self,
        slot: FnTaskSlot,
        tasks: Together,
        land_run: Callable[[list[T]], Awaitable[Iterable[T]]],
        land_one: Callable[[T], Awaitable[None]],
    ) -> None:
        self._slot = slot
        self._tasks = tasks
        self._land_run = land_run
        self._land_one = land_one
        self._run: list[T] = []
        self._run_bytes = 0
        self._left: deque[T] = deque()

    async def add(self, item: T, size: int) -> None:
        """Take a thing of so many bytes, when there is room."""
        is_full = len(self._run) == VALUES_AT_ONCE_MAX or self._run_bytes + size > RUN_BYTES_MAX
        if self._run and is_full:
            await self._begin_run()
        self._run.append(item)
        self._run_bytes += size

    async def end(self) -> None:
        """Return when all was tried; raises the first failure."""
        if self._run and not self._tasks.must_stop:
            await self._begin_run()
        await self._tasks.settle()
        await self._begin_left()
        await self._tasks.wait()

    async def _begin_run(self) -> None:
        run, self._run, self._run_bytes = self._run, [], 0
        self._tasks.add(await self._slot.add(self._land, run))
        await self._begin_left()

    async def _begin_left(self) -> None:
        while self._left and not self._tasks.must_stop:
            self._tasks.add(await self._slot.add(self._one, self._left.popleft()))

    async def _land(self, run: list[T]) -> None:
        self._left.extend(await self._land_run(run))

    async def _one(self, item: T) -> None:
        await self._land_one(item)
