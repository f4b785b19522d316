"""Upkeep: what a node does by itself, in time: refresh, expire, repair, publish again (shell)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
"""Between two looks at what is due: an idle node wakes up so often, and not once for each chore."""
FEW_SECONDS = 20.0
"""The same while fewer than K others are known: that many are looked for."""
GREETED_BY_FEW = 2
JITTER = 0.2
Work = Callable[[], Awaitable[object]]


@dataclass(slots=True, eq=False)
class _Chore:
    """Something to be done again and again, never twice at one time."""

    work: Work
    seconds: Callable[[], float]
    """How long after its end it is due again."""
    is_needed: Callable[[], bool] = lambda: True
    due: float = 0.0
    is_running: bool = False


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
        rejoin: Work,
        republish: Work,
        renew: Work,
        save: Work,
    ) -> None:
        self._network = network
        self._providers = providers
        self._runtime = runtime
        self._rejoin = rejoin
        self._knows_few = True
        check = CHECK_SECONDS
        self._chores = [
            _Chore(network.refresh, lambda: 5 * check, lambda: bool(network.lonely_buckets())),
            _Chore(self._stay_connected, lambda: FEW_SECONDS, lambda: self._knows_few),
            _Chore(network.greet_absentee, self._greeting_seconds),
            _Chore(replicator.expire, lambda: 10 * check),
            _Chore(self._expire_providers, lambda: 10 * check),
            _Chore(replicator.repair, lambda: config.repair_seconds),
            _Chore(republish, lambda: 5 * check),
            _Chore(renew, lambda: 10 * check),
            _Chore(save, lambda: 60 * check),
        ]

    async def run(self) -> None:
        """Do everything in its time; nodes that were started together drift apart."""
        for chore in self._chores:
            self._put_off(chore)
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self._about(self._tick_seconds))
                self._knows_few = not self._network.protocol.router.knows(K)
                now = self._runtime.monotonic()
                for chore in self._chores:
                    if chore.due > now or chore.is_running:
                        continue
                    if self._is_needed(chore):
                        chore.is_running = True
                        group.create_task(self._do(chore))
                    else:
                        self._put_off(chore)

    def _is_needed(self, chore: _Chore) -> bool:
        try:
            return chore.is_needed()
        except Exception:  # as below
            _logger.exception("! upkeep failed")
            return False

    @property
    def _tick_seconds(self) -> float:
        return FEW_SECONDS if self._knows_few else CHECK_SECONDS

    def _put_off(self, chore: _Chore) -> None:
        """Let a chore wait its time, less half of what it may have to wait for the next look."""
        seconds = self._about(chore.seconds()) - self._tick_seconds / 2
        chore.due = self._runtime.monotonic() + seconds

    def _about(self, seconds: float) -> float:
        return seconds * (1 + JITTER * (self._runtime.rng.random() - 0.5))

    def _greeting_seconds(self) -> float:
        """Return how often to ask one of those who went: the less, the more share this work."""
        return 2 * CHECK_SECONDS * max(1.0, len(self._network.protocol.router) / K)

    async def _stay_connected(self) -> None:
        """Find others while few are known: a network that was cut in small parts heals by this."""
        if self._network.protocol.router.is_empty:
            await self._rejoin()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(GREETED_BY_FEW):
                group.create_task(self._network.greet_absentee())

    async def _do(self, chore: _Chore) -> None:
        try:
            await chore.work()
        except BytestagError as error:
            _logger.warning("! upkeep: %s", error)
        except Exception:  # a bug in one chore must not end the node
            _logger.exception("! upkeep failed")
        finally:
            self._put_off(chore)
            chore.is_running = False

    async def _expire_providers(self) -> None:
        while await self._runtime.offload(self._providers.expire, self._runtime.wall()):
            pass
