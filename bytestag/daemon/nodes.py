"""Nodes as commands run them: one that keeps its state, one that only asks (composition)."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bytestag import basedir
from bytestag.client import Client, ClientOptions
from bytestag.config import GIB
from bytestag.crypto.identity import Address, Identity
from bytestag.daemon.keyfiles import (
    CLIENT_NAME,
    NODE_NAME,
    Note,
    load_identity,
    no_note,
    own_identity,
)
from bytestag.daemon.locking import locked
from bytestag.daemon.settings import ANY_HOST, NodeSettings, client_host, network_config
from bytestag.dht.network import resolve
from bytestag.errors import BytestagError, StorageError, Unreachable, UsageError
from bytestag.events.runtime import Runtime
from bytestag.tables.stores import memory_stores
from bytestag.uri import Link

_logger = logging.getLogger(__name__)

CACHE_BYTES_MAX = 10 * GIB
CACHE_SHARE = 0.1


def default_cache_bytes(directory: Path) -> int:
    """Return what is given to others unless told: 10 % of the free disk, at most 10 GiB."""
    here = directory.absolute()
    while not here.exists():
        here = here.parent
    return min(int(shutil.disk_usage(here).free * CACHE_SHARE), CACHE_BYTES_MAX)


@asynccontextmanager
async def open_node(
    settings: NodeSettings, runtime: Runtime, *, is_donor: bool, note: Note = no_note
) -> AsyncIterator[Client]:
    """Run a node that keeps its state; it has not joined yet.

    Raises StateInUse, AddressInUse, StorageError, NotPermitted, UsageError.
    """
    host = settings.host or ANY_HOST
    settings_config = network_config(settings.network, host)
    state = settings.state
    with locked(state):
        identity = await runtime.offload(
            _node_identity, settings, settings_config.id_pow_bits, note
        )
        cache, cache_bytes = _cache(settings, is_donor=is_donor)
        node_config = settings_config.replace(cache_bytes=cache_bytes, limits=settings.limits)
        address = await resolve(host, settings.port)
        options = ClientOptions(
            address=address,
            hint_host=address[0] if settings.hint_host else "",
            known_nodes=await resolve_all(settings.known_nodes),
            is_donor=is_donor,
            has_hints=settings.has_hints,
            copies=settings.copies,
            keep_seconds=settings.keep_seconds,
        )
        from bytestag.tables.opening import open_stores  # SQL is for nodes that stay

        stores = await runtime.offload(
            open_stores,
            state,
            cache,
            cache_bytes,
            identity.node_id,
            runtime.wall,
            serves_store=is_donor and settings.serves_store,
        )
        async with Client(identity, stores, options, node_config, runtime) as client:
            yield client


def _node_identity(settings: NodeSettings, pow_bits: int, note: Note) -> Identity:
    if settings.identity is not None:
        return load_identity(settings.identity.expanduser(), pow_bits, note)
    return own_identity(settings.state, NODE_NAME, pow_bits, note)


def _cache(settings: NodeSettings, *, is_donor: bool) -> tuple[str | Path, int]:
    if not is_donor:
        return settings.state / "share-cache", 0
    if "://" in settings.cache:
        if not settings.cache.startswith("postgresql"):
            raise UsageError(
                f"a cache is no {settings.cache.partition(':')[0]} URL",
                hint="give a directory, or postgresql://…",
            )
        return settings.cache, CACHE_BYTES_MAX if settings.cache_bytes is None else (
            settings.cache_bytes
        )
    directory, size = cache_directory(settings), settings.cache_bytes
    return directory, default_cache_bytes(directory) if size is None else size


def cache_directory(settings: NodeSettings) -> Path:
    """Return where values for others are kept, unless that is a database server."""
    if settings.cache:
        return Path(os.path.expanduser(settings.cache))
    if settings.state_directory is not None:
        return settings.state / "cache"
    return basedir.cache_dir()


@asynccontextmanager
async def open_client(
    settings: NodeSettings, link: Link, runtime: Runtime, note: Note = no_note
) -> AsyncIterator[Client]:
    """Run a node that only asks: nothing is kept but its key, many run at a time."""
    known = await resolve_all(settings.known_nodes)
    hints = list(link.hints) if settings.has_hints else []
    host = settings.host or client_host([*known, *hints])
    client_config = network_config(settings.network, host, link).replace(
        cache_bytes=0, limits=settings.limits
    )
    identity = await runtime.offload(_client_identity, settings, client_config.id_pow_bits, note)
    stores = memory_stores(0, identity.node_id, runtime.wall)
    options = ClientOptions(
        address=await resolve(host, settings.port),
        known_nodes=known,
        is_client=True,
        has_hints=settings.has_hints,
    )
    async with Client(identity, stores, options, client_config, runtime) as client:
        yield client


def _client_identity(settings: NodeSettings, pow_bits: int, note: Note) -> Identity:
    if settings.identity is not None:
        return load_identity(settings.identity.expanduser(), pow_bits, note)
    try:
        return own_identity(settings.state, CLIENT_NAME, pow_bits, note)
    except StorageError as error:
        _logger.info("the client's key is not kept: %s", error)
        return Identity.generate(os.urandom, pow_bits)


async def resolve_all(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return numeric addresses; names that cannot be resolved are logged and left out."""
    found = []
    for host, port in addresses:
        try:
            found.append(await resolve(host, port))
        except BytestagError as error:
            _logger.warning("! %s", error)
    return tuple(found)


async def join_for(client: Client, link: Link) -> None:
    """Meet the known nodes; where the link names somebody, it is no error if none answers."""
    try:
        await client.join()
    except Unreachable:
        if not link.hints or not client.options.has_hints:
            raise
