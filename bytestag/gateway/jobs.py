"""What a person asks of a node once: fetch a link, find who holds it (shell)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from bytestag.client import Client
from bytestag.crypto.identity import Address
from bytestag.dht.downloading import FetchProgress
from bytestag.dht.fetching import NO_PEER_HINT
from bytestag.dht.network import Sources
from bytestag.errors import BytestagError, NotFound, Timeout, Unreachable
from bytestag.gateway import events
from bytestag.gateway.events import Emit, Event, Throttle
from bytestag.uri import Link, format_address

_logger = logging.getLogger(__name__)


async def fetch(
    client: Client,
    link: Link,
    dest: Path,
    emit: Emit,
    *,
    is_forced: bool = False,
    first_byte_seconds: float | None = None,
) -> FetchProgress:
    """Fetch a link to ``dest``.

    Raises what :meth:`Client.fetch` does; Timeout or Unreachable if its description has not come
    in time.
    """
    tell = teller(client, emit)
    final: FetchProgress | None = None
    try:
        async with asyncio.timeout(first_byte_seconds) as limit:

            def report(progress: FetchProgress) -> None:
                if progress.phase == "found":  # reported in the loop; others may come from threads
                    limit.reschedule(None)
                tell(progress)

            final = await client.fetch(link, dest, is_forced=is_forced, report=report)
    except TimeoutError as error:
        if isinstance(error, BytestagError):
            raise
        raise too_late(client, first_byte_seconds or 0) from error
    await asyncio.sleep(0)  # what was reported from other threads comes before the result
    return final


def teller(client: Client, emit: Emit) -> Callable[[FetchProgress], None]:
    """Return what tells how far a fetch is, from any thread, now and then."""
    may_emit = Throttle(client.runtime.monotonic)
    loop = asyncio.get_running_loop()

    def tell(progress: FetchProgress) -> None:
        if may_emit():
            loop.call_soon_threadsafe(emit, events.fetch_event(progress))

    return tell


def too_late(client: Client, seconds: float) -> BytestagError:
    """Return the error of a look-up that took longer than it may."""
    contacts = len(client.protocol.router)
    if not contacts:
        return Unreachable(f"no peer answered within {seconds:g} s", hint=NO_PEER_HINT)
    return Timeout(
        f"no verified byte came within {seconds:g} s ({contacts} peers are known)",
        hint="try again, or give it more time with --timeout",
    )


async def find(client: Client, link: Link) -> Event:
    """Say who holds what a link names, this node among them.

    Raises NotFound or Unreachable if nobody does, or nobody answers.
    """
    own = await client.runtime.offload(client.stores.table.records_by_key, link.key)
    try:
        sources = await client.find(link)
    except (NotFound, Unreachable):
        if not own:
            raise
        sources = Sources(link.key)
    found = events.found_object(str(link), sources)
    if own:
        address = format_address(*client.address)
        size = max(record.size for record in own)
        here = {"node_id": client.identity.node_id.base16, "address": address, "size": size}
        found["holders"].insert(0, here)
    return found


async def meet(client: Client, addresses: tuple[Address, ...]) -> None:
    """Get to know the nodes at these addresses, if anybody answers there."""
    if addresses:
        try:
            await client.dht_network.join(addresses)
        except Unreachable as error:
            _logger.warning("! %s", error)
