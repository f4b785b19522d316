"""VirtualLoop: an asyncio loop whose clock jumps (shell over asyncio's internals).

Nothing waits: when no callback is ready, the clock is set to the time of the next timer. So a day
of a node passes in the time its work takes, and the same program runs the same way each time. The
loop has no file descriptors and no threads; what would need them raises.

What runs can belong to an :class:`Owner`, through the context variable :data:`OWNER`: its tasks are
told to it, and its handles can be taken away as a whole, for good or for a while. That costs a loop
without owners nothing.

Timers are kept here, not by :class:`asyncio.BaseEventLoop`: a heap of plain tuples is compared in
C, which a world of ten thousand nodes notices. What is relied on: ``run_forever`` calls
``_run_once`` until ``_stopping``, ``call_soon`` appends handles to ``_ready``, and a cancelled
:class:`asyncio.TimerHandle` tells ``_timer_handle_cancelled``; ``tests/sim/test_loop.py`` pins
these. Owners rely on :class:`asyncio.Handle` having its ``_context``.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import Any, NamedTuple, Protocol, TypeVar, TypeVarTuple, Unpack

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

START_SECONDS = 1000.0
"""A machine has been up for a while when a node starts; 0 would be a special case."""
TASKS_SHOWN_MAX = 8
CANCELLED_MIN = 1000


class Deadlock(RuntimeError):
    """Tasks wait for each other: nothing is ready, and no timer is set that could change that."""


class Owner(Protocol):
    """To whom tasks and handles belong."""

    def adopt(self, task: asyncio.Task[Any]) -> None: ...


OWNER: ContextVar[Owner | None] = ContextVar("owner", default=None)
"""Whose code runs; tasks and timers inherit it, as they do every context variable."""
_Timer = tuple[float, int, asyncio.TimerHandle]


class Handles(NamedTuple):
    """What was to be called: as soon as possible, and at its time."""

    ready: list[asyncio.Handle]
    timers: list[_Timer]


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop in which time passes only when nothing else can happen."""

    _ready: deque[asyncio.Handle]
    _stopping: bool

    def __init__(self, start: float = START_SECONDS) -> None:
        super().__init__()
        self._now = start
        self._timers: list[_Timer] = []
        self._timers_set = 0
        self._timers_cancelled = 0

    def time(self) -> float:
        """Return virtual seconds."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call at an absolute time; timers of one time fire in the order they were set."""
        self._check_closed()  # type: ignore[attr-defined]
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]
        self._timers_set += 1
        heapq.heappush(self._timers, (when, self._timers_set, timer))
        return timer

    def create_task(
        self,
        coro: Generator[Any, None, R] | Coroutine[Any, Any, R],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[R]:
        """Start a task, and tell it to its owner, if it has one."""
        task = super().create_task(coro, name=name, context=context)
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.adopt(task)
        return task

    def waiting_for(self, owner: Owner) -> list[asyncio.Handle]:
        """Return all that is still to be called for an owner."""
        timers = (timer[2] for timer in self._timers)
        mine = [h for h in (*self._ready, *timers) if _owner_of(h) is owner]
        return [handle for handle in mine if not handle.cancelled()]

    def take_away(self, owners: Collection[Owner]) -> Handles:
        """Remove and return all that was to be called for these owners."""
        mine = [handle for handle in self._ready if _owner_of(handle) in owners]
        timers = [timer for timer in self._timers if _owner_of(timer[2]) in owners]
        if mine:
            others = [handle for handle in self._ready if _owner_of(handle) not in owners]
            self._ready.clear()
            self._ready.extend(others)
        if timers:
            self._timers = [timer for timer in self._timers if _owner_of(timer[2]) not in owners]
            heapq.heapify(self._timers)
        for _, _, timer in timers:
            timer._scheduled = False  # type: ignore[attr-defined]
            self._timers_cancelled -= timer.cancelled()
        return Handles(
            [handle for handle in mine if not handle.cancelled()],
            [timer for timer in timers if not timer[2].cancelled()],
        )

    def give_back(self, handles: Handles) -> None:
        """Call, after all, what was taken away; timers whose time is past fire at once."""
        self._ready.extend(handles.ready)
        for entry in handles.timers:
            if not entry[2].cancelled():
                entry[2]._scheduled = True  # type: ignore[attr-defined]
                heapq.heappush(self._timers, entry)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], R], *args: *Ts
    ) -> asyncio.Future[R]:
        """Refuse: a thread would take real time."""
        raise RuntimeError("virtual time has no threads; blocking work goes through the runtime")

    # --- What asyncio calls ----------------------------------------------------------------------

    def _run_once(self) -> None:
        """Run what is ready; if nothing is, let time pass until the next timer."""
        if not (self._ready or self._stopping):
            self._let_time_pass()
        ready = self._ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
            if not ready:  # some may have been taken away
                break

    def _let_time_pass(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and (not ready or timers[0][0] <= self._now):
            when, _, timer = heapq.heappop(timers)
            timer._scheduled = False  # type: ignore[attr-defined]
            if timer.cancelled():
                self._timers_cancelled -= 1
                continue
            self._now = max(when, self._now)
            ready.append(timer)
        if not ready:
            raise Deadlock(_describe(asyncio.all_tasks(self)))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Sweep the heap when most of it is cancelled."""
        self._timers_cancelled += 1
        if self._timers_cancelled > max(CANCELLED_MIN, len(self._timers) // 2):
            for timer in self._timers:
                timer[2]._scheduled = not timer[2].cancelled()  # type: ignore[attr-defined]
            self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no file descriptors, so there are no events."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector, so nobody is to be woken."""


def _owner_of(handle: asyncio.Handle) -> Owner | None:
    owner: Owner | None = handle._context.get(OWNER)  # type: ignore[attr-defined]
    return owner


def _describe(tasks: set[asyncio.Task[Any]]) -> str:
    shown = sorted(f"{task.get_name()} {task.get_coro()}" for task in tasks)[:TASKS_SHOWN_MAX]
    return f"nothing will ever happen again; {len(tasks)} tasks wait: " + ", ".join(shown)
