"""A loop whose clock jumps to the next timer, and a runtime that tells the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from bytestag.events.runtime import Runtime


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


class World:
    """The loop, its runtime, and a wall clock that a test may set."""

    def __init__(self) -> None:
        self.loop = JumpingLoop()
        self.wall_offset = 1_000_000.0

        async def offload(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        self.runtime = Runtime(
            monotonic=self.loop.time,
            wall=lambda: self.loop.time() + self.wall_offset,
            rng=random.Random(1),
            token_bytes=random.Random(2).randbytes,
            offload=offload,
        )

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()
