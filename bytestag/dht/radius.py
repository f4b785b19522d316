"""Radius: how far from itself a donor takes values, fitted to its space (pure).

A donor with room takes whatever it is offered. One that fills up keeps to what is nearest to it and
says so in its replies, so that publishers choose somebody else instead of being refused. Source:
the Portal network's radius; ours moves by whole bits, since what is kept cannot be evicted.
"""

from __future__ import annotations

from bytestag.dht.sizing import SizeEstimate
from bytestag.keys import BIT_SIZE

FULL = 0.95
"""Above this share of the quota the radius shrinks; refused values would come again and again."""
ROOMY = 0.80
"""Below this it grows."""
FIRST_RANKS = 4
"""A donor that becomes full begins at this many times the distance of the last copy's holder."""


class Radius:
    """The radius of one donor: keys within 2^bits of its ID."""

    def __init__(self, copies: int) -> None:
        self.bits = BIT_SIZE
        self._copies = copies

    def update(self, fill: float, size: SizeEstimate) -> None:
        """Take a step, every few minutes; ``fill`` is the share of the quota in use."""
        if fill >= FULL:
            expected = size.expected_distance(FIRST_RANKS * self._copies).bit_length()
            self.bits = max(min(self.bits, expected) - 1, 0)
        elif fill < ROOMY:
            self.bits = min(self.bits + 1, BIT_SIZE)


def is_within(bits: int, node: int, key: int) -> bool:
    """Return whether a key lies within 2^bits of a node."""
    return not (node ^ key) >> bits
