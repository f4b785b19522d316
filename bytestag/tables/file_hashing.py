"""Hashing a file: whole and by parts, in one read (shell).

A part of a file with one part is the file, so small files are hashed once.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bytestag.config import PART_BYTES
from bytestag.errors import StorageError
from bytestag.hashing import BLAKE3_BYTES, SHA1_BYTES, blake3, blake3_hasher, sha1, sha1_hasher
from bytestag.one_pass import Tick, no_tick, read_once
from bytestag.tables.walking import identity

ENTRY_BYTES = SHA1_BYTES + BLAKE3_BYTES
RACY_NS = 20_000_000  # a later write may leave the same time: five ticks of a 250 Hz kernel
RACY_COARSE_NS = 2_000_000_000  # where the file system keeps whole seconds
MTIME_UNKNOWN = -1
"""Of a file written a moment ago: it is looked at again."""
CTIME_IGNORED = -1
"""Of a file whose time of change was never found wrong: links and permissions change this one."""


class FileChanged(StorageError):
    """A file was written to, or ended, while it was read."""

    code = "changed"


class Stopped(Exception):
    """The caller asked to stop."""


class HashedFile(NamedTuple):
    """What one read of a file found."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha1: bytes
    blake3: bytes
    entries: bytes
    """SHA-1 ‖ BLAKE3 of each part, packed."""

    def parts(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield SHA-1, BLAKE3 and size of each part."""
        for number, at in enumerate(range(0, len(self.entries), ENTRY_BYTES)):
            middle, end = at + SHA1_BYTES, at + ENTRY_BYTES
            size = min(PART_BYTES, self.size - number * PART_BYTES)
            yield self.entries[at:middle], self.entries[middle:end], size


def hash_file(
    path: bytes,
    now_ns: Callable[[], int],
    tick: Tick = no_tick,
) -> HashedFile:
    """Read and hash a file. ``tick`` is called with the bytes read and may raise to stop.

    Raises OSError if it cannot be read and FileChanged if it is not the same file at the end. A
    file written to a moment ago has an unknown time of change, so that it is looked at again.
    """
    source = _open(path)
    try:
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            raise FileChanged("is no longer a file")
        if before.st_size <= PART_BYTES:
            value = os.read(source, before.st_size + 1)
            whole_sha1, whole_blake3, size = sha1(value), blake3(value), len(value)
            entries = whole_sha1 + whole_blake3 if value else b""
            tick(size)
        else:
            whole_sha1, whole_blake3, entries, size = _hash_large(source, tick)
        after = os.fstat(source)
    finally:
        os.close(source)
    if size != after.st_size or _state(before) != _state(after):
        raise FileChanged("changed while it was read")
    is_coarse = after.st_mtime_ns % 1_000_000_000 == 0
    racy_ns = RACY_COARSE_NS if is_coarse else RACY_NS
    is_racy = abs(now_ns() - after.st_mtime_ns) < racy_ns
    _size, mtime_ns, ctime_ns, inode = identity(before)  # if it was touched since, look again
    return HashedFile(
        size,
        MTIME_UNKNOWN if is_racy else mtime_ns,
        ctime_ns,
        inode,
        whole_sha1,
        whole_blake3,
        entries,
    )


def open_file(path: bytes) -> io.FileIO:
    """Open a file for reading; where a pipe has taken its place, do not wait for a writer."""
    return open(_open(path), "rb", buffering=0)


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _hash_large(descriptor: int, tick: Tick) -> tuple[bytes, bytes, bytes, int]:
    sha1_, blake3_, entries = sha1_hasher(), blake3_hasher(), _Entries()
    size = read_once(descriptor, [sha1_.update, blake3_.update], entries.take, tick=tick)
    return sha1_.digest(), blake3_.digest(), bytes(entries.packed), size


class _Entries:
    """SHA-1 ‖ BLAKE3 of each part, which come in any order and from two threads."""

    def __init__(self) -> None:
        self.packed = bytearray()
        self._lock = threading.Lock()

    def take(self, first: int, block: memoryview) -> None:
        starts = range(0, len(block), PART_BYTES)
        parts = (block[at : at + PART_BYTES] for at in starts)
        entries = b"".join([sha1(part) + blake3(part) for part in parts])
        at = first * ENTRY_BYTES
        with self._lock:
            self.packed += bytes(max(0, at + len(entries) - len(self.packed)))
            self.packed[at : at + len(entries)] = entries


def _state(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
