"""Upkeep: what a node does by itself, in time: refresh, expire, repair, publish again (shell)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bytestag.config import Config, K
from bytestag.dht.network import DHTNetwork
from bytestag.dht.replication import Replicator
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime

if TYPE_CHECKING:
    from bytestag.tables.memory_stores import MemoryProviderTable
    from bytestag.tables.providers import ProviderTable

_logger = logging.getLogger(__name__)

CHECK_SECONDS = 60.0
FEW_SECONDS = 20.0
"""Between two attempts to find others, while fewer than K are known."""
GREETED_BY_FEW = 2
JITTER = 0.2


class Upkeep:
    """Runs the node's periodic work until it is cancelled."""

    def __init__(
        self,
        network: DHTNetwork,
        replicator: Replicator,
        providers: ProviderTable | MemoryProviderTable,
        config: Config,
        runtime: Runtime,
        *,
        rejoin: Callable[[], Awaitable[object]],
        republish: Callable[[], Awaitable[object]],
        renew: Callable[[], Awaitable[object]],
        save: Callable[[], Awaitable[object]],
    ) -> None:
        self._network = network
        self._replicator = replicator
        self._providers = providers
        self._config = config
        self._runtime = runtime
        self._rejoin = rejoin
        self._republish = republish
        self._renew = renew
        self._save = save

    async def run(self) -> None:
        """Do everything in its time."""
        config = self._config
        async with asyncio.TaskGroup() as group:
            for seconds, work in (
                (CHECK_SECONDS, self._network.refresh),
                (10 * CHECK_SECONDS, self._replicator.expire),
                (10 * CHECK_SECONDS, self._expire_providers),
                (config.repair_seconds, self._replicator.repair),
                (5 * CHECK_SECONDS, self._republish),
                (10 * CHECK_SECONDS, self._renew),
                (60 * CHECK_SECONDS, self._save),
            ):
                group.create_task(self._every(seconds, work))
            group.create_task(self._stay_connected())
            group.create_task(self._look_for_absentees())

    async def _every(self, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
        """Await ``work`` again and again; the phases of nodes started together drift apart."""
        while True:
            await self._pause(seconds)
            await self._do(work)

    async def _stay_connected(self) -> None:
        """Find others while few are known: a network that was cut in small parts heals by this."""
        router = self._network.protocol.router
        while True:
            await self._pause(FEW_SECONDS if len(router) < K else CHECK_SECONDS)
            if not len(router):
                await self._do(self._rejoin)
            elif len(router) < K:
                await asyncio.gather(
                    *(self._do(self._network.greet_absentee) for _ in range(GREETED_BY_FEW))
                )

    async def _look_for_absentees(self) -> None:
        """Ask those who went whether they are back: the less often, the more share this work."""
        while True:
            others = len(self._network.protocol.router)
            await self._pause(2 * CHECK_SECONDS * max(1.0, others / K))
            await self._do(self._network.greet_absentee)

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds * (1 + JITTER * (self._runtime.rng.random() - 0.5)))

    async def _do(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except BytestagError as error:
            _logger.warning("! upkeep: %s", error)
        except Exception:  # a bug in one chore must not end the node
            _logger.exception("! upkeep failed")

    async def _expire_providers(self) -> None:
        while await self._runtime.offload(self._providers.expire, self._runtime.wall()):
            pass
