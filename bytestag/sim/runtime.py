"""virtual_runtime: the clocks and the chance of a virtual world (pure but for its loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

from bytestag.events.runtime import Remembered, Runtime

P = ParamSpec("P")
R = TypeVar("R")

REMEMBERED_MAX = 1_000_000
EPOCH_SECONDS = 1_800_000_000
"""What the wall clock shows at loop time 0: 15 January 2027, 08:00 UTC, hour 500,000."""


def virtual_runtime(
    loop: asyncio.AbstractEventLoop, seed: object = 0, remembered: Remembered | None = None
) -> Runtime:
    """Return a runtime in which everything follows from the loop's time and the seed.

    ``remembered`` is shared by the nodes of a world, see :class:`Memory`.

    Blocking work runs at once, in the loop, after the others had their turn: as with threads,
    things may have changed when it is done.
    """

    async def offload(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        await asyncio.sleep(0)
        return function(*args, **kwargs)

    return Runtime(
        monotonic=loop.time,
        wall=lambda: EPOCH_SECONDS + loop.time(),
        rng=random.Random(f"{seed} rng"),
        token_bytes=random.Random(f"{seed} token_bytes").randbytes,
        offload=offload,
        offload_memory=offload,
        remembered=remembered or Memory(),
    )


class Memory:
    """Remembers what pure functions returned: that a signature is good, for all nodes at once."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._known: dict[Hashable, Any] = {}
        self._most = most

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, unless it was called with equal arguments before."""
        asked = (function, *args)
        if kwargs or asked not in self._known:
            result = function(*args, **kwargs)
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[asked] = result
            return result
        known: R = self._known[asked]
        return known
