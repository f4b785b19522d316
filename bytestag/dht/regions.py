"""RegionMap: which nodes are closest to a key, from few look-ups (pure).

A finished look-up knows *every* node within the distance of its farthest result. Keys in the same
subtree as its target share that knowledge, so a whole region of keys costs one look-up.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from bytestag.dht.routing import Contact

REGIONS_MAX = 4096


@dataclass(slots=True, order=True)
class _Region:
    low: int
    high: int
    contacts: list[Contact] = field(compare=False)


class RegionMap:
    """Regions that a run of look-ups has explored."""

    def __init__(self) -> None:
        self._regions: list[_Region] = []

    def learn(self, target: bytes, contacts: list[Contact], *, is_complete: bool) -> None:
        """Take the result of a look-up: its closest contacts, all of them if ``is_complete``."""
        goal = int.from_bytes(target, "big")
        if is_complete:
            self._regions = [_Region(0, 2**160 - 1, contacts)]
            return
        if not contacts:
            return
        bits = (contacts[-1].long_id ^ goal).bit_length() - 1
        if bits < 0:
            return
        low = goal >> bits << bits
        region = _Region(low, low + (1 << bits) - 1, contacts)
        overlapping = [r for r in self._regions if r.low <= region.high and r.high >= region.low]
        for old in overlapping:
            self._regions.remove(old)
        insort(self._regions, region)
        del self._regions[REGIONS_MAX:]

    def closest(
        self, key: bytes, count: int, accept: Callable[[Contact], bool]
    ) -> list[Contact] | None:
        """Return the acceptable contacts closest to a key, closest first.

        None if no explored region holds at least ``count`` of them for certain.
        """
        goal = int.from_bytes(key, "big")
        at = bisect_right(self._regions, goal, key=lambda region: region.low) - 1
        if at < 0 or self._regions[at].high < goal:
            return None
        region = self._regions[at]
        is_all = region.high - region.low == 2**160 - 1
        inside = [
            c for c in region.contacts if accept(c) and region.low <= c.long_id <= region.high
        ]
        if len(inside) < count and not is_all:
            return None
        return heapq.nsmallest(len(inside), inside, key=lambda c: c.long_id ^ goal)
