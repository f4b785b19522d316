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


def identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return size, time of change and inode, as far as signed database integers hold them."""
    return status.st_size, status.st_mtime_ns & _INT_MAX, status.st_ino & _INT_MAX


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
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            self.warn(directory, f"cannot be listed: {error.strerror}")
            return
        if not names and below:
            self.empty.append(below)
        met: set[str] = set()
        for name in names:
            if name.endswith(_INCOMPLETE):
                continue
            path = os.path.join(below, name) if below else name
            looked = self._look(path)
            if looked is None:
                continue
            status, is_link = looked
            here = status.st_dev, status.st_ino
            is_file = stat.S_ISREG(status.st_mode)
            if not is_file and (here in ancestors or (is_link and is_linked)):
                self.warn(os.path.join(self.root, path), "a link that leads back")
                continue
            folded = safe_names.fold(components(name)[0])
            if folded in met:  # nobody could fetch the directory if both were in its manifest
                self.warn(os.path.join(self.root, path), "differs from another name only in case")
                continue
            met.add(folded)
            if is_file:
                yield Found(path, *identity(status))
            else:
                yield from self.walk(path, ancestors | {here}, is_linked or is_link)

    def _look(self, path: bytes) -> tuple[os.stat_result, bool] | None:
        """Return what lies at ``path`` and whether by a link; None, with a warning, if unfit."""
        full = os.path.join(self.root, path)
        try:
            components(path)
            is_link = stat.S_ISLNK(os.lstat(full).st_mode)
            if is_link and not _is_inside(os.path.realpath(full, strict=True), self.real_root):
                self.warn(full, "a link that leaves the share")
                return None
            status = os.stat(full)
        except FormatError as error:
            self.warn(full, error.message)
            return None
        except OSError as error:
            self.warn(full, f"cannot be read: {error.strerror}")
            return None
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            return status, is_link
        self.warn(full, "neither a file nor a directory")
        return None


def _is_inside(path: bytes, root: bytes) -> bool:
    return os.path.commonpath([path, root]) == root
