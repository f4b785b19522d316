"""Downloader: from a link to whole, verified files (shell).

Info first, then parts from several holders at once, each compared before it is written at its
place; the file gets its name when the whole agrees. Slots count values: a file never holds a place
while its parts wait for one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bytestag.config import PART_BYTES
from bytestag.dht.fetching import Wanted
from bytestag.dht.resolving import Resolver, Target
from bytestag.errors import BytestagError, Corrupt, FormatError, Incomplete, NotFound
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.tasks import Task
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import PartEntry
from bytestag.models.safe_names import check_tree
from bytestag.tables.landing import (
    Exists,
    IncompleteFile,
    LandingDirectory,
    check_space,
    existing_matches,
)

_logger = logging.getLogger(__name__)

FILES_AT_ONCE = 8
INFOS_TRIED_MAX = 8
MANIFEST_BYTES_MAX = 512 * 1024 * 1024
ERRORS_KEPT_MAX = 20


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
    errors: list[tuple[str, BytestagError]] = field(default_factory=list)


class Downloader:
    """Fetches what one link names."""

    def __init__(self, resolver: Resolver, slot: FnTaskSlot, runtime: Runtime) -> None:
        self._resolver = resolver
        self._fetcher = resolver.fetcher
        self._slot = slot
        self._runtime = runtime

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
        size = target.info.size if target.info is not None else len(target.value or b"")
        assert size is not None
        job = _Job(is_forced, FetchProgress("fetching", 1, bytes=size), report)
        await self._runtime.offload(check_space, dest, size)
        directory = await self._runtime.offload(LandingDirectory, dest.parent)
        try:
            if target.info is not None:
                await self._land_info(directory, (dest.name,), target.info, job)
            else:
                value = target.value or b""
                await self._runtime.offload(self._land_value, directory, (dest.name,), value, job)
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
        job = _Job(is_forced, FetchProgress("fetching", len(entries), bytes=total), report)
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

    def _checked_entries(
        self, manifest: DirectoryManifest
    ) -> list[tuple[tuple[str, ...], FileEntry]]:
        entries = list(manifest.entries())
        check_tree((path for path, _ in entries), manifest.empty_directories())
        return entries

    async def _land_all(
        self,
        directory: LandingDirectory,
        entries: Iterable[tuple[tuple[str, ...], FileEntry]],
        job: _Job,
    ) -> None:
        """Fetch all files: small ones are one value each, large ones a few at a time."""
        places = asyncio.Semaphore(FILES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            small: set[Task[None]] = set()

            async def large(path: tuple[str, ...], entry: FileEntry) -> None:
                try:
                    await self._guard(self._land_entry(directory, path, entry, job), path, job)
                finally:
                    places.release()

            for path, entry in entries:
                if _is_one_value(entry):
                    landing = self._land_small
                    task = await self._slot.add(landing, directory, path, entry, job)
                    small.add(task)
                    task.observer.register(small.discard)
                else:
                    await places.acquire()
                    group.create_task(large(path, entry))
            for task in list(small):
                await task

    async def _guard(self, work: Awaitable[None], path: tuple[str, ...], job: _Job) -> None:
        """Await one file; a failure of the network is kept, one of this machine ends all."""
        try:
            await work
        except (NotFound, Corrupt, FormatError, ConnectionError, TimeoutError) as error:
            if isinstance(error, BytestagError):
                _logger.debug("! %s: %s", "/".join(path), error)
                job.errors.append(("/".join(path), error))
            else:
                raise

    def _raise_errors(self, job: _Job, total: int) -> None:
        if not job.errors:
            return
        path, error = job.errors[0]
        if len(job.errors) == total:
            raise error
        raise Incomplete(
            f"{len(job.errors)} of {total} files are missing; the first is {path!r}: {error}",
            hint="run the same command again: what has arrived is kept",
        )

    async def _land_small(
        self,
        directory: LandingDirectory,
        path: tuple[str, ...],
        entry: FileEntry,
        job: _Job,
    ) -> None:
        """Fetch a file that is one value; no description is needed for it."""

        async def work() -> None:
            if not await self._is_there(directory, path, entry.size, entry.sha1, entry.b3, job):
                wanted = Wanted(entry.key, entry.sha1, entry.b3, entry.size)
                value = await self._fetcher.fetch(wanted) if entry.size else b""
                if len(value) != entry.size:
                    raise FormatError("the manifest lies about a size")
                await self._runtime.offload(self._land_value, directory, path, value, job)

        await self._guard(work(), path, job)

    async def _land_entry(
        self,
        directory: LandingDirectory,
        path: tuple[str, ...],
        entry: FileEntry,
        job: _Job,
    ) -> None:
        if await self._is_there(directory, path, entry.size, entry.sha1, entry.b3, job):
            return
        if not entry.info_b3:
            target = await self._resolver.resolve_bare(entry.key)
            if target.info is None:
                raise FormatError("the manifest lies about a file")
            info = target.info
        else:
            info = await self._resolver.info(Wanted(entry.key, blake3=entry.info_b3), entry.key)
        if info.size != entry.size or (entry.b3 and info.blake3 != entry.b3):
            raise FormatError("manifest and description disagree")
        await self._land_info(directory, path, info, job, is_checked=True)

    async def _is_there(
        self,
        directory: LandingDirectory,
        path: tuple[str, ...],
        size: int,
        sha1: bytes,
        blake3: bytes,
        job: _Job,
    ) -> bool:
        """Whether the file stands there already; raises Exists if another does."""
        place = directory.root.joinpath(*path)
        digests = {"blake3": blake3} if blake3 else {"sha1": sha1}
        try:
            is_there = await self._runtime.offload(existing_matches, place, size, **digests)
        except Exists:
            if job.is_forced:
                return False
            raise
        if is_there:
            job.progress.bytes_resumed += size
            self._file_done(job, size)
        return is_there

    def _land_value(
        self, directory: LandingDirectory, path: tuple[str, ...], value: bytes, job: _Job
    ) -> None:
        file = directory.file(path, len(value), replaces=job.is_forced)
        try:
            file.write(0, value)
            file.finish(sync=False)
        finally:
            file.close()
        self._file_done(job, len(value))

    async def _land_info(
        self,
        directory: LandingDirectory,
        path: tuple[str, ...],
        info: FileInfo,
        job: _Job,
        *,
        is_checked: bool = False,
    ) -> None:
        """Fetch a file part by part."""
        assert info.size is not None
        if not is_checked and await self._is_there(
            directory, path, info.size, info.hash, info.blake3, job
        ):
            return
        file = await self._runtime.offload(directory.file, path, info.size, replaces=job.is_forced)
        try:
            await self._land_parts(file, info, job)
            digests = {"blake3": info.blake3} if info.blake3 else {"sha1": info.hash}
            if not await self._runtime.offload(file.matches, **digests):
                raise Corrupt("all parts fit, but the whole file does not")
            await self._runtime.offload(file.finish, sync=True)
        finally:
            file.close()
        self._file_done(job, 0)

    async def _land_parts(self, file: IncompleteFile, info: FileInfo, job: _Job) -> None:
        tasks: set[Task[None]] = set()
        failed: list[BytestagError] = []

        def on_done(task: Task[None]) -> None:
            tasks.discard(task)
            if isinstance(task.error, BytestagError):
                failed.append(task.error)

        try:
            async for part in self._resolver.parts(info):
                if failed:
                    break
                task = await self._slot.add(self._land_part, file, part, job)
                tasks.add(task)
                task.observer.register(on_done)
            while tasks:
                await next(iter(tasks))
        finally:
            for task in list(tasks):
                task.stop()
        if failed:
            raise failed[0]

    async def _land_part(self, file: IncompleteFile, part: PartEntry, job: _Job) -> None:
        if file.was_there and await self._runtime.offload(
            file.has, part.offset, part.size, part.blake3
        ):
            job.progress.bytes_resumed += part.size
        else:
            value = await self._resolver.part(part)
            await self._runtime.offload(file.write, part.offset, value)
        job.progress.bytes_done += part.size
        job.report(job.progress)

    def _file_done(self, job: _Job, size: int) -> None:
        job.progress.files_done += 1
        job.progress.bytes_done += size
        job.progress.sources = len(self._fetcher.counts.by_source)
        job.report(job.progress)


def _is_one_value(entry: FileEntry) -> bool:
    """Whether a file is empty, or its only part has the file's own hash."""
    return entry.size <= PART_BYTES


def _make_directory(directory: LandingDirectory, path: tuple[str, ...]) -> None:
    os.close(directory.make_directories(path))
