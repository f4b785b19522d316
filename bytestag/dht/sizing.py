"""SizeEstimate: how many nodes a network has, from what look-ups found anyway (pure).

Node IDs are uniform: if the k-th closest node to a random key is at distance d, the network has
about (k − 1) · 2^160 / d nodes. One look-up is off by a quarter, sixteen by a fifteenth (pubky's
``dht_size_estimate``; simulated: 23 % and 6 %).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bytestag.dht.routing import KEY_END, Contact

LOOKUPS_COUNTED = 32


class SizeEstimate:
    """A running estimate over the last look-ups."""

    def __init__(self) -> None:
        self._inverses: deque[float] = deque(maxlen=LOOKUPS_COUNTED)
        self._known = 0

    def learn(self, target: bytes, contacts: Sequence[Contact], *, is_complete: bool) -> None:
        """Take the contacts closest to a random target, all there are if ``is_complete``."""
        if is_complete:
            self._inverses.clear()
            self._known = len(contacts)
        elif len(contacts) > 1:
            distance = contacts[-1].long_id ^ int.from_bytes(target, "big")
            self._inverses.append(distance / (len(contacts) - 1) / KEY_END)

    @property
    def nodes(self) -> float:
        """The number of nodes beside us; 0 while nothing is known."""
        if not self._inverses:
            return float(self._known)
        return len(self._inverses) / sum(self._inverses)

    def expected_distance(self, rank: int) -> int:
        """Return how far the ``rank``-th closest node to a key should be."""
        return int(rank / self.nodes * KEY_END) if self.nodes > rank else KEY_END
