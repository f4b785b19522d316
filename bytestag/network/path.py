"""Path: where a peer is, and where it says that it is now (pure).

Who is seen elsewhere must send a nonce back from there before anything else is sent to it
(RFC 9000, 8.2).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from bytestag.crypto.identity import Address

NONCE_BYTES = 8


class Path:
    """The address of a peer, and one candidate for another."""

    def __init__(self, address: Address, random_bytes: Callable[[int], bytes]) -> None:
        self.address = address
        self._random_bytes = random_bytes
        self._candidate: Address | None = None
        self._nonce = b""
        self._is_challenge_due = False

    def seen_at(self, address: Address) -> None:
        """Somebody who knows our keys is elsewhere now: ask him to answer there."""
        if self._candidate != address:
            self._candidate, self._nonce = address, self._random_bytes(NONCE_BYTES)
        self._is_challenge_due = True

    def take_challenge(self) -> tuple[Address, bytes] | None:
        """Return where to send which nonce now, once for each time that somebody was seen there."""
        if self._candidate is None or not self._is_challenge_due:
            return None
        self._is_challenge_due = False
        return self._candidate, self._nonce

    def prove(self, nonce: bytes, address: Address) -> bool:
        """Take the answer to a challenge; return whether the peer is there from now on."""
        if address != self._candidate or not hmac.compare_digest(nonce, self._nonce):
            return False
        self.address, self._candidate = address, None
        return True
