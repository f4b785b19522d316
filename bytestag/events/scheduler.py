"""EventScheduler: puts events into a reactor at their time (shell over one loop timer).

All entries lie in one heap by the monotonic clock and one timer waits for the first. Entries for a
wall time are looked at again at least each minute, so that they keep to the wall clock when it is
set or the machine slept.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
from collections.abc import Hashable
from typing import Any

from bytestag.errors import UsageError
from bytestag.events.reactor import EventQueueFull, EventReactor
from bytestag.events.runtime import Runtime

_logger = logging.getLogger(__name__)

WALL_CHECK_SECONDS = 60.0  # how wrong a wall time may become by a jump of the clock
QUEUE_FULL_SECONDS = 1.0  # when to try again if the reactor's queue is full
CANCELLED_MAX = 64  # cancelled entries that may lie in the heap beside as many live ones


class EventSchedulerEntry:
    """An event that waits for its time."""

    __slots__ = ("_scheduler", "event_data", "event_id", "interval", "is_cancelled", "wall_time")

    def __init__(
        self,
        scheduler: EventScheduler,
        event_id: Hashable,
        event_data: tuple[Any, ...],
        interval: float | None = None,
        wall_time: float | None = None,
    ) -> None:
        self._scheduler = scheduler
        self.event_id = event_id
        self.event_data = event_data
        self.interval = interval
        """Seconds between its events, if it is periodic."""
        self.wall_time = wall_time
        self.is_cancelled = False

    def cancel(self) -> None:
        """Put it no more; from any thread, idempotent."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._scheduler._count_cancelled()


class EventScheduler:
    """Schedules events; may be called from any thread, before and after the reactor's start."""

    def __init__(self, reactor: EventReactor, runtime: Runtime) -> None:
        self._reactor = reactor
        self._runtime = runtime
        self._lock = threading.Lock()
        self._heap: list[tuple[float, int, EventSchedulerEntry]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._timer: asyncio.TimerHandle | None = None
        reactor.register_handler(EventReactor.STOP_ID, self._disarm)

    def __len__(self) -> int:
        """Return how many entries wait."""
        with self._lock:
            return sum(not entry.is_cancelled for _, _, entry in self._heap)

    def add_absolute(
        self, time: float, event_id: Hashable, *event_data: Any
    ) -> EventSchedulerEntry:
        """Put the event at a wall clock time, at once if that has passed."""
        entry = EventSchedulerEntry(self, event_id, event_data, wall_time=time)
        return self._add(self._wall_delay(time), entry)

    def add_one_shot(
        self, seconds: float, event_id: Hashable, *event_data: Any
    ) -> EventSchedulerEntry:
        """Put the event once, after some seconds."""
        return self._add(max(0.0, seconds), EventSchedulerEntry(self, event_id, event_data))

    def add_periodic(
        self, seconds: float, event_id: Hashable, *event_data: Any
    ) -> EventSchedulerEntry:
        """Put the event each so many seconds, for the first time after the first interval.

        Periods that passed while the machine slept are left out, not made up for.
        """
        if seconds <= 0:
            raise UsageError(f"a period is more than 0 seconds, not {seconds:g}")
        return self._add(seconds, EventSchedulerEntry(self, event_id, event_data, seconds))

    # --- Inside ----------------------------------------------------------------------------------

    def _wall_delay(self, wall_time: float) -> float:
        return min(max(0.0, wall_time - self._runtime.wall()), WALL_CHECK_SECONDS)

    def _add(self, delay: float, entry: EventSchedulerEntry) -> EventSchedulerEntry:
        with self._lock:
            self._push(self._runtime.monotonic() + delay, entry)
            is_first = self._heap[0][2] is entry
        if is_first:
            self._reactor.post(self._arm)
        return entry

    def _push(self, deadline: float, entry: EventSchedulerEntry) -> None:
        heapq.heappush(self._heap, (deadline, next(self._numbers), entry))

    def _count_cancelled(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._cancelled > max(CANCELLED_MAX, len(self._heap) // 2):
                self._heap = [item for item in self._heap if not item[2].is_cancelled]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _arm(self) -> None:
        """Set the timer to the first deadline; in the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            deadline = self._heap[0][0] if self._heap else None
        if deadline is not None and not self._reactor.has_stopped:
            delay = max(0.0, deadline - self._runtime.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _disarm(self) -> None:
        with self._lock:
            self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = self._runtime.monotonic()
        while (due := self._pop_due(now)) is not None:
            deadline, entry = due
            again: float | None
            if entry.wall_time is not None and entry.wall_time > self._runtime.wall():
                again = now + self._wall_delay(entry.wall_time)
            else:
                again = self._put(entry, deadline, now)
            if again is not None:
                with self._lock:
                    self._push(again, entry)
        self._arm()

    def _pop_due(self, now: float) -> tuple[float, EventSchedulerEntry] | None:
        """Take the first live entry whose deadline has come, with that deadline."""
        with self._lock:
            while self._heap and self._heap[0][0] <= now:
                deadline, _, entry = heapq.heappop(self._heap)
                if not entry.is_cancelled:
                    return deadline, entry
                self._cancelled = max(0, self._cancelled - 1)
        return None

    def _put(self, entry: EventSchedulerEntry, deadline: float, now: float) -> float | None:
        """Put the event; return when the entry is due again."""
        try:
            self._reactor.put(entry.event_id, *entry.event_data)
        except EventQueueFull:
            _logger.warning("x the event queue is full: %r is late", entry.event_id)
            return now + QUEUE_FULL_SECONDS
        if entry.interval is None:
            return None
        again = deadline + entry.interval
        return again if again > now else now + entry.interval
