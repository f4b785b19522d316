"""Sharing: what a node serves of its user's files: hashing, links, publishing, watching (shell)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.config import Config
from bytestag.crypto.identity import Address
from bytestag.dht.protocol import Protocol
from bytestag.dht.providing import Announcer, Touched
from bytestag.dht.publishing import Publisher, PublishOutcome
from bytestag.errors import UsageError
from bytestag.events.runtime import Runtime
from bytestag.events.tasks import Parent
from bytestag.tables.base import KVPID, KVPRecord
from bytestag.tables.entries import Due
from bytestag.tables.stores import Stores
from bytestag.uri import Link

if TYPE_CHECKING:  # a reader shares nothing, and need not load SQL
    from bytestag.tables.scanning import Progress, ScanResult
    from bytestag.tables.shared import SharedFilesKVPTable, SharedRoot
    from bytestag.tables.shared_keys import JoinedKeys, SharedKeys
    from bytestag.tables.watching import ShareWatcher

_logger = logging.getLogger(__name__)

HINTS_MAX = 3
RENEWED_PARTS = 40
"""So often in a period the keys of all shares are counted, to renew a part of them."""
REPUBLISHED_AT_ONCE = 512
LOOK_SECONDS = 2.0
LINKED_MAX = 10_000
"""Files served because the content store links to them; each is scanned by itself."""


@dataclass(frozen=True, slots=True)
class _Cycle:
    """How far the announcing of all keys has come."""

    began: float
    done: float
    """The part of the key space that has had its turn, 0 to 1."""
    addresses: list[list[object]] = field(default_factory=list)
    """Where we were."""


class Sharing:
    """The shares of one node.

    ``copies`` and ``keep_seconds`` are what it publishes with by itself; ``hint_host`` goes into
    links instead of the observed address, and without ``has_hints`` links carry none.
    """

    def __init__(
        self,
        stores: Stores,
        protocol: Protocol,
        publisher: Publisher,
        announcer: Announcer,
        config: Config,
        runtime: Runtime,
        parent: Parent,
        *,
        copies: int,
        keep_seconds: int,
        hint_host: str,
        has_hints: bool,
    ) -> None:
        self._stores = stores
        self._protocol = protocol
        self._publisher = publisher
        self._announcer = announcer
        self._config = config
        self._runtime = runtime
        self._parent = parent
        self._copies = copies
        self._keep_seconds = keep_seconds
        self._hint_host = hint_host
        self._has_hints = has_hints
        self._changed: dict[KVPID, None] = {}
        self._touched = Touched()
        for table in (stores.shared, stores.stored):
            if table is not None:
                table.value_changed_observer.register(self._touch)
        self._watcher: ShareWatcher | None = None
        self._watching: asyncio.Task[None] | None = None
        self._store_watcher: ShareWatcher | None = None
        self._watching_store: asyncio.Task[None] | None = None
        self._store_objects = Path()
        self._linked: Callable[[], Iterable[Path]] = tuple

    @property
    def table(self) -> SharedFilesKVPTable:
        """The table of the user's files."""
        assert self._stores.shared is not None, "this node keeps no state, so it shares nothing"
        return self._stores.shared

    async def add(
        self, path: Path, progress: Progress | None = None
    ) -> tuple[SharedRoot, ScanResult]:
        """Share a file or directory in place: hash what is new, return what it is.

        Raises:
            UsageError: there is no such path.
            StorageError: nothing of it could be read.
        """
        table = self.table
        await self._runtime.offload(table.add_path, path)
        result = await self._runtime.offload(table.scan, progress, None, path)
        root = await self._runtime.offload(table.root, path)
        return root, result

    async def remove(self, path: Path) -> bool:
        """Share a path no longer; return whether it was shared."""
        was_shared = await self._runtime.offload(self.table.remove_path, path)
        if was_shared and self._watcher is not None:
            self._watcher.shares_changed()
        return was_shared

    def link_to(self, root: SharedRoot) -> Link:
        """Return the link of a share."""
        return Link(
            scheme="bytestag",
            digest=root.sha1,
            name=root.path.name,
            kind="d" if root.is_directory else "f",
            b3=root.blake3 if root.is_directory else root.info_blake3,
            ib3=root.info_blake3 if root.is_directory else b"",
            hints=tuple(self.hints()) if self._has_hints else (),
            node_id=self._protocol.identity.node_id if self._has_hints and self.hints() else None,
            network=self._config.network,
        )

    def hints(self) -> list[Address]:
        """Return the addresses that a link may carry: given, observed, or bound."""
        endpoint = self._protocol.endpoint
        if self._hint_host and endpoint is not None:
            return [(self._hint_host, endpoint.address[1])]
        return self._protocol.reachability.addresses[:HINTS_MAX]

    async def publish(
        self,
        path: Path,
        on_progress: Callable[[PublishOutcome], None] = lambda outcome: None,
        *,
        copies: int | None = None,
        keep_seconds: int | None = None,
    ) -> PublishOutcome:
        """Say that we serve a share, and push copies of it to donors.

        ``copies`` and ``keep_seconds`` stand in for what the node was told.
        """
        await self._runtime.offload(self._touch_share, path)
        await self.provide(is_all=False)
        records = self.table.share_records(path)
        keep_seconds = self._keep_seconds if keep_seconds is None else keep_seconds
        outcome = await self._publisher.publish(
            records,
            copies=copies or self._copies,
            keep_seconds=keep_seconds,
            on_progress=on_progress,
        )
        await self._spread_root(path, keep_seconds)
        due = self._runtime.wall() + self._config.republish_seconds
        again = ((r.kvpid, r.blake3, due) for r in self.table.share_records(path))
        await self._runtime.offload(lambda: self._stores.publish_due.put_many(again))
        return outcome

    async def _spread_root(self, path: Path, keep_seconds: int) -> None:
        """Give what the link names more copies than the rest: small, and needed before all else."""
        root = await self._runtime.offload(self.table.root, path)
        records = await self._runtime.offload(self.table.records_by_key, root.sha1)
        await self._publisher.publish(
            records, copies=self._config.record_copies, keep_seconds=keep_seconds
        )

    async def provide(self, *, is_all: bool = True) -> None:
        """Tell the nodes near the keys of all our shares that we serve them.

        Unless ``is_all``, only where keys came or went, if all have been told where we are.
        """
        began, cycle = self._runtime.wall(), self._cycle()
        if cycle is not None and not self._protocol.is_reachable:
            return  # or where we are is not known yet
        is_all = is_all or cycle is None or cycle.addresses != self._addresses()
        touched, self._touched = self._touched, Touched()
        if not is_all and not touched:
            return
        if not await self._announce(touched=None if is_all else touched):
            self._touched.update(touched)
        elif is_all:
            await self._keep_cycle(_Cycle(began, 1.0, self._addresses()))

    def _touch(self, kvpid: KVPID, _is_added: bool) -> None:
        self._touched.add(kvpid.key)

    def _touch_share(self, path: Path) -> None:
        """Note the keys of a share: the process that hashed it may have ended too soon."""
        for record in self.table.share_records(path):
            self._touched.add(record.kvpid.key)

    async def renew(self) -> None:
        """Renew a part, so that in a period all have had their turn; resumed after a restart."""
        cycle = self._cycle()
        if cycle is None or not self._protocol.is_reachable:  # or where we are is not known yet
            return
        period = self._config.provider_renew_seconds
        elapsed = (self._runtime.wall() - cycle.began) / period
        if cycle.addresses != self._addresses() or not 0.0 <= elapsed < 2.0:
            await self.provide()
            return
        await self.provide(is_all=False)
        if elapsed >= 1.0 and cycle.done >= 1.0:
            cycle, elapsed = _Cycle(cycle.began + period, 0.0), elapsed - 1.0
        until = min(int(elapsed * RENEWED_PARTS) / RENEWED_PARTS, 1.0)
        if until > cycle.done and await self._announce(part=(cycle.done, until)):
            await self._keep_cycle(_Cycle(cycle.began, until, self._addresses()))

    async def _announce(
        self, *, part: tuple[float, float] = (0.0, 1.0), touched: Touched | None = None
    ) -> bool:
        """Announce the keys of a part of the key space; return whether anybody was told."""
        shared = self._stores.shared
        if shared is None or self._protocol.router.is_empty:
            return False
        keys = await self._runtime.offload(self._keys, shared)
        is_renewal = self._cycle() is not None
        done = await self._announcer.announce(
            keys, is_renewal=is_renewal, part=part, touched=touched
        )
        if done.keys:
            _logger.info(
                "provider records: %d renewed, %d accepted, %d refused, %d holders do not answer",
                done.renewed,
                done.accepted,
                done.refused,
                done.unreachable,
            )
        return len(keys) > 0

    def _keys(self, shared: SharedFilesKVPTable) -> SharedKeys | JoinedKeys:
        """Return the keys that we serve. What the store holds is listed for nobody."""
        from bytestag.tables.shared_keys import JoinedKeys, SharedKeys, keys_of_directory

        keys = SharedKeys(shared.database)
        stored = self._stores.stored
        if stored is None:
            return keys
        unsaid = keys_of_directory(stored, self._store_objects)
        return JoinedKeys([keys, SharedKeys(stored.database)], unsaid)

    def _addresses(self) -> list[list[object]]:
        return [list(address) for address in self._protocol.reachability.addresses]

    def _cycle(self) -> _Cycle | None:
        state = self._stores.state
        known = state.json("announced", None) if state is not None else None
        return _Cycle(*known) if known is not None else None

    async def _keep_cycle(self, cycle: _Cycle) -> None:
        state = self._stores.state
        if state is not None:
            kept = [cycle.began, cycle.done, cycle.addresses]
            await self._runtime.offload(state.set_json, "announced", kept)

    async def republish(self) -> None:
        """Publish again what is due; while nobody is known, it stays so."""
        while not self._protocol.router.is_empty:
            due = await self._runtime.offload(
                self._stores.publish_due.take_due, self._runtime.wall(), REPUBLISHED_AT_ONCE
            )
            if not due:
                return
            records = await self._runtime.offload(self._due_records, due)
            await self._publisher.publish(
                records, copies=self._copies, keep_seconds=self._keep_seconds
            )
            again = self._runtime.wall() + self._config.republish_seconds
            await self._runtime.offload(
                self._stores.publish_due.put_many, [(r.kvpid, r.blake3, again) for r in records]
            )

    def _due_records(self, due: Sequence[Due]) -> list[KVPRecord]:
        records = []
        for entry in due:
            try:
                records.append(self.table.record(entry.kvpid, entry.blake3))
            except KeyError:
                self._stores.publish_due.remove(entry.kvpid, entry.blake3)
        return records

    def watch(self) -> None:
        """Rescan the shares whenever they change, and publish what is new."""
        if self._watcher is None:
            self.table.value_changed_observer.register(self._note_change)
            self._watcher = self._new_watcher(self.table, self._publish_changes)
            self._watching = self._parent.create_task(self._watcher.run())
        else:
            self._watcher.shares_changed()

    def _new_watcher(
        self, table: SharedFilesKVPTable, on_change: Callable[[ScanResult], Awaitable[object]]
    ) -> ShareWatcher:
        from bytestag.tables.watching import ShareWatcher

        return ShareWatcher(table, self._runtime, on_change)

    async def serve_store(self, directory: Path, linked: Callable[[], Iterable[Path]]) -> None:
        """Serve the objects of the content store in a directory, and files that it links to.

        No copies are pushed. ``linked`` is called whenever somebody asks to look again.
        """
        stored = self._stores.stored
        if stored is None or self._store_watcher is not None:
            return
        self._store_objects, self._linked = directory, linked
        await self._runtime.offload(self._follow_links, stored)
        self._store_watcher = self._new_watcher(stored, self._provide_stored)
        self._watching_store = self._parent.create_task(self._store_watcher.run())

    async def look_into_store(self) -> bool:
        """Look for what came into the store; return whether it is served already.

        Much takes longer to hash than anybody should wait: it is served when that is done.
        """
        stored, watcher = self._stores.stored, self._store_watcher
        if stored is None or watcher is None:
            return False
        if await self._runtime.offload(self._follow_links, stored):
            watcher.shares_changed()
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await watcher.scan_now()
        except TimeoutError:
            return False
        return True

    def _follow_links(self, stored: SharedFilesKVPTable) -> bool:
        """Serve the store's objects and the files that it links to now, and nothing else.

        The store may have been another when the table was written. Returns whether files changed.
        """
        known = set(stored.shared_directories)
        linked = list(itertools.islice(self._linked(), LINKED_MAX + 1))
        if len(linked) > LINKED_MAX:
            _logger.warning("! the store links to more files than are served: %d", LINKED_MAX)
        served = {path.absolute() for path in (*linked[:LINKED_MAX], self._store_objects)}
        for path in known - served:
            stored.remove_path(path)
        for path in served - known:
            with contextlib.suppress(UsageError):  # it went this moment
                stored.add_path(path)
        return set(stored.shared_directories) != known

    async def _provide_stored(self, result: ScanResult) -> None:
        stored, watcher = self._stores.stored, self._store_watcher
        assert stored is not None
        if watcher is not None and await self._runtime.offload(self._follow_links, stored):
            watcher.shares_changed()  # files were linked to, and nobody told us
        if result.hashed and not self._protocol.router.is_empty:
            await self.provide(is_all=False)

    def close(self) -> None:
        """Watch no more; idempotent."""
        for watching in (self._watching, self._watching_store):
            if watching is not None:
                watching.cancel()

    def _note_change(self, kvpid: KVPID, is_added: bool) -> None:
        if is_added:
            self._changed[kvpid] = None
        else:
            self._changed.pop(kvpid, None)

    async def _publish_changes(self, result: ScanResult) -> None:
        changed, self._changed = self._changed, {}
        now = self._runtime.wall()
        due = [
            (kvpid, record.blake3, now)
            for kvpid in changed
            for record in await self._runtime.offload(self.table.records_by_key, kvpid.key)
            if record.index == kvpid.index
        ]
        await self._runtime.offload(self._stores.publish_due.put_many, due)
        if self._protocol.router.is_empty:
            return
        if changed or self._cycle() is None:
            await self.provide(is_all=False)
        else:  # a node that comes back is in time for its records
            await self.renew()
        if changed:
            await self.republish()
