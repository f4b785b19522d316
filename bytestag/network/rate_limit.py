"""RateLimit: so many bytes a second, of one peer or of all together (pure)."""

from __future__ import annotations

import math

BURST_SECONDS = 0.05
"""What was not used for so long may be used at once: timers are not exact."""


class RateLimit:
    """A bucket that fills with ``bytes_per_second``. Times are seconds."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._next = -math.inf

    @property
    def may_at(self) -> float:
        """From when on more may be taken."""
        return self._next

    def take(self, size: int, now: float) -> float:
        """Take so many bytes, in line after all that were taken; return when they may go."""
        begin = max(self._next, now - BURST_SECONDS)
        self._next = begin + size / self._rate
        return begin


def limits_of(*bytes_per_second: int) -> list[RateLimit]:
    """Return a limit for each rate that is one: 0 is no limit."""
    return [RateLimit(rate) for rate in bytes_per_second if rate]
