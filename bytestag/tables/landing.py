"""Landing: fetched files on disk, whole or under a name that says they are not (shell).

A file is written as ``NAME.bytestag-incomplete`` beside its place, each verified part at its
offset, and renamed when all of it agrees. To resume, the parts found there are hashed again: there
is no journal that could lie. Directories are walked without following links; names were checked by
``models.safe_names`` before they come here.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bytestag.errors import LocalError, NoSpace, StorageError
from bytestag.hashing import Buffer, blake3, sha1
from bytestag.models.parts import PartEntry
from bytestag.models.safe_names import INCOMPLETE_SUFFIX, NAME_BYTES_MAX
from bytestag.tables.whole_hash import WholeHash

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Exists(LocalError):
    """Something else has the name already."""

    code = "exists"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{str(path)!r} exists and differs", hint="give another DEST, or --force to replace it"
        )


def translated(error: OSError, path: Path | str) -> StorageError:
    """Return the error of ours for one of the operating system's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return NoSpace(f"no space left for {str(path)!r}", hint="free some space and run it again")
    return StorageError(
        f"cannot write {str(path)!r}: {error.strerror}", hint="check the path and its permissions"
    )


class LandingDirectory:
    """A directory being made; every path below it is opened without following links."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(root, os.O_RDONLY | _DIRECTORY | _CLOEXEC)
        except OSError as error:
            raise translated(error, root) from error

    def open_parent(self, path: Sequence[str]) -> int:
        """Make the directories of a path's parents; return a descriptor of the last one.

        Raises:
            StorageError: something on the way is no directory, or is a link.
        """
        return self.make_directories(path[:-1])

    def make_directories(self, path: Sequence[str]) -> int:
        """Make the directories of a path; return a descriptor of the last one."""
        try:
            return self._walk(path, makes=True)
        except OSError as error:
            raise translated(error, self.root.joinpath(*path)) from error

    def _walk(self, path: Sequence[str], *, makes: bool) -> int:
        """Return a descriptor of a directory below; no link on the way is followed."""
        with self._lock:  # a number that was closed may soon be another file's
            here = os.dup(self._fd)
        try:
            for name in path:
                if makes:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o777, dir_fd=here)
                below = os.open(name, os.O_RDONLY | _DIRECTORY | _NOFOLLOW | _CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
        except OSError:
            os.close(here)
            raise
        return here

    def has(
        self,
        path: Sequence[str],
        size: int,
        *,
        sha1: bytes = b"",
        blake3: bytes = b"",
        replaces: bool = False,
    ) -> bool:
        """Return whether a plain file with this content stands at a path below.

        Raises:
            Exists: something else does, and may not be replaced.
            StorageError: something on the way is no directory, or is a link.
        """
        place = self.root.joinpath(*path)
        try:
            parent = self._walk(path[:-1], makes=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translated(error, place) from error
        try:
            return _has(parent, path[-1], place, size, sha1, blake3)
        except Exists:
            if replaces:
                return False
            raise
        finally:
            os.close(parent)

    def write(self, path: Sequence[str], value: Buffer, *, replaces: bool = False) -> None:
        """Make a file of verified bytes; raises as :meth:`IncompleteFile.finish` and its write."""
        file = self.file(path, len(value), replaces=replaces)
        try:
            file.write(0, value)
            file.finish(sync=False)
        finally:
            file.close()

    def file(self, path: Sequence[str], size: int, *, replaces: bool = False) -> IncompleteFile:
        """Return the incomplete file of a path below."""
        parent = self.open_parent(path)
        try:
            return IncompleteFile(parent, path[-1], self.root.joinpath(*path), size, replaces)
        except BaseException:
            os.close(parent)
            raise

    def close(self) -> None:
        """Close the directory; idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class IncompleteFile:
    """A file on its way. Takes over ``parent``, a descriptor of its directory.

    Threads may use it together; what they do when it is closed meanwhile comes to its end first.
    """

    def __init__(
        self, parent: int, name: str, path: Path, size: int, replaces: bool = False
    ) -> None:
        self._parent = parent
        self._name = name
        self._incomplete = incomplete_name(name)
        self.path = path
        self.size = size
        self._replaces = replaces
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False
        self._whole: WholeHash | None = None
        self._fd = -1
        try:
            self._fd = self._open()
            self.was_there = os.fstat(self._fd).st_size > 0
            os.ftruncate(self._fd, size)
        except OSError as error:
            if self._fd >= 0:
                os.close(self._fd)
            raise translated(error, path) from error

    @contextmanager
    def _used(self) -> Iterator[int]:
        """Keep the descriptors open for a thread; their numbers must not become another file's."""
        with self._lock:
            if self._is_closed:
                raise StorageError(f"{str(self.path)!r} is closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def _close_unused(self) -> None:
        if self._is_closed and not self._users and self._fd >= 0:
            os.close(self._fd)
            os.close(self._parent)
            self._fd = -1

    def _open(self) -> int:
        if len(os.fsencode(self._name)) > NAME_BYTES_MAX:  # it could never get its name
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        flags = os.O_RDWR | os.O_CREAT | _NOFOLLOW | _CLOEXEC
        fd = os.open(self._incomplete, flags, 0o666, dir_fd=self._parent)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise OSError(errno.EEXIST, "the incomplete file is no plain file of its own")
            if not _lock(fd) or not _has_inode(self._incomplete, self._parent, status):
                raise OSError(errno.EBUSY, "another fetch is writing it")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def expect(self, *, sha1: bytes = b"", blake3: bytes = b"") -> None:
        """Hash the whole while its parts land; :meth:`matches` will ask for the same hashes."""
        self._whole = WholeHash(sha1, blake3, self._read)

    def land(self, runs: Iterable[Iterable[tuple[PartEntry, Buffer | None]]]) -> list[list[bool]]:
        """Compare each part with its hash, write it if it fits, and say so; one thread at a time.

        None stands for what may be in its place already. A part that fits its hash, but not its
        size, is not written. Raises NoSpace or StorageError.
        """
        return [[self._land(part, value) for part, value in run] for run in runs]

    def _land(self, part: PartEntry, value: Buffer | None) -> bool:
        is_there = value is None
        if value is None:
            value = self._read(part.offset, part.size)
        if not (blake3(value) == part.blake3 if part.blake3 else sha1(value) == part.sha1):
            return False
        if len(value) == part.size:
            if not is_there:
                self.write(part.offset, value)
            if self._whole is not None:
                self._whole.add(part.offset, value)
        return True

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with self._used() as fd:
                return os.pread(fd, size, offset)
        except OSError as error:
            raise translated(error, self.path) from error

    def write(self, offset: int, part: Buffer) -> None:
        """Write a verified part at its place; raises NoSpace or StorageError."""
        view = memoryview(part)
        try:
            with self._used() as fd:
                while view:
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
        except OSError as error:
            raise translated(error, self.path) from error

    def matches(self, *, sha1: bytes = b"", blake3: bytes = b"") -> bool:
        """Return whether the whole file has these hashes; an empty one is not compared."""
        whole, self._whole = self._whole or WholeHash(sha1, blake3, self._read), None
        with self._used() as fd:
            return whole.matches(self.size) and os.fstat(fd).st_size == self.size

    def finish(self, *, sync: bool) -> None:
        """Give the file its name.

        Raises:
            Exists: the name was taken meanwhile, and it may not be replaced.
        """
        try:
            with self._used() as fd:
                if sync:
                    os.fdatasync(fd)
                if not self._replaces and _is_there(self._name, self._parent):
                    raise Exists(self.path)
                os.rename(
                    self._incomplete, self._name, src_dir_fd=self._parent, dst_dir_fd=self._parent
                )
                if sync:
                    os.fsync(self._parent)
        except OSError as error:
            raise translated(error, self.path) from error
        finally:
            self.close()

    def close(self) -> None:
        """Leave the file as it is, to be resumed; idempotent."""
        with self._lock:
            self._is_closed = True
            self._close_unused()


def incomplete_name(name: str) -> str:
    """Return the name of a file on its way; for a long one a hash stands in."""
    incomplete = name + INCOMPLETE_SUFFIX
    if len(os.fsencode(incomplete)) <= NAME_BYTES_MAX:
        return incomplete
    return sha1(os.fsencode(name)).hex() + INCOMPLETE_SUFFIX


def _has(parent: int, name: str, path: Path, size: int, sha1: bytes, blake3: bytes) -> bool:
    """Return whether a plain file with this content has the name; raises Exists if another has."""
    flags = os.O_RDONLY | _CLOEXEC | getattr(os, "O_NONBLOCK", 0)  # a fifo would wait for a writer
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        if _is_there(name, parent):  # a link to nowhere
            raise Exists(path) from None
        return False
    except OSError as error:
        raise Exists(path) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            raise Exists(path)
        if not _matches(fd, size, sha1, blake3):
            raise Exists(path)
    finally:
        os.close(fd)
    return True


def check_space(path: Path, needed: int) -> None:
    """Raise NoSpace if less than ``needed`` bytes are free where ``path`` is to be made.

    What exists already was begun before, so its space is not asked for again.
    """
    here = path
    if path.exists() or path.with_name(incomplete_name(path.name)).exists():
        return
    while not here.exists():
        here = here.parent
    free = os.statvfs(here).f_bavail * os.statvfs(here).f_frsize
    if free < needed:
        raise NoSpace(
            f"{needed:,} bytes are needed in {str(here)!r}, {free:,} are free",
            hint="choose a DEST on a larger disk",
        )


def _matches(fd: int, size: int, sha1: bytes, blake3: bytes) -> bool:
    whole = WholeHash(sha1, blake3, lambda offset, count: os.pread(fd, count, offset))
    return whole.matches(size) and os.fstat(fd).st_size == size


def _lock(fd: int) -> bool:
    """Lock an open file until it is closed; return whether nobody else has.

    What is written by two is not what either of them hashed while it landed.
    """
    try:
        import fcntl
    except ImportError:
        return True  # no flock here
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # nor on this file system
    return True


def _has_inode(name: str, parent: int, status: os.stat_result) -> bool:
    """Whether the name is still that of an open file."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=parent, follow_symlinks=False), status)
    except FileNotFoundError:
        return False


def _is_there(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
