"""World: one loop, one network, and what runs in them, from beginning to end (composition).

::

    async def main(world: World) -> int:
        endpoint = await world.network.open_endpoint(("10.0.0.1", 0), receiver)
        ...

    run(main, seed=1)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bytestag.events.runtime import Runtime
from bytestag.sim.conditions import Conditions
from bytestag.sim.loop import VirtualLoop
from bytestag.sim.network import VirtualNetwork
from bytestag.sim.runtime import Memory, virtual_runtime

R = TypeVar("R")
Main = Callable[["World"], Coroutine[Any, Any, R]]


class Leak(AssertionError):
    """Something was left behind: a task that still runs, an error in a callback."""


@dataclass(slots=True)
class World:
    """What a virtual program is given."""

    loop: VirtualLoop
    network: VirtualNetwork
    seed: object
    errors: list[dict[str, Any]] = field(default_factory=list)
    """What asyncio's exception handler was told."""
    _memory: Memory = field(default_factory=Memory)

    def runtime(self, name: object = "") -> Runtime:
        """Return the runtime of one node; each name has a chance of its own."""
        return virtual_runtime(self.loop, f"{self.seed} {name}", self._memory)


def run(
    main: Main[R] | Coroutine[Any, Any, R], seed: object = 0, conditions: Conditions | None = None
) -> R:
    """Run a program in a fresh world and return its result.

    ``main`` is a coroutine, or a function that makes one of a :class:`World`.

    Raises:
        Deadlock: it waits for something that cannot happen.
        Leak: it ended, but left tasks behind, or a callback failed.
    """
    loop = VirtualLoop()
    world = World(loop, VirtualNetwork(loop, seed, conditions), seed)
    loop.set_exception_handler(lambda _, context: world.errors.append(context))
    try:
        result = loop.run_until_complete(main(world) if callable(main) else main)
        left = _end(world)
    except BaseException:
        _end(world)
        raise
    finally:
        loop.close()
    if left:
        raise Leak(f"tasks are left behind: {', '.join(left)}")
    for context in world.errors:
        raise Leak(context.get("message", "a callback failed")) from context.get("exception")
    return result


def _end(world: World) -> list[str]:
    """Close the network, end the tasks that are left, and return their names."""
    world.network.close()
    left = asyncio.all_tasks(world.loop)
    for task in left:
        task.cancel()
    if left:
        with contextlib.suppress(Exception):
            world.loop.run_until_complete(asyncio.wait(left))
    world.loop.run_until_complete(world.loop.shutdown_asyncgens())
    return sorted(f"{task.get_name()} {task.get_coro()}" for task in left)
