"""The headless node: joined, sharing, its control door open, until it is told to stop
(composition).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from bytestag import basedir
from bytestag.client import Client
from bytestag.daemon.keyfiles import Note
from bytestag.daemon.memory import spare_what_exists
from bytestag.daemon.nodes import open_node
from bytestag.daemon.notify import READY, STOPPING, notify
from bytestag.daemon.settings import NodeSettings, default_route_host
from bytestag.errors import Unreachable
from bytestag.events.runtime import Runtime
from bytestag.gateway.control import ControlDoor
from bytestag.gateway.place import door_place
from bytestag.gateway.shares import Shares
from bytestag.gateway.sharing import ShareOrder
from bytestag.store.content import ContentStore

_logger = logging.getLogger(__name__)


async def serve(
    settings: NodeSettings,
    runtime: Runtime,
    wait_stopped: Callable[[], Awaitable[object]],
    *,
    share_paths: list[Path],
    has_initial_scan: bool,
    on_up: Callable[[dict[str, Any]], object],
    note: Note,
    warn: Note,
) -> None:
    """Run a node until ``wait_stopped`` returns; ``on_up`` gets its status when it is there."""
    order = default_order(settings)
    async with (
        open_node(settings, runtime, is_donor=True, note=note) as client,
        asyncio.TaskGroup() as group,
    ):
        shares = Shares(client, group, order)
        failed = await shares.restore(share_paths, is_hashed=has_initial_scan)
        for path, reason in failed:
            warn(f"{path} is not shared: {reason}")
        async with ControlDoor(client, shares, order, door_place(settings.state_directory)):
            await join(client, warn)
            client.sharing.watch()
            if settings.serves_store:
                store = ContentStore.of_user(settings.store_directory)
                objects = basedir.ensure(store.directory / "objects")
                await client.sharing.serve_store(objects, partial(linked_files, store))
            spare_what_exists()
            on_up(client.status())
            notify(READY)
            await wait_stopped()
            notify(STOPPING)
        shares.close()


def linked_files(store: ContentStore) -> list[Path]:
    """Return the files that a content store links to, as they are now."""
    try:
        return [content.path for content in store.links()]
    finally:
        store.close()


def default_order(settings: NodeSettings) -> ShareOrder:
    """Return how a node publishes what it shares."""
    return ShareOrder(
        Path(),
        settings.copies,
        settings.keep_seconds,
        settings.has_hints,
        settings.hint_host or default_route_host(),
    )


async def join(client: Client, warn: Note) -> int:
    """Meet the network; without anybody to meet, say so and stay. Return the contacts."""
    try:
        contacts = await client.join()
    except Unreachable as error:
        warn(f"{error.message}; it is tried again")
        return 0
    if not contacts:
        _logger.info("no peers are known yet")
    return contacts
