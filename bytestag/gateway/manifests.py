"""Fetching and finding all files of a manifest that is at hand (shell)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bytestag.client import Client
from bytestag.dht.downloading import Downloader, FetchProgress
from bytestag.gateway import events
from bytestag.gateway.events import Emit
from bytestag.gateway.jobs import teller
from bytestag.models.directory import DirectoryManifest
from bytestag.uri import Link


async def fetch_manifest(
    client: Client,
    manifest: DirectoryManifest,
    link: Link,
    dest: Path,
    emit: Emit,
    *,
    is_forced: bool = False,
) -> FetchProgress:
    """Make the directory ``dest``; ``link`` has the addresses to try.

    Raises what :meth:`Downloader.fetch_directory` does.
    """
    report = teller(client, emit)
    emit(events.fetch_event(FetchProgress("found", manifest.file_count)))
    resolver = client.resolver(link)
    try:
        downloader = Downloader(resolver, client.download_slot, client.runtime)
        done = await downloader.fetch_directory(manifest, dest, is_forced=is_forced, report=report)
        await asyncio.sleep(0)  # what was reported from other threads comes before the result
        return done
    finally:
        resolver.fetcher.close()
