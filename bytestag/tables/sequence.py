"""Sequence: numbers that rise, across restarts and whatever the clock does (shell)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bytestag.tables.memory_stores import MemoryStateTable
    from bytestag.tables.state import StateTable

RESERVED = 100_000
"""Numbers that one write of the state covers."""


class Sequence:
    """Sequence numbers of signed statements; any thread may ask for the next."""

    def __init__(
        self, state: StateTable | MemoryStateTable | None, wall: Callable[[], float]
    ) -> None:
        self._state = state
        self._wall = wall
        self._lock = threading.Lock()
        self._last = 0
        self._reserved = 0

    def next(self) -> int:
        """Return a number above all before."""
        with self._lock:
            if self._last >= self._reserved:
                self._reserve()
            self._last += 1
            return self._last

    def _reserve(self) -> None:
        stored = self._state.json("seq", 0) if self._state is not None else 0
        self._last = max(self._last, stored, int(self._wall() * 1000))
        self._reserved = self._last + RESERVED
        if self._state is not None:
            self._state.set_json("seq", self._reserved)
