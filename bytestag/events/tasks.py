"""Task: an asyncio task with progress, hooks, and a result for other threads (shell over asyncio).

Every task runs under a parent: a task group, the reactor, or a slot that owns a group. Its failure
does not end the parent; it is kept for whoever asks for the result. Only what nobody expects, an
exception that is not a :class:`BytestagError`, is logged as well.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from bytestag.errors import BytestagError, LocalError, Timeout
from bytestag.events.observer import Observer

_logger = logging.getLogger(__name__)

R = TypeVar("R")


class TaskStopped(LocalError):
    """The task was told to stop, so it has no result."""

    code = "stopped"


class Parent(Protocol):
    """Whatever owns tasks: :class:`asyncio.TaskGroup` or :class:`EventReactor`."""

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None
    ) -> asyncio.Task[Any]: ...


class Task(Generic[R]):
    """A piece of work that can be watched, stopped and waited for.

    Override :meth:`run`, or wrap a coroutine function::

        task = Task.wrap(download, key).start(group)
        await task              # in the loop: the result, or what ``run`` raised
        task.result(timeout=5)  # the same for another thread
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.observer = Observer(one_shot=True)
        """Called once with the task when it is finished, failed or stopped."""
        self.progress_observer = Observer()
        """Called with the new progress each time it is set."""
        self._arguments = (args, kwargs)
        self._progress: Any = None
        self._lock = threading.Lock()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False
        self._is_finished = False
        self._ended: threading.Event | None = None  # made for the first thread that waits
        self._result: R | None = None
        self._error: BaseException | None = None
        self._children: dict[Task[Any], Callable[[Any], None]] = {}

    @staticmethod
    def wrap(fn: Callable[..., Coroutine[Any, Any, R]], *args: Any, **kwargs: Any) -> FnTask[R]:
        """Return a task that awaits ``fn(*args, **kwargs)`` when it is started."""
        return FnTask(fn, *args, **kwargs)

    async def run(self, *args: Any, **kwargs: Any) -> R:
        """Do the work; override it. Set ``progress`` on the way, return the result."""
        raise NotImplementedError

    # --- Life ------------------------------------------------------------------------------------

    def start(self, parent: Parent) -> Self:
        """Run under ``parent``; call it in the loop, once.

        Under a parent that is closing, and after :meth:`stop`, the task ends as stopped.
        """
        if self._task is not None:
            raise RuntimeError("a task runs once")
        if self._is_finished:
            return self
        self._loop = asyncio.get_running_loop()
        args, kwargs = self._arguments
        coroutine = self._guard(*args, **kwargs)
        try:
            self._task = parent.create_task(coroutine, name=self._name)
        except RuntimeError:
            coroutine.close()
            self._finish(TaskStopped(f"{self!r}: its parent is closing"))
            return self
        self._task.add_done_callback(self._on_done)
        if self._is_stopping:  # by another thread, before there was anything to cancel
            self._task.cancel()
        return self

    def stop(self) -> None:
        """Ask the task and its children to stop, from any thread; idempotent."""
        with self._lock:
            first, self._is_stopping = not self._is_stopping, True
            children = list(self._children)
        if not first or self._is_finished:
            return
        for child in children:
            child.stop()
        task, loop = self._task, self._loop
        if task is None or loop is None:
            self._finish(TaskStopped(f"{self!r} was stopped before it began"))
        else:
            call_in_loop(loop, task.cancel)

    def hook_task(self, task: Task[Any]) -> None:
        """Make ``task`` a child: it stops with this one, and its progress becomes this one's."""

        def update(progress: Any) -> None:
            self.progress = progress

        with self._lock:
            is_stopping = self._is_stopping
            self._children[task] = update
        task.progress_observer.register(update)
        task.observer.register(self._unhook)
        if is_stopping:
            task.stop()

    # --- State -----------------------------------------------------------------------------------

    @property
    def progress(self) -> Any:
        """What the task says about how far it is; None before it says anything."""
        return self._progress

    @progress.setter
    def progress(self, progress: Any) -> None:
        self._progress = progress
        self.progress_observer(progress)

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither finished nor was asked to stop."""
        return self._task is not None and not self._is_stopping and not self._is_finished

    @property
    def is_finished(self) -> bool:
        """Whether it came to its end: with a result, a failure, or stopped."""
        return self._is_finished

    @property
    def result_(self) -> R | None:
        """The result, or None while there is none; see :meth:`result`."""
        return self._result

    @property
    def error(self) -> BaseException | None:
        """What :meth:`run` raised, TaskStopped, or None."""
        return self._error

    def result(self, timeout: float | None = None) -> R:
        """Wait, in another thread than the loop's, and return the result.

        Raises what :meth:`run` raised, TaskStopped, or Timeout.
        """
        if not self._is_finished and self._loop is not None and self._loop is running_loop():
            raise RuntimeError("result() would wait for its own loop; await the task instead")
        with self._lock:
            ended = None if self._is_finished else self._ended or threading.Event()
            self._ended = ended
        if ended is not None and not ended.wait(timeout):
            raise Timeout(f"{self!r} did not finish within {timeout:g} seconds")
        return self._outcome()

    def __await__(self) -> Generator[Any, None, R]:
        if not self._is_finished:
            loop = asyncio.get_running_loop()
            turn: asyncio.Future[None] = loop.create_future()

            def end_turn() -> None:
                if not turn.done():
                    turn.set_result(None)

            def wake(_: Task[Any]) -> None:
                call_in_loop(loop, end_turn)

            self.observer.register(wake)
            try:
                yield from turn
            finally:
                self.observer.unregister(wake)
        return self._outcome()

    @property
    def _name(self) -> str:
        """What its asyncio task is called."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self._name} {id(self):#x}>"

    # --- Inside ----------------------------------------------------------------------------------

    async def _guard(self, *args: Any, **kwargs: Any) -> None:
        """Run, and keep the failure; cancellation goes through to the parent."""
        try:
            self._result = await self.run(*args, **kwargs)
        except Exception as error:
            self._error = error
            if not isinstance(error, BytestagError):
                _logger.exception("! %r failed", self)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """Learn the end here and not in ``_guard``: a task cancelled early never enters it."""
        if task.cancelled():
            self._finish(TaskStopped(f"{self!r} was stopped"))
        else:
            self._finish(task.exception() or self._error)

    def _finish(self, error: BaseException | None) -> None:
        with self._lock:
            if self._is_finished:
                return
            self._error = error
            self._is_finished = True
            if self._ended is not None:
                self._ended.set()
        self.observer(self)

    def _unhook(self, task: Task[Any]) -> None:
        with self._lock:
            update = self._children.pop(task, None)
        if update is not None:
            task.progress_observer.unregister(update)

    def _outcome(self) -> R:
        if self._error is not None:
            raise self._error
        return cast(R, self._result)


class FnTask(Task[R]):
    """A task whose body is a coroutine function given to it."""

    def __init__(
        self, fn: Callable[..., Coroutine[Any, Any, R]], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._fn = fn

    async def run(self, *args: Any, **kwargs: Any) -> R:
        return await self._fn(*args, **kwargs)

    @property
    def _name(self) -> str:
        return getattr(self._fn, "__qualname__", "") or repr(self._fn)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_in_loop(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Call now if this is the loop's thread, else soon; not at all if the loop is closed."""
    if running_loop() is loop:
        call()
        return
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        _logger.debug("= the loop is closed: dropped %r", call)
