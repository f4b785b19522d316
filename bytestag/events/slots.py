"""FnTaskSlot: a bounded place to run tasks in (shell over asyncio).

At most ``max_size`` tasks run and ``waiting_max`` wait for their turn. Work of ours waits for room
(:meth:`FnTaskSlot.add`); what a stranger asks for is refused (:meth:`FnTaskSlot.add_no_block`).
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from bytestag.errors import LocalError
from bytestag.events.observer import Observer
from bytestag.events.tasks import Parent, Task, TaskStopped, call_in_loop


class SlotFull(LocalError):
    """As many tasks run and wait as the slot takes."""

    code = "slot_full"


class FnTaskSlot:
    """Limits how many tasks run at one time.

    It is used as ``async with FnTaskSlot(3) as slot``, owning a task group that is waited for at
    the end of the block, or under a given ``parent``. Its methods belong to the loop's thread.
    """

    def __init__(
        self, max_size: int = 3, waiting_max: int | None = None, parent: Parent | None = None
    ) -> None:
        if max_size < 1:
            raise ValueError("a slot runs at least one task")
        self.max_size = max_size
        self.waiting_max = max_size if waiting_max is None else waiting_max
        self.observer = Observer()
        """Called with (is_added, task) when a task is accepted and when it is done."""
        self._parent = parent
        self._group: asyncio.TaskGroup | None = None
        self._running: dict[Task[Any], None] = {}  # ordered
        self._waiting: deque[Task[Any]] = deque()
        self._adders: deque[asyncio.Future[None]] = deque()
        self._places_taken = 0  # running, waiting, and granted to an adder that is about to run
        self._is_stopped = False

    @property
    def current_tasks(self) -> tuple[Task[Any], ...]:
        """The tasks that run now, oldest first."""
        return tuple(self._running)

    @property
    def queue(self) -> int:
        """How many accepted tasks wait for their turn."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether :meth:`add_no_block` would refuse."""
        return bool(self._adders) or self._places_taken >= self.max_size + self.waiting_max

    async def add(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Task[Any]:
        """Wait for room, then accept the task that ``fn`` makes.

        ``fn`` returns an unstarted :class:`Task`, or is a coroutine function, which is wrapped in
        one. It is called when there is room, first come, first served. Raises TaskStopped if the
        slot is stopped.
        """
        if self.is_full and not self._is_stopped:
            await self._turn()
        else:
            self._places_taken += 1
        return self._accept(fn, args, kwargs)

    def add_no_block(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Task[Any]:
        """Accept the task that ``fn`` makes; raises SlotFull if there is no room now."""
        if self.is_full and not self._is_stopped:
            raise SlotFull(f"{self.max_size} tasks run and {self.queue} wait already")
        self._places_taken += 1
        return self._accept(fn, args, kwargs)

    def stop(self) -> None:
        """Stop what runs and what waits, and accept nothing more; idempotent."""
        self._is_stopped = True
        while self._adders:
            turn = self._adders.popleft()
            if not turn.done():
                turn.set_exception(TaskStopped("the slot is stopped"))
        for task in [*self._waiting, *self._running]:
            task.stop()

    async def __aenter__(self) -> Self:
        if self._parent is not None:
            raise RuntimeError("a slot has one parent")
        self._group = self._parent = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._group is not None
        if error is not None:
            self.stop()
        try:
            await self._group.__aexit__(type_, error, traceback)
        finally:
            self.stop()

    # --- Inside ----------------------------------------------------------------------------------

    async def _turn(self) -> None:
        """Wait in line; at the end one place is taken for the caller."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._adders.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release()  # the place came together with the cancellation
            elif turn in self._adders:
                self._adders.remove(turn)
            raise

    def _accept(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Task[Any]:
        try:
            if self._is_stopped:
                raise TaskStopped("the slot is stopped")
            if self._parent is None:
                raise RuntimeError("the slot has no parent: use it with `async with`")
            task = _task_of(fn, args, kwargs)
        except BaseException:
            self._release()
            raise
        loop = asyncio.get_running_loop()
        self._waiting.append(task)
        self.observer(True, task)
        task.observer.register(lambda task: call_in_loop(loop, lambda: self._on_finished(task)))
        self._start_waiting()
        return task

    def _start_waiting(self) -> None:
        while self._waiting and len(self._running) < self.max_size:
            task = self._waiting.popleft()
            self._running[task] = None
            assert self._parent is not None
            task.start(self._parent)

    def _on_finished(self, task: Task[Any]) -> None:
        if task in self._running:
            del self._running[task]
        elif task in self._waiting:
            self._waiting.remove(task)
        self.observer(False, task)
        self._start_waiting()
        self._release()

    def _release(self) -> None:
        """Give a place back, to the first in line if there is one."""
        self._places_taken -= 1
        while self._adders:
            turn = self._adders.popleft()
            if not turn.done():
                self._places_taken += 1
                turn.set_result(None)
                return


def _task_of(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[Any]:
    if inspect.iscoroutinefunction(fn):
        return Task.wrap(fn, *args, **kwargs)
    task = fn(*args, **kwargs)
    if not isinstance(task, Task):
        raise TypeError(f"{fn!r} is no coroutine function and returned {task!r}, not a Task")
    return task
