"""Reading bytes once: hashed, and on request written elsewhere at the same time (shell).

Where the file system can clone a file, the clone is made first and then hashed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial

from bytestag.errors import NotFound, NotPermitted, StorageError, UsageError
from bytestag.hashing import blake3, blake3_hasher, md5, md5_hasher, sha1, sha1_hasher
from bytestag.one_pass import Take, Tick, no_tick, read_once
from bytestag.store.values import Hashes, Stamp

SMALL_BYTES = 1024 * 1024
_FICLONE = 0x40049409


def open_source(path: str | bytes | os.PathLike[str]) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, and look at it; where a pipe lies, do not wait for a writer.

    Raises NotFound, NotPermitted, UsageError (no regular file) or StorageError.
    """
    name = os.fsdecode(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {name!r}") from error
    except OSError as error:
        raise source_error(error, name) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise UsageError(f"{name!r} is not a regular file")
    return fd, status


def source_error(error: OSError, name: str) -> StorageError | NotPermitted | UsageError:
    """Return the error of ours for a file that cannot be read."""
    if isinstance(error, PermissionError):
        return NotPermitted(f"{name!r} cannot be read", hint="check its permissions")
    if error.errno in (errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG):
        return UsageError(f"{name!r} is not a regular file: {error.strerror}")
    return StorageError(f"cannot read {name!r}: {error.strerror}")


def hash_bytes(buffer: bytes, *, wants_md5: bool = False) -> Hashes:
    """Hash bytes at hand."""
    if wants_md5:
        return Hashes(len(buffer), sha1(buffer), blake3(buffer), md5(buffer))
    return Hashes(len(buffer), sha1(buffer), blake3(buffer))


def hash_file(source: int, *, wants_md5: bool = False, tick: Tick = no_tick) -> Hashes:
    """Hash an open file from its beginning. Raises OSError."""
    return _stream(source, None, wants_md5, tick)


def copy_file(source: int, target: int, *, wants_md5: bool = False, tick: Tick = no_tick) -> Hashes:
    """Copy an open file into an empty one and hash what was written. Raises OSError."""
    if _clone(source, target):
        return _stream(target, None, wants_md5, tick)
    return _stream(source, target, wants_md5, tick)


def hash_path(
    path: str | bytes | os.PathLike[str],
    now_ns: Callable[[], int],
    *,
    wants_md5: bool = False,
    tick: Tick = no_tick,
) -> tuple[Hashes, Stamp]:
    """Hash a file in its place; return its settled stamp as well.

    Raises what ``open_source`` raises, and StorageError if it changed meanwhile.
    """
    now = now_ns()  # before the read: a write within it could leave the same time
    fd, status = open_source(path)
    try:
        before = Stamp.of(status)
        hashes = hash_file(fd, wants_md5=wants_md5, tick=tick)
        after = Stamp.of(os.fstat(fd))
    except OSError as error:
        raise source_error(error, os.fsdecode(path)) from error
    finally:
        os.close(fd)
    if before != after or hashes.size != after.size:
        raise StorageError(
            f"{os.fsdecode(path)!r} changed while it was read", hint="run it again when it rests"
        )
    return hashes, after.settled(now)


# --- Inside --------------------------------------------------------------------------------------


def _clone(source: int, target: int) -> bool:
    """Make the target share the source's blocks, where the file system can."""
    try:
        import fcntl

        fcntl.ioctl(target, _FICLONE, source)
    except (ImportError, OSError):
        return False
    return True


def _stream(source: int, target: int | None, wants_md5: bool, tick: Tick) -> Hashes:
    os.lseek(source, 0, os.SEEK_SET)
    hashers = [sha1_hasher(), blake3_hasher(), *([md5_hasher()] if wants_md5 else [])]
    takers: list[Take] = [hasher.update for hasher in hashers]
    if target is not None:
        takers.append(partial(_write, target))
    size = read_once(source, takers, tick=tick)
    return Hashes(size, *(hasher.digest() for hasher in hashers))


def _write(target: int, block: memoryview) -> None:
    while block:
        block = block[os.write(target, block) :]
