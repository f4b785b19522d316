"""SmallFiles: files of one value each, many at one go, into a directory that is made (shell)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from bytestag.dht.fetching import Fetcher, Wanted
from bytestag.events.runtime import Runtime
from bytestag.hashing import Buffer
from bytestag.models.directory import FileEntry
from bytestag.tables.landing import LandingDirectory

Names = tuple[str, ...]
SmallFile = tuple[Names, FileEntry]
"""Its path below the directory, and what the manifest says of it."""
Done = Callable[[int, bool], None]
"""Is told the size of a file that is there, and whether it was there before."""


class SmallFiles:
    """Lands the small files of one directory."""

    def __init__(
        self,
        fetcher: Fetcher,
        runtime: Runtime,
        directory: LandingDirectory,
        done: Done,
        *,
        is_forced: bool,
    ) -> None:
        self._fetcher = fetcher
        self._runtime = runtime
        self._directory = directory
        self._done = done
        self._is_forced = is_forced

    async def land_run(self, files: Sequence[SmallFile]) -> list[SmallFile]:
        """Land files as far as they are here, or a server gives them at one go; return the others.

        Raises:
            Exists: something else has the name of one.
            NoSpace, StorageError: it cannot be written.
        """
        offload = self._runtime.offload
        are_there = await offload(lambda: [self._has(file) for file in files])
        for _, entry in itertools.compress(files, are_there):
            self._done(entry.size, True)
        missing = [file for file, is_there in zip(files, are_there, strict=True) if not is_there]
        asked = [file for file in missing if file[1].size]

        async def take(values: Sequence[tuple[int, Buffer]]) -> set[int]:
            fits = await offload(lambda: [self._fits(asked[n], value) for n, value in values])
            landed = {n for (n, _), fit in zip(values, fits, strict=True) if fit}
            for number in landed:
                self._done(asked[number][1].size, False)
            return landed

        taken = await self._fetcher.fetch_many([_wanted(entry) for _, entry in asked], take)
        landed = {id(asked[number]) for number in taken}
        return [file for file in missing if id(file) not in landed]

    def _has(self, file: SmallFile) -> bool:
        path, entry = file
        return self._directory.has(
            path, entry.size, sha1=entry.sha1, blake3=entry.b3, replaces=self._is_forced
        )

    def _fits(self, file: SmallFile, value: Buffer) -> bool:
        """Write a value to its file if it is what was wanted."""
        path, entry = file
        if len(value) != entry.size or not _wanted(entry).is_satisfied_by(value):
            return False
        self._directory.write(path, value, replaces=self._is_forced)
        return True


def _wanted(entry: FileEntry) -> Wanted:
    return Wanted.content(entry.sha1, entry.b3, entry.size)
