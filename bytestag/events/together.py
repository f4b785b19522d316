"""Together: tasks that are one piece of work, the first failure of which is its own (shell)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bytestag.events.tasks import Task


class Together:
    """Tasks of one piece of work; ``goes_on`` are failures that do not stop the others."""

    parent: asyncio.TaskGroup
    """Under which tasks of it may run."""

    def __init__(self, goes_on: tuple[type[BaseException], ...] = ()) -> None:
        self._goes_on = goes_on
        self._tasks: set[Task[Any]] = set()
        self._changed = asyncio.Event()
        self.error: BaseException | None = None
        """The first failure; of those that let others go on, none that does not."""

    def add(self, task: Task[Any]) -> None:
        """Wait for a task as well."""
        self._tasks.add(task)
        if task.is_finished:
            self._on_done(task)
        else:
            task.observer.register(self._on_done)

    def _on_done(self, task: Task[Any]) -> None:
        self._tasks.discard(task)
        if task.error is not None and (self.error is None or not self.must_stop):
            is_worse = self.error is None or not isinstance(task.error, self._goes_on)
            self.error = task.error if is_worse else self.error
        self._changed.set()

    @property
    def must_stop(self) -> bool:
        """Whether something failed after which nothing more should be begun."""
        return self.error is not None and not isinstance(self.error, self._goes_on)

    async def wait(self) -> None:
        """Wait for all of them; raises the first failure, at once unless the others go on."""
        await self.settle()
        if self.error is not None:
            raise self.error

    async def settle(self) -> None:
        """Wait for all of them, or until one failed so that nothing more should be begun."""
        while self._tasks and not self.must_stop:
            self._changed.clear()
            await self._changed.wait()

    async def stop(self) -> None:
        """Stop those that run, and wait for their end; idempotent."""
        for task in list(self._tasks):
            task.stop()
        while self._tasks:
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def together(*goes_on: type[BaseException]) -> AsyncIterator[Together]:
    """Have tasks that have ended at the end of the block; raises the first failure, as it is."""
    tasks = Together(goes_on)
    async with asyncio.TaskGroup() as group:
        tasks.parent = group
        try:
            yield tasks
            await tasks.wait()
        except Exception as error:
            tasks.error = error  # the group would wrap it
        finally:
            await tasks.stop()
    if tasks.error is not None:
        raise tasks.error
