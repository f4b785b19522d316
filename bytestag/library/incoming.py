"""Where what is fetched arrives, before the store has it: one at a time for each content (shell).

What an interrupted fetch left is gone on with; the store's collector removes what nobody came for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bytestag.store.objects import INCOMING, write_error


@contextmanager
def arriving(store: Path, digest: bytes) -> Iterator[Path]:
    """Give the path where a content is to arrive, to one thread of one process; others wait.

    Whoever waited finds in the store what the first one brought. Raises StorageError.
    """
    arrived = store / INCOMING / digest.hex()
    lock = arrived.with_suffix(".lock")
    try:
        arrived.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = _locked(lock)
    except OSError as error:
        raise write_error(error, store) from error
    try:
        yield arrived
    finally:
        with suppress(OSError):
            lock.unlink()  # while it is ours: who waits for it sees that it is gone
        os.close(fd)


def _locked(path: Path) -> int:
    """Return a descriptor of a file that is there and that nobody else has locked. Waits."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            with suppress(ImportError):
                import fcntl

                fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(path)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
