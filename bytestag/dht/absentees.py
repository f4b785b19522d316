"""Absentees: who was there once and does not answer (pure).

Two halves of a network that a partition keeps apart forget each other within hours; when it ends,
nobody is left who could tell one half of the other. So each node asks one of those who went, at
random, from time to time. Nothing but an address is kept, and that not for ever.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from bytestag.config import DAY
from bytestag.crypto.identity import Address

ABSENTEES_MAX = 64
ABSENT_SECONDS_MAX = DAY


class Absentees:
    """Addresses that went silent, with when they did (monotonic seconds)."""

    def __init__(self) -> None:
        self._since: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def remember(self, address: Address, now: float) -> None:
        """Somebody at this address does not answer any more; the longest absent gives way."""
        self._since.setdefault(address, now)
        if len(self._since) > ABSENTEES_MAX:
            self._since.popitem(last=False)

    def has_answered(self, address: Address) -> None:
        """Somebody is there again."""
        self._since.pop(address, None)

    def choose(self, now: float, rng: random.Random) -> Address | None:
        """Return one to ask, if there is any."""
        while self._since and now - next(iter(self._since.values())) > ABSENT_SECONDS_MAX:
            self._since.popitem(last=False)
        return rng.choice(list(self._since)) if self._since else None
