"""Running a command that holds a node: the loop, its signals, its end (shell)."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from bytestag.cli.output import OutputGone
from bytestag.daemon.memory import collect_less, share_one_heap
from bytestag.events.runtime import Runtime, system_runtime

INTERRUPTED, TERMINATED = 130, 143
GRACE_SECONDS = 9.0  # less than the ten that service managers and people wait


class Stop:
    """Whether and why the command is to end."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.number = 0
        self.output_gone: OutputGone | None = None

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    @property
    def exit_status(self) -> int:
        """The code of a command that was ended before it was done."""
        return TERMINATED if self.number == signal.SIGTERM else INTERRUPTED

    def set(self, number: int) -> None:
        """Ask the command to end."""
        self.number = number
        self._event.set()

    async def wait(self) -> None:
        """Wait until the command is to end."""
        await self._event.wait()


async def until_stopped(stop: Stop, work: Awaitable[object]) -> bool:
    """Await work, or the stop, whichever is first; return whether the work was done.

    Work that is not done is cancelled and awaited.
    """

    async def end(task: asyncio.Task[object]) -> None:
        await stop.wait()
        task.cancel()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(_as_coroutine(work))
        ender = group.create_task(end(task))
        try:
            await asyncio.wait([task])
        finally:
            ender.cancel()
    return not task.cancelled()


async def _as_coroutine(work: Awaitable[object]) -> object:
    return await work


def run(main: Callable[[Runtime, Stop], Awaitable[int]], *, threads: int = 8) -> int:
    """Run a command's coroutine; return its exit code.

    The first SIGINT or SIGTERM sets the stop, and from then on the process has ten seconds; the
    second one ends it at once: what was acknowledged is on disk.
    """
    share_one_heap()
    collect_less()
    runtime = system_runtime(threads)
    try:
        return asyncio.run(_with_signals(main, runtime))
    finally:
        runtime.close()


async def _with_signals(main: Callable[[Runtime, Stop], Awaitable[int]], runtime: Runtime) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set:
            os._exit(128 + number)
        stop.set(number)
        timer = threading.Timer(GRACE_SECONDS, os._exit, (128 + number,))
        timer.daemon = True
        timer.start()

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, on_signal, number)
        except (NotImplementedError, RuntimeError, ValueError):
            break  # no such handlers on this system, or not in the main thread
    loop.set_exception_handler(lambda loop, context: _on_error(loop, context, stop))
    status = await main(runtime, stop)
    if stop.output_gone is not None:
        raise stop.output_gone
    return status


def _on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any], stop: Stop) -> None:
    """End the command if a callback could not print; whatever else it is, is logged."""
    error = context.get("exception")
    if not isinstance(error, OutputGone):
        loop.default_exception_handler(context)
    elif not stop.is_set:
        stop.output_gone = error
        stop.set(0)
