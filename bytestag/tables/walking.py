"""Walking a shared path: which files it has, in a fixed order (shell).

A link to a file or directory inside the share counts as what it points to; one that leaves the
share is never followed, and neither is a link below a linked directory, so that no knot of links
makes the walk endless. What cannot be shared is a warning, never an error; of two names that differ
only in case or Unicode form, the second cannot.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bytestag.errors import FormatError
from bytestag.models import safe_names
from bytestag.models.canonical import INT_MAX as _INT_MAX

_INCOMPLETE = os.fsencode(safe_names.INCOMPLETE_SUFFIX)


Warn = Callable[[bytes, str], None]


class Found(NamedTuple):
    """A regular file: its path below the share (empty if it is the share) and its identity."""

    path: bytes
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def walk(root: bytes, warn: Warn, empty: list[bytes]) -> Iterator[Found]:
    """Yield the files of a share, sorted by name within each directory.

    Directories with nothing in them are added to ``empty``.
    """
    try:
        status = os.stat(root)
    except OSError as error:
        warn(root, f"not found: {error.strerror}")
        return
    if stat.S_ISREG(status.st_mode):
        yield Found(b"", *identity(status))
    elif stat.S_ISDIR(status.st_mode):
        walker = _Walker(root, os.path.realpath(root), warn, empty)
        yield from walker.walk(b"", frozenset({(status.st_dev, status.st_ino)}))
    else:
        warn(root, "neither a file nor a directory")


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return size, the times of change of content and inode, and inode.

    As far as signed database integers hold them. Programs may set the first of the times back.
    """
    times = status.st_mtime_ns & _INT_MAX, status.st_ctime_ns & _INT_MAX
    return status.st_size, *times, status.st_ino & _INT_MAX


def components(path: bytes) -> tuple[str, ...]:
    """Return a path as a manifest names it. Raises FormatError for a name that is not safe."""
    try:
        names = unicodedata.normalize("NFC", path.decode("utf-8")).split("/")
    except UnicodeDecodeError as error:
        raise FormatError("the name is not UTF-8") from error
    safe_names.check_path(names)
    return tuple(names)


@dataclass(frozen=True, slots=True)
class _Walker:
    root: bytes
    real_root: bytes
    warn: Warn
    empty: list[bytes]

    def walk(
        self, below: bytes, ancestors: frozenset[tuple[int, int]], is_linked: bool = False
    ) -> Iterator[Found]:
        directory = os.path.join(self.root, below) if below else self.root
        try:
            with os.scandir(directory) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.warn(directory, f"cannot be listed: {error.strerror}")
            return
        if not found and below:
            self.empty.append(below)
        is_too_deep = below.count(b"/") + bool(below) >= safe_names.DEPTH_MAX
        met: set[str] = set()
        for entry in found:
            if entry.name.endswith(_INCOMPLETE):
                continue
            try:
                (name,) = components(entry.name)
                if is_too_deep:
                    raise FormatError(f"more than {safe_names.DEPTH_MAX} directories deep")
            except FormatError as error:
                self.warn(entry.path, error.message)
                continue
            looked = self._look(entry)
            if looked is None:
                continue
            status, is_link = looked
            here = status.st_dev, status.st_ino
            is_file = stat.S_ISREG(status.st_mode)
            if not is_file and (here in ancestors or (is_link and is_linked)):
                self.warn(entry.path, "a link that leads back")
                continue
            folded = safe_names.fold(name)
            if folded in met:  # nobody could fetch the directory if both were in its manifest
                self.warn(entry.path, "differs from another name only in case")
                continue
            met.add(folded)
            path = below + b"/" + entry.name if below else entry.name
            if is_file:
                yield Found(path, *identity(status))
            else:
                yield from self.walk(path, ancestors | {here}, is_linked or is_link)

    def _look(self, entry: os.DirEntry[bytes]) -> tuple[os.stat_result, bool] | None:
        """Return what an entry is and whether by a link; None, with a warning, if unfit."""
        try:
            is_link = entry.is_symlink()
            if is_link:
                target = os.path.realpath(entry.path, strict=True)
                if not _is_inside(target, self.real_root):
                    self.warn(entry.path, "a link that leaves the share")
                    return None
            status = entry.stat()
        except OSError as error:
            self.warn(entry.path, f"cannot be read: {error.strerror}")
            return None
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            return status, is_link
        self.warn(entry.path, "neither a file nor a directory")
        return None


def _is_inside(path: bytes, root: bytes) -> bool:
    return os.path.commonpath([path, root]) == root
