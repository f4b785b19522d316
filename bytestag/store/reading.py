"""Reading a content: only while the file is what was believed (shell).

An object of the store never changes. Any other file may, while it is open: it is looked at again
after each read, and what was read of a changed one is never handed out.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytestag.errors import NotFound, UsageError
from bytestag.store.values import Content, Stamp

if TYPE_CHECKING:
    from bytestag.store.content import ContentStore

BUFFER_BYTES = 1024 * 1024


class Watched(io.FileIO):
    """A file that refuses to be read once it has changed."""

    def __init__(self, path: str, sha1: bytes) -> None:
        super().__init__(path, "rb", opener=_opener)
        self._sha1 = sha1
        self._stamp = Stamp.of(os.fstat(self.fileno()))

    @property
    def stamp(self) -> Stamp:
        """What the file was when it was opened."""
        return self._stamp

    def readinto(self, buffer: Any, /) -> int:
        count = super().readinto(buffer)
        self._look()
        return count

    def readall(self) -> bytes:
        value = super().readall()
        self._look()
        return value

    def read(self, size: int | None = -1, /) -> bytes:
        value = super().read(-1 if size is None else size)
        self._look()
        return value

    def _look(self) -> None:
        if Stamp.of(os.fstat(self.fileno())) != self._stamp:
            raise NotFound(
                f"the file that had {self._sha1.hex()} has changed",
                hint="store the content, instead of linking the file, to keep it",
            )


def open_content(store: ContentStore, content: Content) -> io.BufferedReader:
    """Open a content for reading. Raises NotFound."""
    return io.BufferedReader(_open(store, content), BUFFER_BYTES)


def read_content(store: ContentStore, content: Content, start: int, end: int | None) -> bytes:
    """Return bytes of a content. Raises UsageError or NotFound."""
    end = content.size if end is None else end
    if not 0 <= start <= end <= content.size:
        raise UsageError(f"{start} to {end} is not a range of {content.size} bytes")
    with _open(store, content) as file:
        file.seek(start)
        pieces = []
        while start < end:
            piece = file.read(end - start)
            if not piece:
                raise NotFound(f"{content.sha1.hex()} has become shorter")
            pieces.append(piece)
            start += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _open(store: ContentStore, content: Content) -> Watched:
    """Open the file of a content; the open file is the one that is believed."""
    for _ in range(3):
        path = content.path
        try:
            file = Watched(os.fspath(path), content.sha1)
        except OSError:
            content = store.find(content.sha1)
            continue
        try:
            row = store.index.object_row(content.sha1) if content.origin == "object" else None
            if row is not None and row.stamp == file.stamp:
                return file
            content = store.believer.confirm(content) or store.find(content.sha1)
            if content.path == path and _is_same(path, file.stamp):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
    raise NotFound(f"{content.sha1.hex()} changes all the time")


def _is_same(path: Path, stamp: Stamp) -> bool:
    """Return whether what was believed after opening is what was opened."""
    try:
        return Stamp.of(os.stat(path)) == stamp
    except OSError:
        return False


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
