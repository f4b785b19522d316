"""RemoteFile: a file that a link names, read where it is needed (shell).

A range costs the parts that it touches, and for a file of more than 4,096 parts one list value.
Each part is compared with its description; whether the description is that of the file, only the
whole file tells where the link names no BLAKE3 (:attr:`RemoteFile.is_claimed`).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from bytestag.dht.fetching import Wanted
from bytestag.dht.resolving import Resolver, Target
from bytestag.errors import BytestagError, LocalError
from bytestag.hashing import blake3, sha1
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import ENTRY_BYTES, PartEntry
from bytestag.recent import Recent

PARTS_AT_ONCE = 16
PARTS_KEPT = 16
"""Values kept in memory: who reads on in small steps asks for the same part again."""
LISTS_KEPT = 8


class RemoteFile:
    """What a resolved link names, if it is a file. ``target`` is one of those.

    :meth:`close` ends what its resolver still asks.
    """

    def __init__(self, resolver: Resolver, target: Target) -> None:
        assert target.manifest is None
        self._resolver = resolver
        self._target = target
        self._parts: Recent[int, bytes] = Recent(PARTS_KEPT)
        self._lists: Recent[int, Sequence[PartEntry]] = Recent(LISTS_KEPT)

    def close(self) -> None:
        """Ask nobody any more; idempotent."""
        self._resolver.fetcher.close()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        if self._target.info is None:
            return len(self._target.value or b"")
        assert self._target.info.size is not None
        return self._target.info.size

    @property
    def sha1(self) -> bytes:
        """SHA-1 of the file, as far as its description tells the truth."""
        if self._target.info is None:
            return sha1(self._target.value or b"")
        return bytes(self._target.info.hash)

    @property
    def blake3(self) -> bytes:
        """BLAKE3 of the file; empty where the description tells none."""
        if self._target.info is None:
            return blake3(self._target.value or b"")
        return self._target.info.blake3

    @property
    def is_claimed(self) -> bool:
        """Whether nothing but the whole file proves that the description is the right one."""
        return self._target.is_claimed

    async def read(self, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes from ``start`` to before ``end``, cut at the end of the file.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt: a part cannot be had.
            FormatError: the description lies.
        """
        while True:
            try:
                return await self._read(start, self.size if end is None else min(end, self.size))
            except LocalError:
                raise
            except BytestagError:
                following = await self._resolver.following(self._target)
                if following is None:
                    raise
                self._target = following
                self._parts.clear()
                self._lists.clear()

    async def _read(self, start: int, end: int) -> bytes:
        info = self._target.info
        if start >= end:
            return b""
        if info is None:
            return (self._target.value or b"")[start:end]
        first, last = start // info.part_bytes, (end - 1) // info.part_bytes
        places = asyncio.Semaphore(PARTS_AT_ONCE)

        async def part(number: int) -> bytes:
            async with places:
                return await self._part(info, number)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part(number)) for number in range(first, last + 1)]
        except* BytestagError as errors:
            raise errors.exceptions[0] from None
        whole = b"".join(task.result() for task in tasks)
        offset = first * info.part_bytes
        return whole[start - offset : end - offset]

    async def _part(self, info: FileInfo, number: int) -> bytes:
        known = self._parts.get(number)
        if known is None:
            entry = await self._entry(info, number)
            known = await self._resolver.part(entry)
            self._parts.put(number, known)
        return known

    async def _entry(self, info: FileInfo, number: int) -> PartEntry:
        if info.parts:
            return info.parts[number]
        at = bisect_right(info.lists, number, key=lambda entry: entry.first) - 1
        named = info.lists[at]
        known = self._lists.get(at)
        if known is None:
            value = await self._resolver.fetcher.fetch(
                Wanted.content(named.sha1, named.blake3, named.length * ENTRY_BYTES)
            )
            known = info.list_parts(at, value)
            self._lists.put(at, known)
        return known[number - named.first]
