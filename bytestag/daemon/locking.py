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
        if not _try_lock(fd):
            raise StateInUse(
                f"another node runs on {str(directory)!r}",
                hint="stop it, or give this one a --state-dir of its own",
            )
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    """Lock an open file until it is closed; return False if somebody else has it."""
    try:
        import fcntl
    except ImportError:
        return True  # no flock here: the database's own locks are left
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
