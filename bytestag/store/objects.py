"""The store's own directory: objects under their names, files on their way, damaged ones (shell).

::

    objects/aa/HEX    an object, mode 0444, named by its SHA-1
    tmp/PID-RANDOM-N  a file on its way
    bad/HEX-RANDOM    an object whose bytes were found wrong
    incoming/HEX…     what is being fetched, or was when that was interrupted

A file gets its name by one rename when all its bytes are written and hashed, so whatever kills a
process leaves whole objects and files in ``tmp``. The time of an object's last change is set back a
little, so that any later write shows, however soon it comes.
"""

from __future__ import annotations

import errno
import itertools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from bytestag.errors import NoSpace, StorageError
from bytestag.store.index_file import HINT
from bytestag.store.values import RACY_COARSE_NS, Stamp

SYNC_BYTES_MIN = 1024 * 1024
TEMPORARY_SECONDS_MAX = 86_400
INCOMING = "incoming"
INCOMING_SECONDS_MAX = 7 * 86_400  # who fetches it again until then goes on where it was
_HEX = 40
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_error(error: OSError, path: Path) -> StorageError:
    """Return the error of ours for one of the operating system's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"no space left in the store {str(path)!r}", hint="free some, or `gc`")
    return StorageError(f"cannot write to the store {str(path)!r}: {error.strerror}", hint=HINT)


class Objects:
    """The files of a store."""

    def __init__(self, directory: Path, now_ns: Callable[[], int]) -> None:
        self.directory = directory
        self._now_ns = now_ns
        self._root = os.fspath(directory)
        self._names = itertools.count()
        self._own = secrets.token_hex(8)

    def path(self, sha1: bytes) -> str:
        """Return where an object lies, or would."""
        name = sha1.hex()
        return f"{self._root}/objects/{name[:2]}/{name}"

    def make(self) -> None:
        """Make the directories. Raises StorageError."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in ("objects", "tmp", "bad"):
                with suppress(FileExistsError):
                    os.mkdir(os.path.join(self._root, name), 0o777)
        except OSError as error:
            raise write_error(error, self.directory) from error

    def temporary(self, mode: int = 0o444) -> tuple[str, int]:
        """Make an empty file on its way; return its path and a descriptor to write to it."""
        name = f"{os.getpid()}-{self._own}-{next(self._names)}"  # the process first: it may fork
        path = f"{self._root}/tmp/{name}"  # noqa: S108
        try:
            return path, os.open(path, _NEW, mode)
        except FileNotFoundError:
            self.make()
        except OSError as error:
            raise write_error(error, self.directory) from error
        try:
            return path, os.open(path, _NEW, mode)
        except OSError as error:
            raise write_error(error, self.directory) from error

    def settle(self, fd: int, size: int, *, sync: bool | None = None) -> Stamp:
        """Make a written file ready to be named; return its stamp. Raises OSError."""
        now_ns = self._now_ns()
        os.utime(fd, ns=(now_ns, now_ns - RACY_COARSE_NS))
        if sync or (sync is None and size >= SYNC_BYTES_MIN):
            os.fsync(fd)
        return Stamp.of(os.fstat(fd))

    def adopt(self, temporary: str, sha1: bytes, *, sync: bool) -> str:
        """Give a file on its way its name, whatever lay there; return the path. Raises OSError."""
        return self.name(temporary, self.path(sha1), sync=sync)

    def name(self, temporary: str, path: str, *, sync: bool) -> str:
        """Give a file on its way the path of its object; return it. Raises OSError."""
        try:
            os.rename(temporary, path)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(os.path.dirname(path))
            os.rename(temporary, path)
        if sync:
            self.sync_directory(os.path.dirname(path))
        return path

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory last."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_all(self) -> None:
        """Make everything last that was written so far: one call for many small files."""
        try:
            import ctypes  # 10 ms that other commands never pay

            syncfs = ctypes.CDLL(None).syncfs
        except (ImportError, OSError, AttributeError):
            os.sync()
            return
        fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if syncfs(fd):
                os.sync()
        finally:
            os.close(fd)

    def set_aside(self, sha1: bytes) -> Path | None:
        """Move a damaged object to ``bad``; return where it is, None if it cannot be moved."""
        place = self.directory / "bad" / f"{sha1.hex()}-{secrets.token_hex(4)}"
        try:
            place.parent.mkdir(exist_ok=True)
            os.rename(self.path(sha1), place)
        except OSError:
            return None
        return place

    def all(self) -> Iterator[tuple[bytes, os.stat_result]]:
        """Yield each object with its status, by name. What has no such name is passed over."""
        root = f"{self._root}/objects"
        for folder in _names(root):
            for name in _names(f"{root}/{folder}"):
                if len(name) != _HEX or not name.startswith(folder):
                    continue
                try:
                    sha1 = bytes.fromhex(name)
                    status = os.lstat(f"{root}/{folder}/{name}")
                except (ValueError, OSError):
                    continue
                yield sha1, status

    def stale(self) -> Iterator[Path]:
        """Yield files on their way that nobody will finish."""
        for path in self._older("tmp", TEMPORARY_SECONDS_MAX):
            if not _is_alive(path.name.partition("-")[0]):
                yield path
        yield from self._older(INCOMING, INCOMING_SECONDS_MAX)

    def _older(self, directory: str, seconds: int) -> Iterator[Path]:
        limit_ns = self._now_ns() - seconds * 1_000_000_000
        for name in _names(os.path.join(self._root, directory)):
            path = self.directory / directory / name
            with suppress(OSError):
                if path.lstat().st_mtime_ns < limit_ns:
                    yield path


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True
