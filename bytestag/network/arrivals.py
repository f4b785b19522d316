"""Arrivals: which datagrams of which trains came, to be acknowledged (pure)."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from bytestag.network.frames import UNIT_PAIRS_MAX, Units

TRAINS_REMEMBERED_MAX = 256
REPEATED_PAIRS = 4
"""At least so many of the newest trains are acknowledged again."""
TRAINS_AT_ONCE = 16
ACK_SECONDS = 0.001
"""One acknowledgement in this time tells enough, of up to so many trains."""


class TrainReceiver:
    """The bitmaps of trains that came in."""

    def __init__(self) -> None:
        self._bitmaps: OrderedDict[int, int] = OrderedDict()
        self._fresh: dict[int, None] = {}
        self._last: list[int] = []
        """What the last acknowledgement was the first to tell of."""
        self._told_at = -ACK_SECONDS

    def receive(self, train: int, index: int) -> None:
        """A segment came and was kept (or is not needed any more)."""
        self.receive_many(train, 1 << index)

    def receive_many(self, train: int, indices: int) -> None:
        """Segments came: a bitmap of their indices."""
        self._bitmaps[train] = self._bitmaps.get(train, 0) | indices
        self._fresh[train] = None
        if len(self._fresh) > TRAINS_REMEMBERED_MAX:
            del self._fresh[next(iter(self._fresh))]
        if len(self._bitmaps) > TRAINS_REMEMBERED_MAX:
            self._bitmaps.popitem(last=False)

    def next_deadline(self) -> float | None:
        """Return when :meth:`units_to_send` has something to send, if it has."""
        return self._told_at + ACK_SECONDS if self._fresh else None

    def units_to_send(self, now: float) -> Iterator[Units]:
        """Yield what came since the last time, and some trains before, lest an ACK was lost.

        The first at once; while many come, some of them together.
        """
        is_soon = now < self._told_at + ACK_SECONDS and len(self._fresh) < TRAINS_AT_ONCE
        if not self._fresh or is_soon:
            return
        self._told_at = now
        newest = itertools.islice(reversed(self._bitmaps), REPEATED_PAIRS)
        told, self._last = self._last, list(self._fresh)
        self._fresh |= dict.fromkeys([*told, *newest])
        pairs = [(train, self._bitmaps[train]) for train in self._fresh if train in self._bitmaps]
        self._fresh = {}
        for start in range(0, len(pairs), UNIT_PAIRS_MAX):
            yield Units(tuple(pairs[start : start + UNIT_PAIRS_MAX]))
