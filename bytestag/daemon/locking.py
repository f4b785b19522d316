"""One process on a state directory (shell)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bytestag import basedir
from bytestag.errors import StateInUse, StorageError


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a state directory: one process at a time. Raises StateInUse."""
    basedir.ensure(directory)
    path = directory / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot open {str(path)!r}: {error.strerror}") from error
    try:
        _lock(fd, directory)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, directory: Path) -> None:
    """Lock an open file until it is closed."""
    try:
        import fcntl
    except ImportError:
        return  # no flock here: the database's own locks are left
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateInUse(
            f"another node runs on {str(directory)!r}",
            hint="stop it, or give this one a --state-dir of its own",
        ) from None
    except OSError as error:
        raise StorageError(
            f"cannot lock {str(directory)!r}: {error.strerror}",
            hint="give a --state-dir on a disk of this machine",
        ) from error
