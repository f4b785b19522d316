"""Resolver: what a link names, from its description down to its parts (shell)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from bytestag.config import MANIFEST_INLINE_BYTES_MAX
from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.errors import Corrupt, FormatError, NotFound
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import ENTRY_BYTES, PartEntry
from bytestag.uri import Link

INFOS_TRIED_MAX = 8
MANIFEST_BYTES_MAX = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What a link turned out to name."""

    info: FileInfo | None = None
    manifest: DirectoryManifest | None = None
    value: bytes | None = None
    """The whole file, where it is one value."""


class Resolver:
    """Finds descriptions and checks them against what named them."""

    def __init__(self, fetcher: Fetcher, runtime: Runtime) -> None:
        self.fetcher = fetcher
        self._runtime = runtime

    async def resolve(self, link: Link) -> Target:
        """Find out what a link names.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt: see :class:`Fetcher`.
            FormatError: the description lies.
        """
        if link.scheme == "bstagih":
            return Target(info=await self.info(Wanted(link.key, index=link.key)))
        if link.kind == "d":
            return Target(manifest=await self._manifest(link))
        if link.kind == "f" and link.b3:
            return Target(info=await self.info(Wanted(link.key, blake3=link.b3), link.key))
        return await self.resolve_bare(link.key)

    async def resolve_bare(self, key: KeyBytes) -> Target:
        """A key alone: the value itself, or a description that names it, whichever is held."""
        try:
            return Target(value=await self.fetcher.fetch(Wanted(key, index=key)))
        except NotFound as error:
            sources = await self.fetcher.look_up(key)
            infos = {row.blake3 for _, held in sources.holders for row in held}
            for digest in list(infos)[:INFOS_TRIED_MAX]:
                try:
                    return Target(info=await self.info(Wanted(key, blake3=digest), key))
                except FormatError:
                    continue
            if not infos:
                raise
            raise Corrupt("no description under this key fits it") from error

    async def info(self, wanted: Wanted, file_sha1: KeyBytes | None = None) -> FileInfo:
        info = FileInfo.from_bytes(await self.fetcher.fetch(wanted))
        if file_sha1 is not None and info.hash != file_sha1:
            raise FormatError("the description is that of another file")
        if info.size is None:
            raise FormatError("the description does not say how large the file is")
        return info

    async def _manifest(self, link: Link) -> DirectoryManifest:
        if link.ib3:
            info = await self.info(Wanted(link.key, blake3=link.ib3), link.key)
            packed = await self._whole(info)
        else:
            packed = await self.fetcher.fetch(
                Wanted(link.key, link.key, link.b3, MANIFEST_INLINE_BYTES_MAX)
            )
        return await self._runtime.offload(DirectoryManifest.from_bytes, packed)

    async def _whole(self, info: FileInfo) -> bytes:
        """Fetch a file into memory; only manifests."""
        assert info.size is not None
        if info.size > MANIFEST_BYTES_MAX:
            raise FormatError("the manifest is larger than any manifest may be")
        buffer = bytearray(info.size)
        async for part in self.parts(info):
            buffer[part.offset : part.offset + part.size] = await self.part(part)
        return bytes(buffer)

    async def parts(self, info: FileInfo) -> AsyncIterator[PartEntry]:
        """Yield the parts of a description, fetching list values on the way."""
        for part in info.parts:
            yield part
        for number, entry in enumerate(info.lists):
            size = entry.length * ENTRY_BYTES
            value = await self.fetcher.fetch(
                Wanted(KeyBytes(entry.sha1), entry.sha1, entry.blake3, size)
            )
            for part in info.list_parts(number, value):
                yield part

    async def part(self, part: PartEntry) -> bytes:
        value = await self.fetcher.fetch(
            Wanted(KeyBytes(part.sha1), part.sha1, part.blake3, part.size)
        )
        if len(value) != part.size:
            raise FormatError("the description lies about the size of a part")
        return value
