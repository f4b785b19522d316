"""Uplinks: how fast a host sends, and what waits for its turn (pure)."""

from __future__ import annotations


class Uplink:
    """One host's way out: so many bytes a second, and a queue whose tail is dropped."""

    __slots__ = ("_free_at", "bytes_per_second", "queue_bytes")

    def __init__(self, bytes_per_second: float, queue_bytes: int) -> None:
        self.bytes_per_second = bytes_per_second
        """0 is without limit."""
        self.queue_bytes = queue_bytes
        self._free_at = 0.0

    def receive(self, size: int, now: float) -> float | None:
        """Take a datagram of ``size`` bytes; return the seconds until it is out, None if dropped.

        One that finds nobody waiting is taken however long it is.
        """
        if not self.bytes_per_second:
            return 0.0
        began = max(self._free_at, now)
        if began > now and (began - now) * self.bytes_per_second + size > self.queue_bytes:
            return None
        self._free_at = began + size / self.bytes_per_second
        return self._free_at - now
