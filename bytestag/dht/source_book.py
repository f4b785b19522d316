"""SourceBook: whom one fetch asks, who of them has room, and who has earned mistrust (shell).

Servers serve all that a link names; they are found by probing those who said so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager

from bytestag.crypto.identity import Address
from bytestag.dht.network import DHTNetwork
from bytestag.dht.routing import Contact
from bytestag.dht.source import GETS_NEAR, Source
from bytestag.errors import BytestagError, NotFound, Unreachable
from bytestag.events.runtime import Runtime
from bytestag.events.tasks import Parent, Task
from bytestag.network.early import Early
from bytestag.network.links import Busy, Link

_logger = logging.getLogger(__name__)

OVERTAKE_SECONDS = 0.25
MISTRUST_SECONDS = 30.0


class SourceBook:
    """The sources of one fetch."""

    def __init__(self, network: DHTNetwork, runtime: Runtime, parent: Parent) -> None:
        self._network = network
        self._runtime = runtime
        self._parent = parent
        self._sources: dict[bytes, Source] = {}
        self._servers: dict[bytes, None] = {}
        self._freed = asyncio.Event()
        self._probes: dict[bytes, Task[None]] = {}

    def __iter__(self) -> Iterator[Source]:
        return iter(self._sources.values())

    def source(self, contact: Contact) -> Source:
        """Return what is known of a node."""
        source = self._sources.get(contact.id)
        if source is None:
            source = self._sources[contact.id] = Source(contact)
        return source

    # --- Servers ---------------------------------------------------------------------------------

    @property
    def servers(self) -> int:
        """How many who serve all that the link names have answered."""
        return len(self._servers)

    def add_server(self, contact: Contact) -> None:
        """Learn of a node that serves all that the link names."""
        if contact.id != self._network.protocol.identity.node_id:
            self.source(contact)
            self._servers[contact.id] = None

    def probe(
        self, node_id: bytes, addresses: Sequence[Address], *, is_hearsay: bool = True
    ) -> None:
        """See once, without waiting for it, whether a server answers at one of its addresses."""
        if node_id not in self._probes:
            probe = Task.wrap(self._probe, node_id, addresses, is_hearsay)
            self._probes[node_id] = probe.start(self._parent)

    async def _probe(self, node_id: bytes, addresses: Sequence[Address], is_hearsay: bool) -> None:
        try:
            self.add_server(
                await self._network.reach_provider(node_id, addresses, is_hearsay=is_hearsay)
            )
        except Unreachable as error:
            _logger.debug("- %s", error)
        else:
            self._freed.set()

    async def probes_ended(self) -> None:
        """Wait until every probe has its answer."""
        for probe in list(self._probes.values()):
            await probe

    def close(self) -> None:
        """Stop probing; idempotent."""
        for probe in self._probes.values():
            probe.stop()

    # --- Choosing --------------------------------------------------------------------------------

    @property
    def most(self) -> int:
        """How many values all servers together are asked for at one time.

        Those nearby share what one may be asked for, lest values wait in memory for each other.
        """
        counts = [source.most for source in self._usable()]
        near = sum(count for count in counts if count <= GETS_NEAR)
        return sum(counts) - near + min(near, GETS_NEAR) or GETS_NEAR

    async def server_with_room(
        self, tried: set[bytes], seconds: float | None = OVERTAKE_SECONDS
    ) -> Source | None:
        """Return the least busy server not tried; wait so long while all are at their limit."""
        while any(source.contact.id not in tried for source in self._usable()):
            if (source := self.free_server(tried)) is not None:
                return source
            self._freed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._freed.wait()
            except TimeoutError:
                return None
        return None

    def free_server(self, tried: set[bytes]) -> Source | None:
        """Return the least busy server not tried, if it is not at its limit."""
        left = [source for source in self._usable() if source.contact.id not in tried]
        source = min(left, key=lambda source: source.active, default=None)
        return source if source is not None and source.active < source.most else None

    def by_load(self, contacts: Iterable[Contact], tried: set[bytes]) -> list[Source]:
        """Return sources that are not mistrusted and not tried, the least busy first."""
        trusted = self._trusted(self.source(c) for c in contacts if c.id not in tried)
        return sorted(trusted, key=lambda source: source.active)

    def _usable(self) -> list[Source]:
        return self._trusted(self._sources[id_] for id_ in self._servers)

    def _trusted(self, sources: Iterable[Source]) -> list[Source]:
        now = self._runtime.monotonic()
        return [source for source in sources if source.mistrusted_until <= now]

    # --- Asking ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def asking(
        self, source: Source, values: int = 1, early: Early | None = None
    ) -> AsyncIterator[Link]:
        """Have a session with a source while values are asked for, and learn how long it takes.

        ``early`` goes with the handshake, if there is one. Who fails is not asked again for a
        while, unless he only was busy or had nothing.
        """
        source.active += values
        began = self._runtime.monotonic()
        try:
            link = await self._network.link_to(source.contact, early)
            yield link
        except NotFound:
            raise
        except Busy:
            source.ask_less(began, self._runtime.monotonic())
            raise
        except BytestagError as error:
            self.mistrust(source, error)
            raise
        finally:
            if early is not None:
                early.drop()
            source.active -= values
            self._freed.set()
        source.learn(began, self._runtime.monotonic(), link.session.rtt_seconds, values)

    def mistrust(self, source: Source, fault: BytestagError) -> None:
        """Do not ask a source for a while."""
        source.fault = fault
        source.mistrusted_until = self._runtime.monotonic() + MISTRUST_SECONDS
