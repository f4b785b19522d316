"""EventReactor: the loop, the root of all tasks, and named events (shell over asyncio).

A reactor runs once, either inside a running loop (``async with EventReactor() as reactor``) or, for
blocking callers, in a thread of its own (:meth:`EventReactor.start`, :meth:`EventReactor.stop`).
Events may be put from any thread; handlers run in the loop, one after another, in the order of
``put``. What a handler raises is logged and stops nothing. A task that fails is another matter:
like in any :class:`asyncio.TaskGroup` it ends the reactor, so that bugs are seen
(:class:`~bytestag.events.tasks.Task` keeps its failure for whoever asks for the result).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeVar

from bytestag.errors import LocalError, Timeout
from bytestag.events.tasks import call_in_loop

_logger = logging.getLogger(__name__)

T = TypeVar("T")

STOP_SECONDS_MAX = 30.0  # how long a blocking stop waits for tasks that clean up


class EventQueueFull(LocalError):
    """More events wait than the reactor takes: its handlers are too slow for what is put."""

    code = "event_queue_full"


class EventID:
    """Names an event; equal to another with equal arguments."""

    __slots__ = ("args",)

    def __init__(self, arg: Hashable, *args: Hashable) -> None:
        self.args: tuple[Hashable, ...] = (arg, *args)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EventID) and self.args == other.args

    def __hash__(self) -> int:
        return hash(self.args)

    def __repr__(self) -> str:
        return f"EventID({', '.join(map(repr, self.args))})"


class Startable(Protocol):
    """A task as the reactor sees it."""

    def start(self, parent: Any) -> object: ...

    def stop(self) -> None: ...


def _nothing() -> None:
    """Be the callback of somebody who does not care."""


class EventReactor:
    """Dispatches events from any thread to handlers in one loop, and owns the tasks in it."""

    STOP_ID: ClassVar[EventID] = EventID("bytestag.events.EventReactor.STOP_ID")
    """Put it to stop the reactor; its handlers are told first."""

    def __init__(self, max_queue_size: int = 100) -> None:
        self.max_queue_size = max_queue_size
        self._lock = threading.Lock()
        self._events: deque[tuple[Hashable, tuple[Any, ...]]] = deque()
        self._calls: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()
        self._handlers: dict[Hashable, tuple[Callable[..., object], ...]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._stopped = asyncio.Event()
        self._has_stopped = False
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None

    # --- Events, from any thread -----------------------------------------------------------------

    @property
    def queue_size(self) -> int:
        """How many events wait."""
        return len(self._events)

    @property
    def has_stopped(self) -> bool:
        return self._has_stopped

    def register_handler(self, event_id: Hashable, handler_callback: Callable[..., object]) -> None:
        """Have ``handler_callback(*event_data)`` called for each such event.

        A coroutine function is run as a task of the reactor.
        """
        with self._lock:
            handlers = self._handlers.get(event_id, ())
            self._handlers[event_id] = (*handlers, handler_callback)

    def put(self, event_id: Hashable, *event_data: Any) -> None:
        """Add an event; one put before the start waits for it, one after the stop is dropped.

        Raises EventQueueFull at the limit; ``STOP_ID`` is always taken.
        """
        with self._lock:
            if self._has_stopped:
                return
            if len(self._events) >= self.max_queue_size and event_id != self.STOP_ID:
                raise EventQueueFull(f"{self.max_queue_size} events wait already")
            self._events.append((event_id, event_data))
        self._wake_up()

    def post(self, call: Callable[[], object], refused: Callable[[], object] = _nothing) -> None:
        """Have ``call()`` called in the loop soon, or ``refused()`` if the reactor stops before."""
        with self._lock:
            has_stopped = self._has_stopped
            if not has_stopped:
                self._calls.append((call, refused))
        if has_stopped:
            refused()
        else:
            self._wake_up()

    def start_task(self, task: Startable) -> None:
        """Start a :class:`~bytestag.events.tasks.Task` under this reactor, from any thread."""
        self.post(lambda: task.start(self), refused=task.stop)

    # --- Inside the loop -------------------------------------------------------------------------

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None
    ) -> asyncio.Task[Any]:
        """Run a coroutine as a child of the root task group. Raises RuntimeError when stopped."""
        try:
            if self._has_stopped or self._loop is None:
                raise RuntimeError("the reactor does not run")
            task = self._group.create_task(coro, name=name)
        except RuntimeError:
            coro.close()
            raise
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_stopped(self) -> None:
        """Wait until the reactor was told to stop."""
        await self._stopped.wait()

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("a reactor runs once")
        await self._group.__aenter__()
        with self._lock:
            self._loop = asyncio.get_running_loop()
        self._group.create_task(self._dispatch(), name="bytestag-reactor")
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.put(self.STOP_ID)
        else:
            self._shut_down()
        try:
            await self._group.__aexit__(type_, error, traceback)
        finally:
            self._shut_down()

    async def _dispatch(self) -> None:
        while not self._has_stopped:
            await self._wake.wait()
            self._wake.clear()
            for call, _ in _drain(self._calls):
                _guarded(call)
            for _ in range(len(self._events)):  # what handlers put now is for the next round
                event_id, event_data = self._events.popleft()
                if event_id == self.STOP_ID:
                    self._shut_down()
                    return
                self._handle(event_id, event_data)
            if self._events or self._calls:
                self._wake.set()
                await asyncio.sleep(0)  # let the loop serve its sockets between the rounds

    def _handle(self, event_id: Hashable, event_data: tuple[Any, ...]) -> None:
        for handler in self._handlers.get(event_id, ()):
            answer = _guarded(handler, *event_data)
            if inspect.iscoroutine(answer):
                _guarded(self.create_task, _log_failure(answer))

    def _shut_down(self) -> None:
        """Tell the handlers, refuse what waits, cancel what ran before; once."""
        if self._has_stopped:
            return
        running = list(self._tasks)
        self._handle(self.STOP_ID, ())
        with self._lock:
            self._has_stopped = True
            calls = _drain(self._calls)
            self._events.clear()
        for _, refused in calls:
            _guarded(refused)
        for task in running:
            task.cancel()
        self._stopped.set()
        self._wake.set()

    def _wake_up(self) -> None:
        with self._lock:
            loop = self._loop
            if loop is None:
                self._wake.set()  # nobody waits for it yet
                return
        call_in_loop(loop, self._wake.set)  # if it closes now, what waits was dropped or refused

    # --- For blocking callers --------------------------------------------------------------------

    def start(self) -> None:
        """Run the reactor in a thread of its own; return when it runs."""
        if self._thread is not None or self._loop is not None:
            raise RuntimeError("a reactor runs once")
        self._thread = threading.Thread(target=self._run, name="bytestag-reactor", daemon=True)
        self._thread.start()
        self._started.wait()

    def stop(self, timeout: float = STOP_SECONDS_MAX) -> None:
        """Stop the reactor and wait for its thread; idempotent.

        Raises what ended the reactor if it was a failing task, and Timeout if tasks do not end.
        """
        self.put(self.STOP_ID)
        if self._thread is None or self._thread is threading.current_thread():
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise Timeout(f"the reactor did not stop within {timeout:g} seconds")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failure = error  # raised again by ``stop``, in the thread that cares
        finally:
            self._started.set()

    async def _main(self) -> None:
        async with self:
            self._started.set()
            await self.wait_stopped()


def _drain(queue: deque[T]) -> list[T]:
    return [queue.popleft() for _ in range(len(queue))]


def _guarded(call: Callable[..., object], *args: Any) -> object:
    try:
        return call(*args)
    except Exception:
        _logger.exception("! an event handler failed: %r", call)
        return None


async def _log_failure(coroutine: Coroutine[Any, Any, object]) -> None:
    try:
        await coroutine
    except Exception:
        _logger.exception("! an event handler failed: %r", coroutine)
