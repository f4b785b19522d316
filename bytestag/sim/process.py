"""Process: what one virtual machine runs, so that it can be killed or frozen as a whole (shell).

Everything that is started in a process (tasks, timers, endpoints) belongs to it, and so does what
that starts in turn. Call into a node through :meth:`Process.run`, or its work belongs to the caller
and outlives the kill.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import copy_context
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from bytestag.errors import LocalError
from bytestag.sim.loop import OWNER, Handles, VirtualLoop

R = TypeVar("R")

CLEANUPS_MAX = 16
"""What awaits in its clean-up is told again that it ends, so often at most."""


class Killed(LocalError):
    """The process that did the work was killed."""

    code = "killed"


class Process:
    """Runs coroutines until it is killed."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.context = copy_context()
        """Where its code runs."""
        self.is_dead = False
        self._loop = loop
        self._death = loop.create_future()
        self._held: Handles | None = None
        self._tasks: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()
        self._adopted = 0
        self.context.run(OWNER.set, self)

    @property
    def is_frozen(self) -> bool:
        return self._held is not None

    @property
    def tasks(self) -> list[asyncio.Task[Any]]:
        """Its tasks that are not done, oldest first."""
        numbered = [(number, task) for task, number in self._tasks.items() if not task.done()]
        return [task for _, task in sorted(numbered, key=lambda pair: pair[0])]

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Learn of a task that was started in here."""
        self._adopted += 1
        self._tasks[task] = self._adopted

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Await work that is done in here; cancelled with the caller. Raises Killed."""
        if self.is_dead:
            work.close()
            raise Killed("the process is dead")
        task = self._loop.create_task(work, context=self.context)
        if self._held is not None:
            self._hold()
        try:
            await asyncio.wait({task, self._death}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not self.is_dead:
                task.cancel()
            raise
        if task.done():
            return task.result()
        raise Killed("the process was killed")

    # --- Standing still --------------------------------------------------------------------------

    def freeze(self) -> None:
        """Let it stand still, as SIGSTOP would: nothing of it is called; idempotent."""
        if not self.is_dead and self._held is None:
            self._held = Handles([], [])
            self._hold()

    def thaw(self) -> None:
        """Let it go on; its timers that are late fire at once. Idempotent."""
        if self._held is not None:
            held, self._held = self._held, None
            self._loop.give_back(held)

    def _hold(self) -> None:
        assert self._held is not None
        taken = self._loop.take_away((self,))
        self._held.ready.extend(taken.ready)
        self._held.timers.extend(taken.timers)

    # --- Dying -----------------------------------------------------------------------------------

    def _die(self) -> None:
        """End its tasks where they stand. Python runs their clean-up; nothing hears of it."""
        self.is_dead = True
        self._held = None
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self.context.run(_end, task.get_coro())
            asyncio._unregister_task(task)
        self._tasks.clear()
        if not self._death.done():
            self._death.set_result(None)


def kill(loop: VirtualLoop, processes: Iterable[Process]) -> None:
    """Kill processes, as SIGKILL would; close their endpoints before. Idempotent."""
    dying = [process for process in processes if not process.is_dead]
    assert OWNER.get() not in dying, "a process is killed from outside"
    loop.take_away(dying)
    for process in dying:
        process._die()
    for _ in range(CLEANUPS_MAX):  # what clean-up asked for, some of it when the last was dropped
        if not any(loop.take_away(dying)):
            break


class _Kill(BaseException):
    """Ends a coroutine. Not by ``close``: that leaves the generators it iterates where they are."""


def _end(coroutine: Any) -> None:
    """End a coroutine, also if it awaits something in its clean-up."""
    for _ in range(CLEANUPS_MAX):
        try:
            coroutine.throw(_Kill())
        except BaseException:  # _Kill, or what its clean-up made of it
            return
