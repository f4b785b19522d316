"""Runtime: clock, randomness and blocking work, injected once (pure but for its defaults).

Whatever a node does with time, chance or threads goes through one of these, so that the simulator
can run the same code in a world of its own.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from bytestag.events.heap import keep_freed

P = ParamSpec("P")
R = TypeVar("R")

THREADS_MAX = 4


class Offload(Protocol):
    """Run a blocking function elsewhere and await its result."""

    def __call__(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[R]: ...


class Remembered(Protocol):
    """Call a pure function of hashable values."""

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...


async def run_here(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function in the loop itself: an offload for what does not block."""
    return function(*args, **kwargs)


def _call(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    return function(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Runtime:
    """The injected bundle.

    ``monotonic`` and ``wall`` return seconds; ``rng`` serves jitter and sampling; ``token_bytes``
    returns unguessable bytes (in the simulator: seeded ones).
    """

    monotonic: Callable[[], float]
    wall: Callable[[], float]
    rng: random.Random
    token_bytes: Callable[[int], bytes]
    offload: Offload
    offload_memory: Offload = run_here
    """For work on tables in memory, which does not block; a thread's turn costs more than it."""
    remembered: Remembered = _call
    """Call a pure function; the simulator, where thousands ask the same, may remember results."""
    close: Callable[[], None] = lambda: None


def system_runtime(threads: int | None = None) -> Runtime:
    """Return the runtime of a real process: its clocks, its randomness, a bounded thread pool.

    Memory that is freed stays with the process (:mod:`bytestag.events.heap`).

    By default there is one thread more than processors, and four at most: more of them only fight
    the event loop for the interpreter's lock (a third of the speed of a transfer, measured).
    """
    keep_freed()
    threads = threads or min((os.cpu_count() or 1) + 1, THREADS_MAX)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="bytestag")

    async def offload(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, lambda: function(*args, **kwargs))

    return Runtime(
        monotonic=time.monotonic,
        wall=time.time,
        rng=random.Random(secrets.randbits(128)),
        token_bytes=secrets.token_bytes,
        offload=offload,
        close=lambda: pool.shutdown(wait=True, cancel_futures=True),
    )
