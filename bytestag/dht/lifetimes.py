"""How long a value is kept (pure). Facts: the 2012 rule; ``docs/protocol.rst``, "Lifetimes"."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bytestag.config import DAY, K
from bytestag.keys import BIT_SIZE

TTL_BASE_SECONDS = 86_490
GRANTS = ((0.50, 90 * DAY), (0.80, 7 * DAY), (0.95, DAY))
"""(share of the quota in use, longest grant) for values with a deposit."""


class Placement:
    """How well a node is placed for keys among its contacts: counted once, asked often."""

    def __init__(self, own: bytes, contacts: Iterable[bytes]) -> None:
        self._own = int.from_bytes(own, "big")
        self._buckets: list[list[int]] = [[] for _ in range(BIT_SIZE + 1)]
        for contact in contacts:
            number = int.from_bytes(contact, "big")
            self._buckets[self._bucket(number)].append(number)
        self._nearer = [0] * (BIT_SIZE + 1)
        for bucket in range(BIT_SIZE - 1, -1, -1):
            self._nearer[bucket] = self._nearer[bucket + 1] + len(self._buckets[bucket + 1])

    def _bucket(self, number: int) -> int:
        return BIT_SIZE - (self._own ^ number).bit_length()

    def closeness(self, key: bytes) -> int:
        """Return how many contacts are better placed for the key than we are.

        Those in buckets nearer to us than the key's, plus those of the key's bucket that are closer
        to it: 2012's estimate of how many nodes stand between us and the key.
        """
        goal = int.from_bytes(key, "big")
        distance, bucket = self._own ^ goal, self._bucket(goal)
        closer = sum(contact ^ goal < distance for contact in self._buckets[bucket])
        return self._nearer[bucket] + closer

    def time_to_live(self, key: bytes) -> int:
        """Return the seconds that we keep a value of this key without a deposit."""
        return time_to_live(self.closeness(key))


def time_to_live(better_placed: int) -> int:
    """Return the seconds that a value without a deposit is kept."""
    if better_placed < K:
        return TTL_BASE_SECONDS
    return round(TTL_BASE_SECONDS / math.exp(better_placed / K))


def granted_seconds(asked: float, fill: float) -> int:
    """Return how long a donor keeps a deposited value; 0 is a refusal. ``fill`` is in 0..1."""
    for share, longest in GRANTS:
        if fill < share:
            return int(min(asked, longest))
    return 0
