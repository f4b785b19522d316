"""Cards: the address card that we show, and those that we were shown (shell: it reads the clock).

A signature and a check cost 170 µs together, so ours is made once an hour, and theirs are checked
once and remembered.
"""

from __future__ import annotations

from collections.abc import Sequence

from bytestag.config import HOUR, Config
from bytestag.crypto.identity import Address, Card, Identity, make_card, read_card
from bytestag.errors import PacketError
from bytestag.events.runtime import Runtime
from bytestag.recent import Recent

CARDS_REMEMBERED_MAX = 2048


class Cards:
    """Makes and checks address cards for one node."""

    def __init__(
        self, identity: Identity, config: Config, runtime: Runtime, capabilities: int
    ) -> None:
        self._identity = identity
        self._config = config
        self._runtime = runtime
        self._capabilities = capabilities
        self._own: Card | None = None
        self._checked: Recent[bytes, Card] = Recent(CARDS_REMEMBERED_MAX)

    def __len__(self) -> int:
        return len(self._checked)

    def own(self, addresses: Sequence[Address]) -> Card:
        """Return our card of this hour with these addresses."""
        now = self._runtime.wall()
        card = self._own
        if card is None or card.hour != int(now // HOUR) or card.addresses != tuple(addresses):
            card = self._own = make_card(
                self._identity, self._config.network_id, list(addresses), self._capabilities, now
            )
        return card

    def check(self, packed: bytes) -> Card:
        """Return a card whose signature is right and which is fresh.

        Raises:
            PacketError: it is not, or it is malformed.
        """
        card = self._checked.get(packed)
        now = self._runtime.wall()
        if card is None or not card.is_fresh(now):
            card = self._runtime.remembered(
                read_card, packed, self._config.network_id, self._config.id_pow_bits
            )
            if not card.is_fresh(now):
                raise PacketError("stale card")
            self._checked.put(packed, card)
        return card
