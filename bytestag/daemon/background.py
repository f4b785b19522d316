"""A node in the background: started apart from the terminal, found, and ended (shell).

Who holds the control door is asked of the system (SO_PEERCRED), so that no signal goes to a
stranger who got an old number; where it does not say, and while the door is not open yet, a file
with the number and the time of start does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytestag import basedir
from bytestag.errors import BytestagError, StorageError, Timeout
from bytestag.gateway.door import Door

PID_NAME, LOG_NAME = "node.pid", "node.log"
LOG_BYTES_MAX = 8 * 1024 * 1024
START_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_SECONDS = 15.0  # a node gives itself nine
_UCRED = struct.Struct("3i")


class NotStarted(BytestagError):
    """The node ended before it was up."""

    code = "not_started"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and when it began, as the system writes it; empty where it does not say."""

    pid: int
    began: str

    @property
    def is_alive(self) -> bool:
        """Whether it is there, and is the one that was meant."""
        try:
            os.kill(self.pid, 0)
        except OSError:
            return False
        return _began(self.pid) == self.began


# --- Starting ------------------------------------------------------------------------------------


def start(state: Path, arguments: Sequence[str], find: Callable[[], Door | None]) -> Process:
    """Start a node apart from this process; return it once ``find`` has found its door.

    Raises NotStarted with what it said, Timeout if it is not up in a minute.
    """
    basedir.ensure(state)
    log = state / LOG_NAME
    try:
        began_at = _rotate(log)
        with open(log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            process = subprocess.Popen(  # noqa: S603 - the caller's own arguments, no shell
                [sys.executable, "-m", "bytestag", "node", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
    except OSError as error:
        raise StorageError(f"cannot start a node: {error}") from error
    started = Process(process.pid, _began(process.pid))
    _write_pid(state / PID_NAME, started)
    for _poll in range(int(START_SECONDS / POLL_SECONDS)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(POLL_SECONDS)
            (state / PID_NAME).unlink(missing_ok=True)
            failure = NotStarted(_last_words(log, began_at), hint=f"all it said is in {log}")
            failure.exit_status = status if status > 0 else 1
            raise failure
        if find() is not None:
            return started
    raise Timeout("the node is not up after a minute", hint=f"see {log}; it goes on starting")


def _rotate(log: Path) -> int:
    """Put a long log aside; return where the next line begins."""
    if not log.exists():
        return 0
    if log.stat().st_size > LOG_BYTES_MAX:
        log.replace(log.with_name(f"{log.name}.1"))
        return 0
    return log.stat().st_size


def _last_words(log: Path, begin: int) -> str:
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read(64 * 1024).decode("utf-8", "replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")] or lines
    return said[-1].removeprefix("error: ") if said else "the node ended and said nothing"


def _write_pid(path: Path, process: Process) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(f"{process.pid} {process.began}\n")


# --- Finding -------------------------------------------------------------------------------------


def holder(door: Door) -> Process | None:
    """Return the process that holds a door, if the system says who does."""
    option: Any = getattr(socket, "SO_PEERCRED", None)
    sock = door.connect(5.0)
    try:
        if option is None or sock.family != getattr(socket, "AF_UNIX", None):
            return None
        pid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))[0]
    finally:
        sock.close()
    return Process(pid, _began(pid))


def remembered(state: Path) -> Process | None:
    """Return the process that :func:`start` made, if that is still the one with its number."""
    try:
        pid, _, began = (state / PID_NAME).read_text("ascii").strip().partition(" ")
        process = Process(int(pid), began)
    except (OSError, ValueError):
        return None
    return process if process.pid > 0 and process.is_alive else None


def _began(pid: int) -> str:
    """Return when a process began, in the kernel's ticks (proc(5), field 22)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]  # a zombie has ended


# --- Ending --------------------------------------------------------------------------------------


def stop(process: Process, state: Path) -> None:
    """Have a node end, and wait until it has. Raises Timeout, StorageError."""
    try:
        with _handle(process) as handle:
            if not process.is_alive:
                return
            if handle is None:
                os.kill(process.pid, signal.SIGTERM)
            else:
                signal.pidfd_send_signal(handle, signal.SIGTERM)
            _await_end(process, handle)
    except ProcessLookupError:
        pass
    except PermissionError as error:
        raise StorageError(f"process {process.pid} is not ours to end") from error
    (state / PID_NAME).unlink(missing_ok=True)


@contextlib.contextmanager
def _handle(process: Process) -> Any:
    """Give a handle that means this process for ever, where the system has such."""
    open_handle = getattr(os, "pidfd_open", None)
    try:
        handle = open_handle(process.pid) if open_handle is not None else None
    except ProcessLookupError:
        raise
    except OSError:  # an old kernel
        handle = None
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _await_end(process: Process, handle: int | None) -> None:
    if handle is not None:
        if select.select([handle], [], [], STOP_SECONDS)[0]:
            return
    else:
        for _poll in range(int(STOP_SECONDS / POLL_SECONDS)):
            select.select([], [], [], POLL_SECONDS)
            if not process.is_alive:
                return
    raise Timeout(
        f"process {process.pid} has not ended after {STOP_SECONDS:.0f} s",
        hint=f"kill -9 {process.pid} ends it; nothing that was acknowledged is lost",
    )
