"""Making ``.prv`` and ``.prvdir`` files: what is hashed, what is passed over (shell).

As kbucket did, names that begin with a dot and ``node_modules`` are passed over in a directory. No
path of this machine gets into what is made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from bytestag.errors import Corrupt, StorageError
from bytestag.hashing import sha1
from bytestag.models.prv import HEAD_BYTES, PrvDirectory, PrvFile
from bytestag.one_pass import Tick
from bytestag.tables.file_hashing import FileChanged, hash_file, open_file
from bytestag.tables.walking import components, walk
from bytestag.uri import Hint


@dataclass(slots=True)
class MadePrv:
    """What was made, and what is missing from it."""

    prv: PrvFile | PrvDirectory
    files: int = 1
    size: int = 0
    skipped: int = 0
    """Files with a dot name or below one, or below ``node_modules``."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """Path and reason of what should have been in it."""


def make_prv(path: Path, hints: tuple[Hint, ...], tick: Tick) -> MadePrv:
    """Hash a file or a directory; ``tick`` is called with the bytes read.

    Raises StorageError if the path cannot be read.
    """
    if path.is_dir():
        return _make_directory(path, hints, tick)
    try:
        file = prv_of(os.fsencode(path), tick, hints)
    except FileChanged as error:
        raise StorageError(f"{str(path)!r} {error.message}") from error
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    return MadePrv(file, size=file.size)


def prv_of(path: bytes, tick: Tick, hints: tuple[Hint, ...] = ()) -> PrvFile:
    """Hash one file. Raises OSError, and FileChanged if it is not the same file at the end."""
    head = _head(path)
    hashed = hash_file(path, lambda: 0, tick)
    if _head(path) != head:
        raise FileChanged("changed while it was read")
    return PrvFile(hashed.sha1, hashed.size, sha1(head), hashed.blake3, hints)


def _head(path: bytes) -> bytes:
    with open_file(path) as file:
        return file.read(HEAD_BYTES) or b""


def _make_directory(root: Path, hints: tuple[Hint, ...], tick: Tick) -> MadePrv:
    base = os.fsencode(root)
    made = MadePrv(PrvDirectory(), files=0)
    files: list[tuple[tuple[str, ...], PrvFile]] = []
    directories: list[tuple[str, ...]] = []
    empty: list[bytes] = []

    def warn(path: bytes, reason: str) -> None:
        below = os.path.relpath(path, base)
        if _visible(below) == below.split(b"/"):
            made.warnings.append((os.fsdecode(below), reason))

    for found in walk(base, warn, empty):
        visible = _visible(found.path)
        if len(visible) <= found.path.count(b"/"):
            made.skipped += 1
            if visible:
                directories.append(components(b"/".join(visible)))
            continue
        try:
            file = prv_of(os.path.join(base, found.path), tick)
        except FileChanged as error:
            warn(os.path.join(base, found.path), error.message)
        except OSError as error:
            warn(os.path.join(base, found.path), f"cannot be read: {error.strerror}")
        else:
            files.append((components(found.path), file))
            made.size += file.size
    for path in empty:
        directories.append(components(b"/".join(_visible(path))) if _visible(path) else ())
    made.files = len(files)
    made.prv = PrvDirectory.build(files, directories, hints)
    return made


def _visible(path: bytes) -> list[bytes]:
    """Return the components of a path before the first that kbucket passed over."""
    names = path.split(b"/")
    for number, name in enumerate(names):
        if name.startswith(b".") or name == b"node_modules":
            return names[:number]
    return names


def check_fits(prv: PrvFile, path: Path) -> None:
    """Read a file and compare it with what a ``.prv`` says.

    Raises Corrupt if it is another file, StorageError if it cannot be read.
    """
    try:
        hashed = hash_file(os.fsencode(path), lambda: 0)
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}") from error
    if not prv.fits(hashed.size, hashed.sha1, hashed.blake3):
        raise Corrupt(
            f"{str(path)!r} is not the file that the .prv describes",
            hint="its size, SHA-1 and BLAKE3 contradict each other, or the file was changed",
        )
