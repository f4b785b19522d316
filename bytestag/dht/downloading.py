"""Downloader: from a link to whole, verified files (shell).

Info first, then parts from several holders at once, each compared before it is written at its
place; the file gets its name when the whole agrees. Slots count values: a file never holds a place
while its parts wait for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path

from bytestag.config import PART_BYTES
from bytestag.dht.fetching import OF_THE_NETWORK
from bytestag.dht.file_parts import FileParts
from bytestag.dht.resolving import Resolver, Target
from bytestag.dht.runs import Runs
from bytestag.dht.small_files import Names, SmallFile, SmallFiles
from bytestag.errors import (
    BytestagError,
    Corrupt,
    FormatError,
    Incomplete,
)
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.tasks import Task
from bytestag.events.together import together
from bytestag.hashing import blake3
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.safe_names import check_tree
from bytestag.tables.landing import LandingDirectory, check_space

_logger = logging.getLogger(__name__)

FILES_AT_ONCE = 8
OF_ONE_FILE = (*OF_THE_NETWORK, FormatError)
"""Why a file may not be had; the others of its directory may."""


@dataclass(slots=True)
class FetchProgress:
    """How far a fetch is."""

    phase: str = "looking up"
    files: int = 0
    files_done: int = 0
    bytes: int = 0
    bytes_done: int = 0
    bytes_resumed: int = 0
    sources: int = 0


@dataclass(slots=True)
class _Job:
    """What all files of one fetch share."""

    is_forced: bool
    progress: FetchProgress
    report: Callable[[FetchProgress], None]
    sources: Sized
    failures: int = 0
    first_failure: tuple[str, BytestagError] | None = None

    def bytes_landed(self, size: int, were_there: bool) -> None:
        """Bytes are in their place; report it."""
        self.progress.bytes_done += size
        self.progress.bytes_resumed += size * were_there
        self.progress.sources = len(self.sources)
        self.report(self.progress)

    def file_landed(self, size: int, was_there: bool) -> None:
        """A file is whole, with so many bytes that were not told of before."""
        self.progress.files_done += 1
        self.bytes_landed(size, was_there)


class Downloader:
    """Fetches what one link names."""

    def __init__(self, resolver: Resolver, slot: FnTaskSlot, runtime: Runtime) -> None:
        self._resolver = resolver
        self._fetcher = resolver.fetcher
        self._slot = slot
        self._runtime = runtime
        self._sources = resolver.fetcher.counts.by_source

    # --- Files -----------------------------------------------------------------------------------

    async def fetch_file(
        self,
        target: Target,
        dest: Path,
        *,
        is_forced: bool = False,
        report: Callable[[FetchProgress], None] = lambda progress: None,
    ) -> FetchProgress:
        """Make the file ``dest``.

        Raises:
            Exists: something else has the name.
            NoSpace, StorageError: it cannot be written.
            NotFound, Unreachable, Timeout, Corrupt: a part cannot be had; what came is kept.
        """
        while True:
            try:
                return await self._fetch_file(target, dest, is_forced, report)
            except BytestagError:
                following = await self._resolver.following(target)
                if following is None:
                    raise
                target = following

    async def _fetch_file(
        self,
        target: Target,
        dest: Path,
        is_forced: bool,
        report: Callable[[FetchProgress], None],
    ) -> FetchProgress:
        size = target.info.size if target.info is not None else len(target.value or b"")
        assert size is not None
        job = _Job(is_forced, FetchProgress("fetching", 1, bytes=size), report, self._sources)
        await self._runtime.offload(check_space, dest, size)
        directory = await self._runtime.offload(LandingDirectory, dest.parent)
        try:
            await self._land_target(directory, (dest.name,), target, job)
        finally:
            directory.close()
        job.progress.phase = "done"
        report(job.progress)
        return job.progress

    async def fetch_directory(
        self,
        manifest: DirectoryManifest,
        dest: Path,
        *,
        is_forced: bool = False,
        report: Callable[[FetchProgress], None] = lambda progress: None,
    ) -> FetchProgress:
        """Make the directory ``dest`` with all files of a manifest.

        Raises:
            FormatError: a name is unsafe, or two collide.
            Incomplete: some files could not be had; the others are there.
            Exists, NoSpace, StorageError: it cannot be written.
        """
        entries = await self._runtime.offload(self._checked_entries, manifest)
        total = sum(entry.size for _, entry in entries)
        job = _Job(
            is_forced, FetchProgress("fetching", len(entries), bytes=total), report, self._sources
        )
        await self._runtime.offload(check_space, dest, total)
        directory = await self._runtime.offload(LandingDirectory, dest)
        try:
            for path in manifest.empty_directories():
                await self._runtime.offload(_make_directory, directory, path)
            await self._land_all(directory, entries, job)
        finally:
            directory.close()
        self._raise_errors(job, len(entries))
        job.progress.phase = "done"
        report(job.progress)
        return job.progress

    def _checked_entries(self, manifest: DirectoryManifest) -> list[tuple[Names, FileEntry]]:
        entries = list(manifest.entries())
        check_tree((path for path, _ in entries), manifest.empty_directories())
        return entries

    async def _land_all(
        self, directory: LandingDirectory, entries: Iterable[tuple[Names, FileEntry]], job: _Job
    ) -> None:
        """Fetch all files: small ones, one value each, many at a time, large ones a few."""
        places = asyncio.Semaphore(FILES_AT_ONCE)

        async def large(path: Names, entry: FileEntry) -> None:
            try:
                await self._guard(self._land_large(directory, path, entry, job), path, job)
            finally:
                places.release()

        async def small(file: SmallFile) -> None:
            await self._guard(self._land_small(directory, *file, job), file[0], job)

        small_files = SmallFiles(
            self._fetcher, self._runtime, directory, job.file_landed, is_forced=job.is_forced
        )
        async with together(*OF_THE_NETWORK) as tasks:
            runs = Runs(self._slot, tasks, small_files.land_run, small)
            for path, entry in entries:
                if tasks.must_stop:
                    break
                if entry.size <= PART_BYTES:
                    await runs.add((path, entry), entry.size)
                else:
                    await places.acquire()
                    tasks.add(Task.wrap(large, path, entry).start(tasks.parent))
            await runs.end()

    async def _guard(self, work: Awaitable[None], path: Names, job: _Job) -> None:
        """Await one file; a failure of the network is kept, one of this machine ends all."""
        try:
            await work
        except OF_ONE_FILE as error:
            _logger.debug("! %s: %s", "/".join(path), error)
            job.failures += 1
            job.first_failure = job.first_failure or ("/".join(path), error)

    def _raise_errors(self, job: _Job, total: int) -> None:
        if job.first_failure is None:
            return
        path, error = job.first_failure
        if job.failures == total:
            raise error
        raise Incomplete(
            f"{job.failures} of {total} files are missing; the first is {path!r}: {error}",
            hint="run the same command again: what has arrived is kept",
        )

    async def _land_small(
        self, directory: LandingDirectory, path: Names, entry: FileEntry, job: _Job
    ) -> None:
        """Fetch a file that is one value; no description is needed for it."""
        if not await self._is_there(directory, path, entry.size, entry.sha1, entry.b3, job):
            value = await self._resolver.small_file(entry)
            await self._land_value(directory, path, value, job)

    async def _land_large(
        self, directory: LandingDirectory, path: Names, entry: FileEntry, job: _Job
    ) -> None:
        if await self._is_there(directory, path, entry.size, entry.sha1, entry.b3, job):
            return
        target = await self._resolver.entry(entry)
        while True:
            try:
                await self._land_target(directory, path, target, job, is_looked_for=True)
                return
            except OF_ONE_FILE:
                following = await self._resolver.following(target)
                if following is None:
                    raise
                target = following

    async def _land_target(
        self,
        directory: LandingDirectory,
        path: Names,
        target: Target,
        job: _Job,
        *,
        is_looked_for: bool = False,
    ) -> None:
        """Make a file of a value or, part by part, of a description."""
        info, value = target.info, target.value or b""
        if info is None:
            if is_looked_for or not await self._is_there(
                directory, path, len(value), b"", blake3(value), job
            ):
                await self._land_value(directory, path, value, job)
            return
        assert info.size is not None
        file_sha1 = info.hash if target.is_claimed or not info.blake3 else b""
        if not is_looked_for and await self._is_there(
            directory, path, info.size, file_sha1, info.blake3, job
        ):
            return
        file = await self._runtime.offload(directory.file, path, info.size, replaces=job.is_forced)
        try:
            file.expect(sha1=file_sha1, blake3=info.blake3)
            parts = FileParts(self._resolver, self._slot, self._runtime, file, job.bytes_landed)
            await parts.land(info)
            if not await self._runtime.offload(file.matches, sha1=file_sha1, blake3=info.blake3):
                raise Corrupt("all parts fit, but the whole file does not")
            await self._runtime.offload(file.finish, sync=True)
        finally:
            file.close()
        job.file_landed(0, False)

    async def _is_there(
        self,
        directory: LandingDirectory,
        path: Names,
        size: int,
        file_sha1: bytes,
        file_blake3: bytes,
        job: _Job,
    ) -> bool:
        """Whether the file stands there already; raises Exists if another does."""
        is_there = await self._runtime.offload(
            directory.has,
            path,
            size,
            sha1=file_sha1,
            blake3=file_blake3,
            replaces=job.is_forced,
        )
        if is_there:
            job.file_landed(size, True)
        return is_there

    async def _land_value(
        self, directory: LandingDirectory, path: Names, value: bytes, job: _Job
    ) -> None:
        await self._runtime.offload(directory.write, path, value, replaces=job.is_forced)
        job.file_landed(len(value), False)


def _make_directory(directory: LandingDirectory, path: Names) -> None:
    os.close(directory.make_directories(path))
