"""virtual_runtime: the clocks and the chance of a virtual world (pure but for its loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from bytestag.events.runtime import Runtime

P = ParamSpec("P")
R = TypeVar("R")

EPOCH_SECONDS = 1_800_000_000
"""What the wall clock shows at loop time 0: 15 January 2027, 08:00 UTC, hour 500,000."""


def virtual_runtime(loop: asyncio.AbstractEventLoop, seed: object = 0) -> Runtime:
    """Return a runtime in which everything follows from the loop's time and the seed.

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
    )
