"""Arrivals: which datagrams of which trains came, to be acknowledged (pure)."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator

from bytestag.network.frames import UNIT_PAIRS_MAX, Units

TRAINS_REMEMBERED_MAX = 256
REPEATED_PAIRS = 4
"""At least so many of the newest trains are acknowledged again."""


class TrainReceiver:
    """The bitmaps of trains that came in."""

    def __init__(self) -> None:
        self._bitmaps: OrderedDict[int, int] = OrderedDict()
        self._fresh: dict[int, None] = {}
        self._last: list[int] = []
        """What the last acknowledgement was the first to tell of."""

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

    def units_to_send(self) -> Iterator[Units]:
        """Yield what came since the last call, and some trains before, lest an ACK was lost."""
        if not self._fresh:
            return
        newest = itertools.islice(reversed(self._bitmaps), REPEATED_PAIRS)
        told, self._last = self._last, list(self._fresh)
        self._fresh |= dict.fromkeys([*told, *newest])
        pairs = [(train, self._bitmaps[train]) for train in self._fresh if train in self._bitmaps]
        self._fresh = {}
        for start in range(0, len(pairs), UNIT_PAIRS_MAX):
            yield Units(tuple(pairs[start : start + UNIT_PAIRS_MAX]))
