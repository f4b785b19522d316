"""Sharing a path by a node: its link as soon as it is hashed, then copies (shell)."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.client import Client
from bytestag.dht.publishing import PublishOutcome
from bytestag.errors import BytestagError, Incomplete, StorageError, Unreachable
from bytestag.gateway import events
from bytestag.gateway.events import Emit, Event, Throttle
from bytestag.sharing import HINTS_MAX
from bytestag.uri import Link

if TYPE_CHECKING:
    from bytestag.tables.scanning import ScanResult
    from bytestag.tables.shared import SharedRoot

_logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
RETRY_SECONDS_MAX = 900.0
STALLED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ShareOrder:
    """What is asked of a share."""

    path: Path
    copies: int
    keep_seconds: int
    has_hints: bool = True
    default_host: str = ""
    """What a link says where nobody told us our address yet."""


class ShareJob:
    """Hashes one path, says its link, and publishes until all has its copies."""

    def __init__(self, client: Client, order: ShareOrder, emit: Emit) -> None:
        self._client = client
        self._order = order
        self._path = str(order.path)
        self._emit = emit
        self._stop = threading.Event()
        self._best = PublishOutcome()
        self._best_time = 0.0
        self._changed = asyncio.Event()
        self._may_emit = Throttle(client.runtime.monotonic)
        self.link = ""

    @property
    def path(self) -> Path:
        """What is shared."""
        return self._order.path

    def stop(self) -> None:
        """Stop hashing soon."""
        self._stop.set()

    async def hash(self) -> Event:
        """Hash what is new; return the event with the link, which was emitted.

        Raises:
            UsageError: there is no such path.
            StorageError: nothing of it can be read, or it was stopped.
        """
        client, path = self._client, self._order.path
        table, runtime = client.shared_files_table, client.runtime
        loop = asyncio.get_running_loop()

        def progress(_path: str, done: int, total: int) -> None:
            if self._may_emit():
                event = events.hashing_event(self._path, done, total)
                loop.call_soon_threadsafe(self._emit, event)

        await runtime.offload(table.add_path, path)
        try:
            result = await runtime.offload(table.scan, progress, self._stop, path)
        except asyncio.CancelledError:
            self._stop.set()
            raise
        try:
            root = await runtime.offload(table.root, path)
        except KeyError as error:
            raise _unreadable(path, result) from error
        values, size = await runtime.offload(self._measure)
        self.link = str(link_of(client, root, self._order))
        event = events.link_event(self._path, self.link, result, values, size)
        self._emit(event)
        return event

    def _measure(self) -> tuple[int, int]:
        """Return how many values there are and their bytes; note that they are to be published."""
        table, due = self._client.shared_files_table, self._client.stores.publish_due
        records = list(table.share_records(self._order.path))
        later = self._client.runtime.wall() + RETRY_SECONDS_MAX
        due.add_many((record.kvpid, record.blake3, later) for record in records)
        return len(records), sum(record.size for record in records)

    async def publish(self) -> None:
        """Publish until every value has its copies; without enough donors, wait for more."""
        pause = RETRY_SECONDS
        while True:
            outcome = await self._publish_once()
            self._emit_outcome("published", outcome)
            if outcome.copies_min >= self._order.copies or not outcome.rows:
                return
            pause = min(pause * 2, RETRY_SECONDS_MAX)
            await self._wait_for_peers(pause)

    async def follow(self) -> None:
        """Say the new link whenever the path has changed and was hashed again."""
        client, loop = self._client, asyncio.get_running_loop()
        table, changed = client.shared_files_table, asyncio.Event()

        def on_change(*_change: object) -> None:
            loop.call_soon_threadsafe(changed.set)

        table.value_changed_observer.register(on_change)
        try:
            while True:
                await changed.wait()
                await asyncio.sleep(RETRY_SECONDS)  # a change is many values
                changed.clear()
                try:
                    root = await client.runtime.offload(table.root, self._order.path)
                except KeyError:
                    continue
                link = str(link_of(client, root, self._order))
                if link != self.link:
                    self.link = link
                    values, size = await client.runtime.offload(self._measure)
                    self._emit(events.link_event(self._path, link, None, values, size))
        finally:
            table.value_changed_observer.unregister(on_change)

    async def reach(self, copies: int) -> None:
        """Wait until every value has so many copies; the result is emitted.

        Raises:
            Incomplete: none was added for a minute.
        """
        monotonic = self._client.runtime.monotonic
        self._best_time = monotonic()
        while not self._best.rows or self._best.copies_min < copies:
            left = self._best_time + STALLED_SECONDS - monotonic()
            if left <= 0:
                self._emit(events.share_result(self._path, self.link, self._best, False))
                raise self._incomplete(copies)
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        self._emit(events.share_result(self._path, self.link, self._best, True))

    async def _publish_once(self) -> PublishOutcome:
        order, client = self._order, self._client
        if client.protocol.router.is_empty:
            await self._join()

        def on_progress(outcome: PublishOutcome) -> None:
            is_step = outcome.copies_min > self._best.copies_min
            self._note_copies(outcome)
            if is_step or self._may_emit():
                self._emit_outcome("publishing", outcome)

        outcome = await client.sharing.publish(
            order.path, on_progress, copies=order.copies, keep_seconds=order.keep_seconds
        )
        self._note_copies(outcome)
        return outcome

    def _note_copies(self, outcome: PublishOutcome) -> None:
        """Remember the most copies known; wake up who waits for more."""
        if _total(outcome) > _total(self._best) or not self._best.rows:
            self._best = replace(outcome, copies=list(outcome.copies))
            self._best_time = self._client.runtime.monotonic()
            self._changed.set()

    async def _wait_for_peers(self, seconds: float) -> None:
        """Wait, but no longer than until a donor comes that was not there; alone, for anybody."""
        router = self._client.protocol.router
        was_alone = router.is_empty
        known = {contact.id for contact in router if contact.is_donor}
        until = self._client.runtime.monotonic() + seconds
        while router.is_empty or self._client.runtime.monotonic() < until:
            await asyncio.sleep(min(RETRY_SECONDS, seconds))
            donors = {contact.id for contact in router if contact.is_donor}
            if donors - known or (was_alone and not router.is_empty):
                return
            if router.is_empty:
                was_alone = True
                await self._join()

    async def _join(self) -> None:
        try:
            await self._client.join()
        except Unreachable as error:
            _logger.debug("! %s", error)

    def _emit_outcome(self, phase: str, outcome: PublishOutcome) -> Event:
        event = events.publishing_event(phase, self._path, outcome, self._order.keep_seconds)
        self._emit(event)
        return event

    def _incomplete(self, wanted: int) -> Incomplete:
        best = self._best
        counts = ", ".join(
            f"{rows:,} with {copies}" for copies, rows in enumerate(best.copies) if rows
        )
        return Incomplete(
            f"{best.rows_with(wanted):,} of {best.rows:,} values have {wanted} copies "
            f"({counts or 'none'}), and none was added for {STALLED_SECONDS:.0f} s; "
            f"{best.donors} donors are known",
            hint="more donors are needed: each copy lies on another one",
        )


def _total(outcome: PublishOutcome) -> int:
    return sum(copies * rows for copies, rows in enumerate(outcome.copies))


def link_of(client: Client, root: SharedRoot, order: ShareOrder) -> Link:
    """Return the link of a share, with the addresses that the order allows."""
    link = client.sharing.link_to(root)
    if not (order.has_hints and client.options.has_hints):
        return replace(link, hints=(), node_id=None)
    if not link.hints and order.default_host:
        hints = ((order.default_host, client.address[1]),)
        return replace(link, hints=hints[:HINTS_MAX], node_id=client.identity.node_id)
    return link


def _unreadable(path: Path, result: ScanResult) -> BytestagError:
    if not result.is_complete:
        return StorageError("hashing was stopped")
    reason = result.warnings[0][1] if result.warnings else "there is nothing to read"
    return StorageError(f"nothing of {str(path)!r} can be shared: {reason}")
