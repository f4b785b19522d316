"""File objects over ranges, and files put in place whole (shell)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from bytestag.errors import NoSpace, StorageError

BUFFER_BYTES = 1024 * 1024
"""What a small read asks for: four parts."""


class RangeFile(io.RawIOBase):
    """A read-only file whose bytes come from ``read(start, end)``.

    Wrapped by :func:`buffered` it is a complete file object: seek, tell, readline, iteration.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, name: str) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._at = 0
        self.name = name
        self.mode = "rb"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        if whence not in base:
            raise ValueError(f"invalid whence: {whence!r}")
        at = base[whence] + offset
        if at < 0:
            raise ValueError(f"negative seek position {at}")
        self._at = at
        return at

    def tell(self) -> int:
        self._check()
        return self._at

    def readinto(self, buffer: object) -> int:
        self._check()
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        end = min(self._at + len(view), self._size)
        if end <= self._at:
            return 0
        data = self._read(self._at, end)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        self._check()
        data = self._read(self._at, self._size) if self._at < self._size else b""
        self._at += len(data)
        return data

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


def buffered(read: Callable[[int, int], bytes], size: int, name: str) -> io.BufferedReader:
    """Return a file object over ranges of a file of so many bytes."""
    return io.BufferedReader(RangeFile(read, size, name), BUFFER_BYTES)


def place(write: Callable[[Path], object], dest: Path) -> Path:
    """Have ``write`` make a file beside ``dest``, then give it the name; return ``dest``.

    Whoever reads ``dest`` sees the old file or the new one, whole. Raises StorageError, NoSpace.
    """
    if dest.exists() and not dest.is_file() and not dest.is_dir():  # a device, a pipe: kept
        raise StorageError(f"{str(dest)!r} is no file", hint="write to it with `bytestag cat`")
    temporary = dest.with_name(f".{dest.name[:64]}.{secrets.token_hex(4)}.part")
    try:
        write(temporary)
        os.replace(temporary, dest)
    except IsADirectoryError as error:
        raise StorageError(f"{str(dest)!r} is a directory", hint="name the file to make") from error
    except (FileNotFoundError, NotADirectoryError) as error:
        if dest.parent.is_dir():
            raise
        raise StorageError(f"there is no directory {str(dest.parent)!r}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoSpace(f"no space left for {str(dest)!r}", hint="free some") from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return dest


def copy(source: Path, dest: Path) -> Path:
    """Copy a file to ``dest``, whole or not at all."""
    return place(lambda temporary: shutil.copyfile(source, temporary), dest)
