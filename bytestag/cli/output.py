"""Output: the one place that prints (shell).

The answer goes to standard output, alone; notes, progress and errors go to standard error. With
``--json`` the answer is JSON, one object a line, and errors are answers too.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, TextIO

from bytestag.errors import BytestagError, NoSpace, StorageError

PLAIN_SECONDS = 10.0
_STYLES = {"error": "31", "warning": "33", "hint": "36", "good": "32"}


class OutputGone(StorageError):
    """What is printed cannot be written: whoever read it has left, or the disk is full."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot print: {error.strerror}")
        self.is_unread = error.errno == errno.EPIPE
        if error.errno == errno.ENOSPC:
            self.code, self.exit_status = NoSpace.code, NoSpace.exit_status


class Output:
    """Where a command prints to."""

    def __init__(
        self,
        *,
        is_json: bool = False,
        quiet: int = 0,
        verbose: int = 0,
        color: str = "auto",
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.is_json = is_json
        self.quiet = quiet
        self.verbose = verbose
        self._clock = clock
        self._has_color = _has_color(color, sys.stderr)
        self._is_terminal = sys.stderr.isatty()
        self._live: Any = None
        self._task: Any = None
        self._said_at: float | None = None

    # --- The answer ------------------------------------------------------------------------------

    def answer(self, text: str) -> None:
        """Print a line of the answer, at once."""
        if self.quiet < 2:
            self._pause()
            _write(sys.stdout, text)

    def json(self, value: Mapping[str, Any]) -> None:
        """Print an object of the answer, at once."""
        self.answer(json.dumps(value, ensure_ascii=True, separators=(",", ":")))

    # --- Beside it -------------------------------------------------------------------------------

    def note(self, text: str, style: str = "") -> None:
        """Tell a person something."""
        if not self.quiet:
            self._pause()
            _write(sys.stderr, self._styled(f"  {printable(text)}", style))

    def warn(self, text: str) -> None:
        """Tell a person something that may need an action."""
        if not self.quiet:
            self._pause()
            _write(sys.stderr, f"{self._styled('warning', 'warning')}: {printable(text)}")

    def error(self, error: BytestagError) -> None:
        """Say what went wrong and what to do about it."""
        self._pause()
        if self.quiet > 1:
            return
        if self.is_json:
            _write(sys.stdout, json.dumps(error_object(error), separators=(",", ":")))
            return
        _write(sys.stderr, f"{self._styled('error', 'error')}: {printable(error.message)}")
        if error.hint:
            _write(sys.stderr, f"  {self._styled('hint', 'hint')}: {printable(error.hint)}")

    # --- Progress --------------------------------------------------------------------------------

    def progress(self, text: str, done: int = 0, total: int = 0) -> None:
        """Show how far it is: a bar on a terminal, else a line now and then."""
        if self.quiet or self.is_json:
            return
        text = printable(text)
        if self._is_terminal:
            self._show_bar(text, done, total)
            return
        now = self.now()
        if self._said_at is None or now - self._said_at >= PLAIN_SECONDS:
            if self._said_at is not None:
                percent = f" {100 * done // total} %" if total else ""
                _write(sys.stderr, f"  {text}{percent}")
            self._said_at = now

    def now(self) -> float:
        """Return seconds of a clock that only goes on."""
        if self._clock is None:
            from bytestag.events.runtime import system_runtime

            self._clock = system_runtime().monotonic
        return self._clock()

    def end_progress(self) -> None:
        """Take the bar away."""
        self._pause()
        self._said_at = None

    def _show_bar(self, text: str, done: int, total: int) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

            console = Console(stderr=True, no_color=not self._has_color, highlight=False)
            columns = (TextColumn("  {task.description}", markup=False), BarColumn(24))
            self._live = Progress(*columns, TaskProgressColumn(), console=console, transient=True)
            self._task = self._live.add_task(text, total=None)
            self._live.start()
        self._live.update(self._task, description=text, completed=done, total=total or None)

    def _pause(self) -> None:
        """Take a bar off the screen, so that lines can be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _styled(self, text: str, style: str) -> str:
        code = _STYLES.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if code and self._has_color else text


class Chosen:
    """The output of the command that runs, once its options are understood."""

    output: Output | None = None


def error_object(error: BytestagError) -> dict[str, Any]:
    """Return an error as ``--json`` prints it."""
    return {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit": error.exit_status,
    }


def printable(text: str) -> str:
    """Return text without anything that could steer a terminal or is no Unicode."""
    text = " ".join(text.split("\n"))
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def _write(stream: TextIO, text: str) -> None:
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        _discard(stream)
        raise OutputGone(error) from error


def write_bytes(stream: BinaryIO, data: bytes) -> None:
    """Write bytes of the answer, all of them. Raises OutputGone."""
    try:
        stream.write(data)
        stream.flush()
    except OSError as error:
        _discard(stream)
        raise OutputGone(error) from error


def _discard(stream: TextIO | BinaryIO) -> None:
    """Let what is printed from now on, and what waits to be, go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    finally:
        os.close(null)


def fill_streams() -> None:
    """Put the null device where the caller closed a standard stream.

    Else a database or a socket would get its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - for ever
            setattr(sys, name, null)


def _has_color(choice: str, stream: TextIO) -> bool:
    environment = os.environ
    if choice in ("always", "never"):
        return choice == "always"
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE"):
        return True
    return stream.isatty() and environment.get("TERM") != "dumb"
