"""Bar: how far something is, on stderr: a bar on a terminal, else a line for each quarter."""

from __future__ import annotations

import time
from typing import TextIO

WIDTH = 30
REDRAW_SECONDS = 0.1


class Bar:
    """Tells progress; it is called with what is done, how much of it, of how much."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._drawn = 0.0
        self._told: dict[str, int] = {}
        self._began = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        if self._is_terminal:
            now = time.monotonic()
            if done < of and now - self._drawn < REDRAW_SECONDS:
                return
            self._drawn = now
            full = WIDTH * done // max(of, 1)
            line = f"{what:<14} {'━' * full}{' ' * (WIDTH - full)} {done}/{of}"
            self._stream.write(f"\r\x1b[K{line}  {now - self._began:.0f} s")
        else:
            quarter = 4 * done // max(of, 1)
            if quarter <= self._told.get(what, 0):
                return
            self._told[what] = quarter % 4
            seconds = time.monotonic() - self._began
            self._stream.write(f"{what} {done}/{of}, {seconds:.0f} s\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the line free."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
