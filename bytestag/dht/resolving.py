"""Resolver: what a link names, from its description down to its parts (shell)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from bytestag.config import MANIFEST_INLINE_BYTES_MAX, PART_BYTES
from bytestag.dht.fetching import Fetcher, Take, TakeMany, Wanted
from bytestag.errors import (
    BytestagError,
    Corrupt,
    FormatError,
    LocalError,
    NotFound,
    Unreachable,
)
from bytestag.events.runtime import Runtime
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import ENTRY_BYTES, PART_BYTES_MIN, PartEntry
from bytestag.tables.base import KVPTable
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
    is_claimed: bool = False
    """Anybody may have written ``info``: the file's own SHA-1 must be compared at the end."""
    others: tuple[bytes, ...] = ()
    """BLAKE3 of further descriptions under the key, for when this one fails."""


class Resolver:
    """Finds descriptions and checks them against what named them.

    ``own`` are the tables of this user's own files: what they describe was hashed here, so nobody
    need be asked, and no forged description hides it.
    """

    def __init__(self, fetcher: Fetcher, runtime: Runtime, own: Sequence[KVPTable] = ()) -> None:
        self.fetcher = fetcher
        self._runtime = runtime
        self._own = own

    async def resolve(self, link: Link) -> Target:
        """Find out what a link names.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt: see :class:`Fetcher`.
            FormatError: the description lies.
        """
        if link.scheme == "bstagih":
            return Target(info=await self.info(Wanted(link.key, index=link.key)))
        if link.kind == "d" or link.path:
            return await self._inside(await self._manifest(link), link.path)
        if link.kind == "f" and link.b3:
            return Target(info=await self.info(Wanted(link.key, blake3=link.b3), link.key))
        return await self.resolve_bare(link.key)

    # --- Descriptions ----------------------------------------------------------------------------

    async def resolve_bare(self, key: KeyBytes) -> Target:
        """A key alone: the value itself, or a description that names it, whichever is held."""
        if self._own and (here := await self._runtime.offload(self._described_here, key)):
            return await self._first_described(key, here)
        try:
            return Target(value=await self.fetcher.fetch(Wanted(key, index=key)))
        except (LocalError, Unreachable):
            raise
        except BytestagError as error:
            sources = await self.fetcher.look_up(key)
            named = Counter(
                row.blake3 for _, held in sources.holders for row in held if row.index != key
            )
            digests = [digest for digest, _ in named.most_common(INFOS_TRIED_MAX)]
            if digests:
                return await self._first_described(key, digests)
            if not (isinstance(error, NotFound) and self.fetcher.sources.servers):
                raise
        # Whoever serves the file in place is in no look-up; what he says of it may be asked.
        return Target(info=await self.info(Wanted(key), key), is_claimed=True)

    def _described_here(self, key: KeyBytes) -> list[bytes]:
        """Return the BLAKE3 of each description of a file of our own."""
        rows = (row for table in self._own for row in table.records_by_key(key))
        return [row.blake3 for row in rows if row.index != key]

    async def following(self, target: Target) -> Target | None:
        """The next description of a file whose last one led to nothing."""
        if target.info is None or not target.others:
            return None
        return await self._first_described(target.info.hash, target.others)

    async def _first_described(self, key: KeyBytes, digests: Sequence[bytes]) -> Target:
        """Return the first description that can be had and is one of this file."""
        errors: list[BytestagError] = []
        for number, digest in enumerate(digests, 1):
            try:
                info = await self.info(Wanted(key, blake3=digest), key)
            except LocalError:
                raise
            except BytestagError as error:
                errors.append(error)
            else:
                return Target(info=info, is_claimed=True, others=tuple(digests[number:]))
        if all(isinstance(error, FormatError) for error in errors):
            raise Corrupt("no description under this key fits it") from errors[0]
        raise next(error for error in errors if not isinstance(error, FormatError))

    async def info(self, wanted: Wanted, file_sha1: KeyBytes | None = None) -> FileInfo:
        info = FileInfo.from_bytes(await self.fetcher.fetch(wanted))
        if file_sha1 is not None and info.hash != file_sha1:
            raise FormatError("the description is that of another file")
        if info.size is None:
            raise FormatError("the description does not say how large the file is")
        return info

    # --- Directories -----------------------------------------------------------------------------

    async def _manifest(self, link: Link) -> DirectoryManifest:
        if link.ib3:
            packed = await self._whole(
                await self.info(Wanted(link.key, blake3=link.ib3), link.key), MANIFEST_BYTES_MAX
            )
        elif link.b3:
            packed = await self.fetcher.fetch(
                Wanted(link.key, link.key, link.b3, MANIFEST_INLINE_BYTES_MAX)
            )
        else:
            packed = await self._bytes(await self.resolve_bare(link.key), MANIFEST_BYTES_MAX)
        fits = blake3(packed) == link.b3 if link.b3 else sha1(packed) == link.key
        if not fits:
            raise Corrupt("the manifest is not the one that the link names")
        return await self._runtime.offload(DirectoryManifest.from_bytes, packed)

    async def _inside(self, manifest: DirectoryManifest, path: Sequence[str]) -> Target:
        """What lies at a path of a directory."""
        try:
            found = manifest.at(path)
        except KeyError:
            raise NotFound(f"{'/'.join(path)!r} is not in the directory") from None
        if isinstance(found, DirectoryManifest):
            return Target(manifest=found)
        return await self.entry(found)

    async def entry(self, entry: FileEntry) -> Target:
        """What an entry of a manifest names; it is compared with what the manifest says."""
        if entry.size <= PART_BYTES:
            return Target(value=await self.small_file(entry))
        if entry.info_b3:
            target = Target(
                info=await self.info(Wanted(entry.key, blake3=entry.info_b3), entry.key)
            )
        else:
            target = await self.resolve_bare(entry.key)
        _check_agreement(entry, target)
        return target

    async def small_file(self, entry: FileEntry) -> bytes:
        """Return a file of at most one part of ours: a value, or what others cut it into."""
        wanted = Wanted.content(entry.sha1, entry.b3, entry.size)
        if not entry.size:
            value = b""
        else:
            try:
                value = await self.fetcher.fetch(wanted)
            except NotFound as error:
                value = await self._pieced(entry, error)
        if len(value) != entry.size or not wanted.is_satisfied_by(value):
            raise FormatError("the manifest lies about a file")
        return value

    async def _pieced(self, entry: FileEntry, error: NotFound) -> bytes:
        if not entry.info_b3 or entry.size <= PART_BYTES_MIN:
            raise error
        try:
            info = await self.info(Wanted(entry.key, blake3=entry.info_b3), entry.key)
        except NotFound:
            raise error from None
        if info.part_count < 2:
            raise error
        _check_agreement(entry, Target(info=info))
        return await self._whole(info, PART_BYTES)

    # --- Parts -----------------------------------------------------------------------------------

    async def _bytes(self, target: Target, bytes_max: int) -> bytes:
        """Fetch what a key alone named into memory, from the first description that fits."""
        while target.value is None:
            assert target.info is not None
            try:
                packed = await self._whole(target.info, bytes_max)
                if sha1(packed) == target.info.hash:
                    return packed
                raise Corrupt("all parts fit, but the whole does not")
            except LocalError:
                raise
            except BytestagError:
                following = await self.following(target)
                if following is None:
                    raise
                target = following
        return target.value

    async def _whole(self, info: FileInfo, bytes_max: int) -> bytes:
        """Fetch a file into memory; only manifests and small files."""
        assert info.size is not None
        if info.size > bytes_max:
            raise FormatError("it is larger than any such file may be")
        buffer = bytearray()  # grows with what was verified, not with what was claimed
        async for part in self.parts(info):
            buffer += await self.part(part)
        return bytes(buffer)

    async def parts(self, info: FileInfo) -> AsyncIterator[PartEntry]:
        """Yield the parts of a description, fetching list values on the way."""
        for part in info.parts:
            yield part
        for number, entry in enumerate(info.lists):
            size = entry.length * ENTRY_BYTES
            value = await self.fetcher.fetch(Wanted.content(entry.sha1, entry.blake3, size))
            for part in info.list_parts(number, value):
                yield part

    async def part(self, part: PartEntry, take: Take | None = None) -> bytes:
        """Return a part of a description; for ``take`` see :meth:`Fetcher.fetch`."""
        value = await self.fetcher.fetch(Wanted.content(part.sha1, part.blake3, part.size), take)
        if len(value) != part.size:
            raise FormatError("the description lies about the size of a part")
        return value

    async def parts_at_once(self, parts: Sequence[PartEntry], take: TakeMany) -> set[int]:
        """Fetch several parts at one go; see :meth:`Fetcher.fetch_many`."""
        wanted = [Wanted.content(part.sha1, part.blake3, part.size) for part in parts]
        return await self.fetcher.fetch_many(wanted, take)


def _check_agreement(entry: FileEntry, target: Target) -> None:
    """Raise FormatError unless manifest and description say the same of a file."""
    if target.info is None:
        value = target.value or b""
        if len(value) == entry.size and (not entry.b3 or blake3(value) == entry.b3):
            return
    elif target.info.size == entry.size and (not entry.b3 or target.info.blake3 == entry.b3):
        return
    raise FormatError("manifest and description disagree")
