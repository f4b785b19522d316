"""What links name, open for reading by ranges: by a node that runs, for its user (shell)."""

from __future__ import annotations

import asyncio
from typing import Any

from bytestag.client import Client
from bytestag.dht.ranges import RemoteFile
from bytestag.errors import BytestagError, UsageError
from bytestag.gateway.jobs import too_late
from bytestag.hashing import sha1
from bytestag.models.directory import DirectoryManifest
from bytestag.recent import Recent
from bytestag.uri import Link

OPEN_MAX = 32

Opened = RemoteFile | DirectoryManifest


class OpenLinks:
    """Links that were resolved; the least recently used are closed when there are many."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._opened: Recent[str, Opened] = Recent(OPEN_MAX)
        self._opening: dict[str, asyncio.Future[Opened]] = {}

    async def open(self, link: Link, seconds: float) -> Opened:
        """Return what a link names: a file or a directory.

        Raises NotFound, Unreachable, Timeout, Corrupt, FormatError.
        """
        name = str(link)
        known = self._opened.get(name)
        if known is not None:
            return known
        pending = self._opening.get(name)
        if pending is not None:
            await asyncio.wait({pending})
            return await self.open(link, seconds) if pending.cancelled() else pending.result()
        pending = self._opening[name] = asyncio.get_running_loop().create_future()
        try:
            opened = await self._resolve(link, seconds)
        except asyncio.CancelledError:
            pending.cancel()  # whoever waits asks anew
            raise
        except BaseException as error:
            pending.set_exception(error)
            pending.exception()  # it is no surprise if nobody else waits
            raise
        finally:
            del self._opening[name]
        pending.set_result(opened)
        _close(self._opened.put(name, opened))
        return opened

    async def file(self, link: Link, seconds: float) -> RemoteFile:
        """Return the file that a link names. Raises UsageError if it is a directory."""
        opened = await self.open(link, seconds)
        if not isinstance(opened, RemoteFile):
            raise UsageError(
                "the link names a directory, not a file", hint="bytestag ls LINK lists it"
            )
        return opened

    async def directory(self, link: Link, seconds: float) -> DirectoryManifest:
        """Return the directory that a link names. Raises UsageError if it is a file."""
        opened = await self.open(link, seconds)
        if not isinstance(opened, DirectoryManifest):
            raise UsageError("the link names a file, not a directory")
        return opened

    def forget(self, link: Link) -> None:
        """Resolve a link anew the next time: what it led to failed."""
        _close(self._opened.pop(str(link)))

    def close(self) -> None:
        """Close all; idempotent."""
        for opened in self._opened.clear():
            _close(opened)

    async def _resolve(self, link: Link, seconds: float) -> Opened:
        resolver = self._client.resolver(link)
        fetcher = resolver.fetcher
        try:
            async with asyncio.timeout(seconds):
                target = await resolver.resolve(link)
        except TimeoutError as error:
            fetcher.close()
            if isinstance(error, BytestagError):
                raise
            raise too_late(self._client, seconds) from None
        except BaseException:
            fetcher.close()
            raise
        if target.manifest is not None:
            fetcher.close()
            return target.manifest
        return RemoteFile(resolver, target)


def _close(opened: Opened | None) -> None:
    if isinstance(opened, RemoteFile):
        opened.close()


def described(opened: Opened) -> dict[str, Any]:
    """Return what is known of a file or directory, as JSON; hashes are hexadecimal."""
    if isinstance(opened, RemoteFile):
        return {
            "type": "file",
            "size": opened.size,
            "sha1": opened.sha1.hex(),
            "blake3": opened.blake3.hex(),
            "is_claimed": opened.is_claimed,
        }
    files = [entry.size for _, entry in opened.entries()]
    return {
        "type": "directory",
        "size": sum(files),
        "files": len(files),
        "sha1": sha1(opened.to_bytes()).hex(),
    }
