"""Early: the first question to a peer travels with the INIT, and saves a round trip (pure).

Only what changes nothing may: a GET. Whoever records an INIT could send it again, and would be
answered by a challenge; were it forgotten by then, the value would go once more to the address
that asked for it. Source: RFC 8446, 2.3 and 8; the bound on what is sent before the initiator is
heard again, RFC 9000, 8.1.
"""

from __future__ import annotations

from collections.abc import Callable

from bytestag.network import messages as m

EARLY_BYTES_MAX = 64 * 1024
"""Sent to an initiator before his first CONTROL: his address is proven, not that he listens."""
EARLY_TRAIN_SEGMENTS = 4
EARLY_QUESTION_BYTES_MAX = 600
"""So the INIT stays one datagram of 1,200 bytes."""
EARLY_SLOT = 0
"""The first that a session has."""


class Early:
    """A GET for whoever may have no session yet. ``length`` bytes are wanted at most.

    Once the peer has promised to answer it, it is under way, and somebody must take it
    (:meth:`take`) or have it ended (:meth:`drop`).
    """

    def __init__(
        self, id_: bytes, key: bytes, index: bytes | None, selector: bytes, length: int
    ) -> None:
        self.question = m.Get(id_, EARLY_SLOT, key, index, selector, 0, length)
        packed = m.encode(self.question)
        self.packed = packed if len(packed) <= EARLY_QUESTION_BYTES_MAX else b""
        """The message; nothing if it is too long to go along."""
        self._end: Callable[[], None] | None = None

    def begin(self, end: Callable[[], None]) -> None:
        """It is under way; ``end`` is called if nobody takes it."""
        self._end = end

    def take(self) -> bool:
        """Whether it is under way and was not taken before: the caller awaits its answer."""
        is_under_way, self._end = self._end is not None, None
        return is_under_way

    def drop(self) -> None:
        """End it unless it was taken; idempotent."""
        end, self._end = self._end, None
        if end is not None:
            end()
