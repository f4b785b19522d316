"""Path MTU: how large a datagram the path to a peer takes (pure).

Found by padded pings that must be acknowledged, the next size when the last one was (RFC 8899). A
size that is larger than the network's own is refused by the system at once; so on the usual network
two sizes are tried in vain, and on one with jumbo frames, or on loopback, trains are of fewer and
larger datagrams: a tenth less processor time for each GiB, over loopback.
"""

from __future__ import annotations

from bytestag.config import DATAGRAM_BYTES_MAX, TRAIN_DATAGRAM_BYTES_MAX, UDP_BYTES_MAX

SIZES = (TRAIN_DATAGRAM_BYTES_MAX, 8952, UDP_BYTES_MAX)
"""Tried in turn: of Ethernet, of jumbo frames (9,000 less IPv6 and UDP headers), of loopback."""
TRIES = (3, 1, 1)
"""The first size is worth more than one datagram that may be lost by chance."""
WORTH = 16
"""A larger probe is sent after so many times its bytes."""


class PathMtu:
    """What is known of the path that is in use."""

    def __init__(self, most: int = UDP_BYTES_MAX) -> None:
        """No more than ``most`` bytes are tried."""
        self._sizes = [size for size in SIZES if size <= most]
        self.begin_anew()

    def begin_anew(self, delivered_bytes: int = 0) -> None:
        """Forget all: another path is in use, after so much was delivered."""
        self._begun_at = delivered_bytes
        self.datagram_bytes = DATAGRAM_BYTES_MAX
        """So much passes: until more is known what passes on nearly every path."""
        self._size = 0
        self._tries = 0
        self._probe: int | None = None

    def probe_bytes(self, delivered_bytes: int) -> int:
        """Return the size to try now, after so much was delivered; 0 if none.

        None is while a probe is under way, when all was tried, and while it would be much beside
        what the peer wants of us.
        """
        if self._probe is not None or self._size == len(self._sizes):
            return 0
        size = SIZES[self._size]
        is_cheap = not self._size or size * WORTH <= delivered_bytes - self._begun_at
        return size if is_cheap and self._tries < TRIES[self._size] else 0

    @property
    def probe(self) -> int | None:
        """The number of the probe under way."""
        return self._probe

    def probed(self, number: int) -> None:
        """A probe of :meth:`probe_bytes` was sent."""
        self._probe = number
        self._tries += 1

    def acknowledged(self) -> None:
        """The probe under way arrived."""
        self.datagram_bytes = SIZES[self._size]
        self._size, self._tries, self._probe = self._size + 1, 0, None

    def lost(self) -> None:
        """The probe under way did not arrive."""
        self._probe = None
