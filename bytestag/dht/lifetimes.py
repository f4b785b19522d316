"""How long a value is kept (pure). Facts: the 2012 rule; ``docs/protocol.rst``, "Lifetimes"."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bytestag.config import DAY, K
from bytestag.keys import KeyBytes, compute_bucket_number

TTL_BASE_SECONDS = 86_490
GRANTS = ((0.50, 90 * DAY), (0.80, 7 * DAY), (0.95, DAY))
"""(share of the quota in use, longest grant) for values with a deposit."""


def closeness(own: KeyBytes, key: KeyBytes, contacts: Iterable[KeyBytes]) -> int:
    """Return how many contacts are better placed for the key than we are.

    Those in buckets nearer to us than the key's, plus those of the key's bucket that are closer to
    it: 2012's estimate of how many nodes stand between us and the key.
    """
    bucket = compute_bucket_number(own, key)
    distance = own.distance_int(key)
    count = 0
    for contact in contacts:
        number = compute_bucket_number(own, contact)
        if number > bucket or (number == bucket and contact.distance_int(key) < distance):
            count += 1
    return count


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
