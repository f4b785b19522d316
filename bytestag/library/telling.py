"""Telling the running node of this user what came into the store (shell).

It sees objects come by itself, soon; files that are only linked to it would find in an hour.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bytestag.errors import BytestagError
from bytestag.gateway import place

TELL_SECONDS = 2.0


def tell_node(state_directory: Path | None) -> None:
    """Have the node that runs on a state directory, if one does, serve at once what came."""
    where = place.door_place(state_directory)
    if not (where.socket_path.exists() or where.token_path.exists()):
        return
    from bytestag.gateway.door import Door

    with suppress(BytestagError):  # it looks by itself
        door = Door.find(state_directory)
        if door is not None:
            door.ask("POST", "/v1/stored")


class Teller:
    """Tells the node now and then while much comes, and of the last when it is flushed."""

    def __init__(self, tell: Callable[[Path | None], object] = tell_node) -> None:
        self._tell = tell
        self._told_at = float("-inf")
        self._news: list[Path | None] = []

    def note(self, state_directory: Path | None, now: float) -> None:
        """Note that something came."""
        self._news = [state_directory]
        if now - self._told_at >= TELL_SECONDS:
            self._told_at = now
            self.flush()

    def flush(self) -> None:
        """Tell what was not told yet."""
        news, self._news = self._news, []
        for state_directory in news:
            self._tell(state_directory)
