"""Where the control door is: found by the node that opens it and by commands that knock (shell).

Standard library only, so that a command that merely knocks starts at once. A Unix socket lies in a
directory that only its owner may enter; where there are none, the door is a loopback port whose
number and token stand in a file of mode 0600.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bytestag import basedir
from bytestag.errors import NotPermitted, StorageError

SOCKET_NAME, TOKEN_NAME = "control.sock", "control.json"
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107  # of sun_path, less the zero
HAS_UNIX_SOCKETS = hasattr(socket, "AF_UNIX")


@dataclass(frozen=True, slots=True)
class DoorPlace:
    """The directory of a control door."""

    directory: Path

    @property
    def socket_path(self) -> Path:
        return self.directory / SOCKET_NAME

    @property
    def token_path(self) -> Path:
        return self.directory / TOKEN_NAME


def door_place(state_directory: Path | None) -> DoorPlace:
    """Return the place of the door: with the given state directory, else the user's."""
    if state_directory is None:
        return DoorPlace(basedir.runtime_dir())
    return DoorPlace(state_directory.expanduser().absolute() / "run")


def check_directory(directory: Path) -> None:
    """Refuse a door's directory that is not the user's own. Raises NotPermitted."""
    status = directory.stat()
    if os.name == "posix" and (
        status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077
    ):
        raise NotPermitted(
            f"others may enter {str(directory)!r}, where the control socket is",
            hint=f"chmod 700 {directory}",
        )


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a name for a socket that fits the system's limit, however long its path is.

    Raises StorageError where there is no such name.
    """
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
        yield str(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise StorageError(
            f"the path of the control socket is too long: {str(path)!r}",
            hint="give a shorter --state-dir, or set BYTESTAG_HOME",
        )
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def connect(path: Path, timeout: float | None) -> socket.socket:
    """Connect to a door's socket. Raises OSError if nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        with short_path(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock
