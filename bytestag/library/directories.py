"""Directories: looking into them, and making them of what is here (shell).

A directory that was begun is gone on with: what stands in it must be the directory's own, whole
files with their content, others under the name that says they are not whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bytestag.errors import FormatError, NotFound, UsageError
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.safe_names import INCOMPLETE_SUFFIX, check_tree
from bytestag.store.content import Content, ContentStore
from bytestag.store.copying import hash_path
from bytestag.tables.landing import LandingDirectory
from bytestag.tables.whole_hash import COPY_BYTES
from bytestag.uri import Link

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory, with errors that people understand."""

    manifest: DirectoryManifest
    is_here: bool
    """Whether it was read here: then nobody elsewhere need know it."""

    def at(self, path: Names) -> FileEntry | DirectoryManifest:
        """Return what lies at a path. Raises NotFound."""
        try:
            return self.manifest.at(path)
        except KeyError:
            raise NotFound(
                f"{'/'.join(path)!r} is not in the directory", hint="bytestag ls LINK lists it"
            ) from None

    def at_file(self, path: Names) -> FileEntry:
        """Return the file at a path. Raises NotFound, UsageError."""
        found = self.at(path)
        if isinstance(found, DirectoryManifest):
            raise is_directory()
        return found

    def at_directory(self, path: Names) -> DirectoryManifest:
        """Return the directory at a path. Raises NotFound, UsageError."""
        found = self.at(path)
        if isinstance(found, FileEntry):
            raise UsageError(f"{'/'.join(path)!r} is a file, not a directory")
        return found


def is_directory() -> UsageError:
    """Return the error of who asked for a file."""
    return UsageError("the link names a directory, not a file", hint="bytestag ls LINK lists it")


def check_file(link: Link) -> None:
    """Raise UsageError for a link that says that it names a directory."""
    if link.kind == "d" and not link.path:
        raise is_directory()


def check_agrees(entry: FileEntry, size: int, blake3: bytes) -> None:
    """Raise FormatError if a directory says another thing of a file than what has its SHA-1."""
    if size != entry.size or (entry.b3 and blake3 not in (b"", entry.b3)):
        raise FormatError(
            f"the directory says that {entry.sha1.hex()} has {entry.size:,} bytes, but it has "
            f"{size:,}"
            if size != entry.size
            else f"the directory says another BLAKE3 of {entry.sha1.hex()} than it has",
            hint="whoever made the directory made it wrong: ask for another link",
        )


def check_made(entry: FileEntry, path: Path, *, is_ours: bool) -> None:
    """Compare a file that was made by its SHA-1 with what the directory says.

    Raises FormatError if that is something else, and removes the file if it is ours.
    """
    hashes, _stamp = hash_path(path, lambda: 0)  # the stamp is for who keeps it
    try:
        check_agrees(entry, hashes.size, hashes.blake3)
    except FormatError:
        if is_ours:
            path.unlink(missing_ok=True)
        raise


def directory_link(link: Link) -> Link:
    """Return the link, which names a directory, as one that says so."""
    return link if link.kind == "d" or link.path else replace(link, kind="d")


class Making:
    """A directory that is being made."""

    def __init__(self, store: ContentStore, manifest: DirectoryManifest, dest: Path) -> None:
        """Nothing is made yet.

        Raises FormatError for unsafe names, UsageError if what ``dest`` is was not begun for this.
        """
        self.entries = list(manifest.entries())
        self._directories = [path for path, _ in manifest.directories()]
        check_tree((path for path, _ in self.entries), manifest.empty_directories())
        self._store = store
        self._dest = dest
        self._check_dest()

    def _check_dest(self) -> None:
        if not os.path.exists(self._dest):
            return
        known = {path for path, _ in self.entries}
        known |= {(*path[:-1], path[-1] + "/") for path in self._directories if path}
        for path in self._standing(()):
            if path not in known and not path[-1].endswith(INCOMPLETE_SUFFIX):
                raise UsageError(
                    f"{str(self._dest)!r} exists, and {'/'.join(path)!r} in it is not of this "
                    "directory",
                    hint="name a directory that is to be made",
                )

    def _standing(self, below: Names) -> Iterator[Names]:
        """Yield the path of all there is, that of a directory with a slash."""
        try:
            with os.scandir(self._dest.joinpath(*below)) as listed:
                entries = list(listed)
        except OSError as error:
            raise UsageError(
                f"{str(self._dest)!r} exists, and is no directory that can be read",
                hint="name a directory that is to be made",
            ) from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield (*below, entry.name + "/")
                yield from self._standing((*below, entry.name))
            else:
                yield (*below, entry.name)

    def make(self, contents: Sequence[tuple[Names, Content]]) -> Iterator[int]:
        """Make all directories, and the files that are here; yield the size of each that is done.

        Raises Exists for a file that is another, StorageError, NoSpace, and NotFound for a file of
        the user's that changed meanwhile.
        """
        landing = LandingDirectory(self._dest)
        try:
            for path in self._directories:
                os.close(landing.make_directories(path))
            for path, content in contents:
                if not landing.has(path, content.size, sha1=content.sha1):
                    self._copy(landing, path, content)
                yield content.size
        finally:
            landing.close()

    def _copy(self, landing: LandingDirectory, path: Names, content: Content) -> None:
        file = landing.file(path, content.size)
        try:
            with self._store.open(content) as source:
                offset = 0
                while piece := source.read(COPY_BYTES):
                    file.write(offset, piece)
                    offset += len(piece)
            file.finish(sync=False)
        finally:
            file.close()
