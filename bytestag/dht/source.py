"""Source: a node that a fetch asks, and for how much at a time (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from bytestag.config import VALUE_BYTES_MAX
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.network.links import GETS_PER_PEER_MAX

GETS_AT_FIRST = 8
GETS_MIN = 2
REQUESTS_MIN = 2
"""So many GETs of many values are under way at least, lest the path stands idle between them."""
GETS_NEAR = 48
"""More gain nothing where values wait for each other: 12 MiB in parts, which land meanwhile."""
FAR_SECONDS = 0.02
"""A round trip in which 12 MiB are still more than a path of a gigabit takes."""
PATIENCE_RTTS = 4
QUICK_SECONDS = 0.25
SLOW_SECONDS = 2.0


@dataclass(slots=True)
class Source:
    """One of those who may have what is wanted."""

    contact: Contact
    active: int = 0
    most: int = GETS_AT_FIRST
    """How many values it is asked for at one time."""
    mistrusted_until: float = 0.0
    fault: BytestagError | None = None
    """Why it is mistrusted."""
    run_bytes_max: int = VALUE_BYTES_MAX
    """How much a GET of many values may ask for; a session tells."""
    slowed_at: float = 0.0
    """Since when it is asked for less."""

    @property
    def share(self) -> int:
        """How many values the next request asks for: another is under way meanwhile."""
        return max(min(-(-self.most // REQUESTS_MIN), self.most - self.active), 1)

    def ask_less(self, began: float, now: float) -> None:
        """It is slow, or has no room for so many: others ask it as well.

        What began before less was asked for says nothing of that.
        """
        if began >= self.slowed_at:
            self.most, self.slowed_at = max(self.most // 2, GETS_MIN), now

    def learn(self, began: float, now: float, rtt_seconds: float, values: int = 1) -> None:
        """Values took so long: ask for more at a time, unless they wait for each other.

        Far away a value takes a few round trips, however many are asked for: one to ask, one for
        what was lost. Over a slow path each would wait for all before it, longer than anybody has
        patience.
        """
        seconds = now - began
        is_far = rtt_seconds >= FAR_SECONDS and seconds < PATIENCE_RTTS * rtt_seconds
        if seconds > max(PATIENCE_RTTS * rtt_seconds, SLOW_SECONDS):
            self.ask_less(began, now)
        elif not is_far and self.most > GETS_NEAR:
            self.most = max(self.most - values, GETS_NEAR)
        elif 2 * (self.active + values) >= self.most and (is_far or seconds < QUICK_SECONDS):
            most = GETS_PER_PEER_MAX if is_far else max(self.most, GETS_NEAR)
            self.most = min(self.most + values, most)
