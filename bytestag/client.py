"""Client: builds one node from its parts and owns them (composition)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bytestag.config import Config
from bytestag.crypto.identity import COMPARES, DONOR, Address, Identity
from bytestag.dht import lifetimes
from bytestag.dht.caching import PathCache
from bytestag.dht.claims import Claims
from bytestag.dht.comparing import CompareHandler
from bytestag.dht.downloading import Downloader, FetchProgress
from bytestag.dht.fetching import NO_HOLDER_HINT, NO_PEER_HINT, Fetcher
from bytestag.dht.holdings import TableHoldings
from bytestag.dht.network import DHTNetwork, Sources
from bytestag.dht.offers import OfferHandler
from bytestag.dht.protocol import Protocol
from bytestag.dht.providing import Announcer
from bytestag.dht.publishing import Publisher
from bytestag.dht.putting import Putter
from bytestag.dht.replication import Replicator
from bytestag.dht.resolving import Resolver
from bytestag.dht.serving import GIVES, Serving
from bytestag.dht.upkeep import Upkeep
from bytestag.errors import BytestagError, NotFound, Unreachable
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.network.demux import Demux
from bytestag.network.endpoint import Endpoint, OpenEndpoint, open_endpoint
from bytestag.network.links import Link as SessionLink
from bytestag.network.links import Request
from bytestag.network.sessions import Sessions
from bytestag.network.tokens import TokenMint
from bytestag.sharing import Sharing
from bytestag.tables.base import KVPTable
from bytestag.tables.entries import KnownContact
from bytestag.tables.sequence import Sequence
from bytestag.tables.stores import Stores
from bytestag.uri import Link

_logger = logging.getLogger(__name__)

CONTROL_SLOT = 64
CONTROL_WAITING = 512
REPAIR_SLOT = 8
SAVED_CONTACTS_MAX = 500
PLACEMENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What one node is told."""

    address: Address = ("127.0.0.1", 0)
    known_nodes: tuple[Address, ...] = ()
    is_donor: bool = False
    """Accepts offers into its cache."""
    is_client: bool = False
    """Asks only; stands in nobody's table."""
    hint_host: str = ""
    """Host to put into links, if not the observed one."""
    has_hints: bool = True
    copies: int = 8
    keep_seconds: int = 0
    open_endpoint: OpenEndpoint = field(default=open_endpoint)


class Client:
    """One node. Use it as ``async with``; :meth:`stop` from elsewhere ends it."""

    def __init__(
        self,
        identity: Identity,
        stores: Stores,
        options: ClientOptions,
        config: Config,
        runtime: Runtime,
    ) -> None:
        self.identity = identity
        self.stores = stores
        self.options = options
        self.config = config
        self.runtime = runtime
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []
        self._slots: list[FnTaskSlot] = []
        self._seq = Sequence(stores.state, lambda: self.runtime.wall())
        self._endpoint: Endpoint | None = None
        self._placed: tuple[float, lifetimes.Placement] | None = None

    # --- Parts (2012 names) ----------------------------------------------------------------------

    @property
    def cache_table(self) -> Any:
        """The table of values held for others."""
        return self.stores.cache

    @property
    def shared_files_table(self) -> Any:
        """The table of the user's files."""
        return self.sharing.table

    @property
    def upload_slot(self) -> FnTaskSlot:
        """Values being sent to readers and holders."""
        return self._serving.upload_slot

    @property
    def address(self) -> Address:
        """The bound UDP address."""
        assert self._endpoint is not None
        return self._endpoint.address

    # --- Life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        try:
            self._build()
            await self._bind()
        except BaseException:
            await self._end()
            raise
        self._tasks.append(self._group.create_task(self._upkeep.run()))
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._end()

    async def _end(self) -> None:
        """Leave in order: the network first, then the work, then the tables."""
        for task in self._tasks:
            task.cancel()
        if self._slots:
            self.sharing.close()
        if self._endpoint is not None:
            self.sessions.close()
            self.protocol.close()
            self._endpoint.close()
        for slot in self._slots:
            slot.stop()
        try:
            if self._endpoint is not None:
                await self._save()
        except BytestagError as error:
            _logger.warning("x the contacts are not saved: %s", error)
        finally:
            try:
                await self._group.__aexit__(None, None, None)
            finally:
                self.stores.close()

    def _build(self) -> None:
        options, config, runtime = self.options, self.config, self.runtime
        identity, table, providers = self.identity, self.stores.table, self.stores.providers
        is_donor = options.is_donor and config.cache_bytes > 0
        capabilities = DONOR | COMPARES if is_donor else 0
        mint = TokenMint(runtime.token_bytes(32))
        self._control_slot = FnTaskSlot(CONTROL_SLOT, CONTROL_WAITING, self._group)
        self.download_slot = FnTaskSlot(config.download_slots, config.waiting_slots, self._group)
        offload = runtime.offload if table.may_block else runtime.offload_memory
        self._table_runtime = replace(runtime, offload=offload)
        self._repair_slot = FnTaskSlot(REPAIR_SLOT, 0, self._group)  # who waits seems dead
        self.claims = Claims()
        self._comparing = CompareHandler(self.stores.cache, table, self.claims, self._table_runtime)
        self.protocol = Protocol(
            identity,
            config,
            runtime,
            mint,
            capabilities=capabilities,
            is_client=options.is_client,
            slot=self._control_slot,
            repairs=self._repair_slot,
            holdings=TableHoldings(
                table, providers, self._comparing, config, self._table_runtime, identity.node_id
            ),
        )
        self.sessions = Sessions(identity, config, runtime, mint, self._serve, capabilities | GIVES)
        self.dht_network = DHTNetwork(self.protocol, self.sessions, config, runtime)
        self._build_services(table, capabilities)

    def _build_services(self, table: KVPTable, capabilities: int) -> None:
        """Build what serves others and what publishes ours, on top of the network."""
        options, config, runtime = self.options, self.config, self.runtime
        self.publisher = Publisher(
            self.dht_network, table, config, runtime, self._group, self._seq.next
        )
        self.putter = Putter(self.dht_network, self.publisher.make_offer, runtime, self._group)
        self.announcer = Announcer(self.dht_network, config, runtime, self._group, self._seq.next)
        self.sharing = Sharing(
            self.stores,
            self.protocol,
            self.publisher,
            self.announcer,
            config,
            runtime,
            self._group,
            copies=options.copies,
            keep_seconds=options.keep_seconds,
            hint_host=options.hint_host,
            has_hints=options.has_hints,
        )
        self._build_holding(table, is_donor=bool(capabilities))

    def _build_holding(self, table: KVPTable, *, is_donor: bool) -> None:
        """Build what takes, serves and looks after values of others."""
        config, runtime = self.config, self._table_runtime
        self.replicator = Replicator(
            self.dht_network, self.stores.cache, self.claims, config, runtime
        )
        offers = OfferHandler(
            table,
            config,
            runtime,
            self._group,
            is_donor=is_donor,
            placement=self._placement,
            takes=self.dht_network.takes,
        )
        self._path_cache = PathCache(self.dht_network, runtime, self._group)
        self._serving = Serving(
            table,
            self.stores.providers,
            offers,
            self._comparing,
            self._path_cache,
            config,
            runtime,
            self._group,
        )
        self._slots = [
            self.download_slot,
            self._control_slot,
            self._repair_slot,
            *(o.slot for o in (self._path_cache, self.publisher, self.putter, self.announcer)),
            *self._serving.slots,
            *offers.slots,
        ]
        self._upkeep = Upkeep(
            self.dht_network,
            self.replicator,
            self.stores.providers,
            config,
            runtime,
            rejoin=self.join,
            republish=self.sharing.republish,
            renew=self.sharing.renew,
            save=self._save,
        )

    def _serve(self, link: SessionLink, request: Request) -> None:
        self._serving.handle(link, request)

    async def _bind(self) -> None:
        """Bind the given port, else the one we had, else any; it is kept from then on."""
        state = self.stores.state
        host, port = self.options.address
        demux = Demux(self.protocol, self.sessions)
        remembered = state.json("port", 0) if state is not None and not port else 0
        try:
            endpoint = await self.options.open_endpoint((host, port or remembered), demux)
        except BytestagError:
            if port or not remembered:
                raise
            endpoint = await self.options.open_endpoint((host, 0), demux)
        self._endpoint = endpoint
        if state is not None:
            state.set_json("port", endpoint.address[1])
        self.protocol.attach(endpoint)
        self.sessions.attach(endpoint)

    def _placement(self) -> lifetimes.Placement:
        """Return how we are placed among our contacts, at most a minute old."""
        now = self.runtime.monotonic()
        if self._placed is None or now - self._placed[0] > PLACEMENT_SECONDS:
            contacts = [contact.id for contact in self.protocol.router]
            self._placed = now, lifetimes.Placement(self.identity.node_id, contacts)
        return self._placed[1]

    # --- Network ---------------------------------------------------------------------------------

    async def join(self) -> int:
        """Meet the known nodes and those remembered; return how many contacts there are.

        Raises:
            Unreachable: nobody answered, though somebody was known.
        """
        state = self.stores.state
        remembered = state.contacts(SAVED_CONTACTS_MAX) if state is not None else []
        found = await self.dht_network.join_again(
            self.options.known_nodes, [(contact.host, contact.port) for contact in remembered]
        )
        await self._save()
        return found

    async def _save(self) -> None:
        """Remember contacts for the next start."""
        state, now = self.stores.state, self.runtime.wall()
        if state is None:
            return
        contacts = [
            KnownContact(c.node_id, *c.address, now, c.card.packed if c.card else b"")
            for c in list(self.protocol.router)[:SAVED_CONTACTS_MAX]
        ]
        await self.runtime.offload(state.put_contacts, contacts)

    # --- Fetching --------------------------------------------------------------------------------

    async def fetch(
        self,
        link: Link,
        dest: Path,
        *,
        is_forced: bool = False,
        report: Callable[[FetchProgress], None] = lambda progress: None,
    ) -> FetchProgress:
        """Make the file or directory ``dest`` of what a link names.

        ``report`` is called first when the description has come and is verified.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt, Incomplete: it cannot be had.
            FormatError: its description lies or holds unsafe names.
            Exists, NoSpace, StorageError: it cannot be written.
        """
        resolver = self.resolver(link)
        with closing(resolver.fetcher):
            downloader = Downloader(resolver, self.download_slot, self.runtime)
            target = await resolver.resolve(link)
            report(FetchProgress("found", sources=len(resolver.fetcher.counts.by_source)))
            if target.manifest is not None:
                return await downloader.fetch_directory(
                    target.manifest, dest, is_forced=is_forced, report=report
                )
            return await downloader.fetch_file(target, dest, is_forced=is_forced, report=report)

    def resolver(self, link: Link) -> Resolver:
        """Return what finds out what a link names; its fetcher is to be closed."""
        own = [table for table in (self.stores.shared, self.stores.stored) if table is not None]
        return Resolver(self.fetcher(link), self.runtime, own)

    def fetcher(self, link: Link) -> Fetcher:
        """Return a fetcher that asks whoever is behind the link's addresses, too; to be closed."""
        fetcher = Fetcher(
            self.dht_network,
            self.stores.table,
            self.config,
            self._table_runtime,
            self._group,
            self._path_cache,
        )
        if link.hints and self.options.has_hints:
            fetcher.sources.probe(link.node_id or b"", link.hints, is_hearsay=False)
        return fetcher

    async def find(self, link: Link) -> Sources:
        """Return who holds or provides what a link names; raises NotFound or Unreachable."""
        with closing(self.fetcher(link)) as fetcher:
            if self.protocol.router.is_empty:
                await fetcher.sources.probes_ended()  # whoever is there introduces us
            sources = await self.dht_network.find_value(link.key)
        if not sources.answered:
            raise Unreachable(f"no peer answered (asked {sources.asked})", hint=NO_PEER_HINT)
        if sources.is_empty:
            raise NotFound(f"nobody holds it ({sources.answered} answered)", hint=NO_HOLDER_HINT)
        return sources

    # --- Status ----------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Return what a person asks of a node."""
        shared = self.stores.shared
        parts = (self.protocol, self.sessions, self._endpoint)
        dropped = sum((part.counters for part in parts if part is not None), Counter[str]())
        return {
            "node_id": self.identity.node_id.base16,
            "network": self.config.network,
            "address": list(self.address),
            "reachable_at": [list(a) for a in self.protocol.reachability.addresses],
            "network_nodes": round(self.dht_network.size.nodes),
            "contacts": len(self.protocol.router),
            "sessions": len(self.sessions),
            "is_donor": bool(self.protocol.capabilities & DONOR),
            "cache_bytes": self.stores.cache.used_bytes,
            "cache_bytes_max": self.stores.cache.max_size,
            "values_held": len(self.stores.cache),
            "shares": [str(path) for path in shared.shared_directories] if shared else [],
            "files_shared": shared.num_files if shared else 0,
            "bytes_uploaded": self._serving.counters["bytes uploaded"],
            "dropped": dict(dropped),
        }
