"""VirtualLoop: an asyncio loop whose clock jumps (shell over asyncio's internals).

Nothing waits: when no callback is ready, the clock is set to the time of the next timer. So a day
of a node passes in the time its work takes, and the same program runs the same way each time. The
loop has no file descriptors and no threads; what would need them raises.

It relies on what :class:`asyncio.BaseEventLoop` keeps in ``_ready`` and ``_scheduled``, on
``_run_once`` asking ``_selector.select`` how long to wait, and on ``_clock_resolution``;
``tests/sim/test_loop.py`` pins these.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple, Unpack

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

START_SECONDS = 1000.0
"""A machine has been up for a while when a node starts; 0 would be a special case."""
TASKS_SHOWN_MAX = 8


class Deadlock(RuntimeError):
    """Tasks wait for each other: nothing is ready, and no timer is set that could change that."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop in which time passes only when nothing else can happen."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _clock_resolution: float

    def __init__(self, start: float = START_SECONDS) -> None:
        super().__init__()
        self._selector = _JumpingSelector(self)
        self._jump(start)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], R], *args: *Ts
    ) -> asyncio.Future[R]:
        """Refuse: a thread would take real time."""
        raise RuntimeError("virtual time has no threads; blocking work goes through the runtime")

    # --- What asyncio calls ----------------------------------------------------------------------

    def _jump(self, when: float) -> None:
        """Set the clock; a timer is due only when its time has come, however late it is."""
        self._now = when
        self._clock_resolution = math.ulp(when)

    def _process_events(self, event_list: list[Any]) -> None:
        """There are no file descriptors, so there are no events."""

    def _write_to_self(self) -> None:
        """Nobody sleeps in a selector, so nobody is to be woken."""


class _JumpingSelector:
    """Stands where a selector waits for file descriptors."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer; None means that there is none."""
        if timeout is None:
            raise Deadlock(_describe(asyncio.all_tasks(self._loop)))
        if timeout > 0:
            self._loop._jump(self._loop._scheduled[0]._when)  # type: ignore[attr-defined]
        return []


def _describe(tasks: set[asyncio.Task[Any]]) -> str:
    shown = sorted(f"{task.get_name()} {task.get_coro()}" for task in tasks)[:TASKS_SHOWN_MAX]
    return f"nothing will ever happen again; {len(tasks)} tasks wait: " + ", ".join(shown)
