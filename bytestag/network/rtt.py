"""Round-trip time of one path: smoothed value, deviation, probe time-out (pure; RFC 6298, 9002)."""

from __future__ import annotations

INITIAL_SECONDS = 0.1
GRANULARITY = 0.001
DELAY_MAX = 0.025
"""How long the other end may hold an acknowledgement back, with scheduling."""


class Rtt:
    """Estimator fed with samples in seconds."""

    __slots__ = ("_backoff", "deviation", "smoothed")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: the path is another."""
        self.smoothed = INITIAL_SECONDS
        self.deviation = INITIAL_SECONDS / 2
        self._backoff = -1  # no sample yet

    def sample(self, seconds: float) -> None:
        """Take a measured round trip."""
        if self._backoff < 0:
            self.smoothed, self.deviation = seconds, seconds / 2
        else:
            self.deviation += (abs(self.smoothed - seconds) - self.deviation) / 4
            self.smoothed += (seconds - self.smoothed) / 8
        self._backoff = 0

    @property
    def probe_timeout(self) -> float:
        """Seconds without an acknowledgement after which a probe is sent; doubles each time."""
        base = self.smoothed + max(4 * self.deviation, GRANULARITY) + DELAY_MAX
        return max(base, min(base * (1 << max(self._backoff, 0)), 3.0))

    @property
    def reordering(self) -> float:
        """How much later than its successor a datagram may come before it counts as lost."""
        return max(self.smoothed / 4, GRANULARITY)

    @property
    def backoffs(self) -> int:
        """Probe time-outs since the last answer."""
        return max(self._backoff, 0)

    def back_off(self) -> None:
        """A probe time-out passed."""
        self._backoff = max(self._backoff, 0) + 1
