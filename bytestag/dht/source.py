"""Source: a node that a fetch asks, and for how much at a time (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.network.links import GETS_PER_PEER_MAX

GETS_AT_FIRST = 16
"""4 MiB in parts: what a round trip of 50 ms takes at 600 Mbit/s."""


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

    def learn(self, seconds: float, rtt_seconds: float) -> None:
        """A value took so long: ask for more at a time, unless they wait for each other.

        Far away a value takes little more than a round trip, however many are asked for.
        """
        if seconds > 4 * rtt_seconds:
            self.most = max(self.most - 1, GETS_AT_FIRST)
        elif seconds < 2 * rtt_seconds and self.active + 1 >= self.most:
            self.most = min(self.most + 1, GETS_PER_PEER_MAX)
