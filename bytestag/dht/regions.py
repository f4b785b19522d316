"""RegionMap: which nodes are closest to a key, from few look-ups (pure).

A finished look-up knows *every* node within the distance of its farthest result. Keys in the same
subtree as its target share that knowledge, so a whole region of keys costs one look-up; two
explored halves are one explored whole. Whoever goes through many keys in their order sweeps the
key space once, whatever their number (libp2p's "provide sweep").
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from bytestag.config import K
from bytestag.dht.routing import KEY_END, Contact

REGIONS_MAX = 4096
MERGED_CONTACTS_MAX = 4 * K
"""Larger regions are not made ahead of need: each key would be compared with all of it."""


@dataclass(slots=True, order=True)
class _Region:
    """A subtree of the key space and all nodes in it."""

    low: int
    size: int
    contacts: list[Contact] = field(compare=False)

    @property
    def end(self) -> int:
        return self.low + self.size

    @property
    def sibling(self) -> tuple[int, int]:
        """The other half of the subtree above, as (low, end)."""
        low = self.low ^ self.size
        return low, low + self.size


class RegionMap:
    """Regions that a run of look-ups has explored; they do not overlap."""

    def __init__(self) -> None:
        self._regions: list[_Region] = []

    def learn(self, target: bytes, contacts: list[Contact], *, is_complete: bool) -> bool:
        """Take the contacts closest to ``target``, all there are if ``is_complete``.

        Returns whether the target lies in an explored region now.
        """
        goal = int.from_bytes(target, "big")
        if is_complete:
            self._regions = [_Region(0, KEY_END, contacts)]
            return True
        bits = (contacts[-1].long_id ^ goal).bit_length() - 1 if contacts else -1
        if bits < 0:
            return False
        low = goal >> bits << bits
        known = self._region_of(goal)
        if known is not None and known.size >= 1 << bits:
            return True
        region = _Region(
            low, 1 << bits, [c for c in contacts if low <= c.long_id < low + (1 << bits)]
        )
        self._regions = [r for r in self._regions if not region.low <= r.low < region.end]
        insort(self._regions, region)
        while len(region.contacts) <= MERGED_CONTACTS_MAX and self._is_explored(*region.sibling):
            region = self._merge(region)
        while len(self._regions) > REGIONS_MAX:  # keys come in order: behind us is what is old
            del self._regions[0 if self._regions[0] is not region else -1]
        return True

    def closest(
        self, key: bytes, count: int, accept: Callable[[Contact], bool]
    ) -> list[Contact] | None:
        """Return the acceptable contacts closest to a key, closest first.

        None if no explored region holds at least ``count`` of them for certain.
        """
        goal = int.from_bytes(key, "big")
        region = self._region_of(goal)
        if region is None:
            return None
        inside = list(filter(accept, region.contacts))
        while len(inside) < count and region.size < KEY_END:
            if not self._is_explored(*region.sibling):
                return None
            region = self._merge(region)
            inside = list(filter(accept, region.contacts))
        return sorted(inside, key=lambda contact: contact.long_id ^ goal)

    def best_known(
        self, key: bytes, count: int, accept: Callable[[Contact], bool]
    ) -> list[Contact]:
        """Return the closest acceptable contacts around a key, complete or not."""
        goal = int.from_bytes(key, "big")
        at = bisect_right(self._regions, goal, key=lambda region: region.low) - 1
        beside = self._regions[max(at - 1, 0) : at + 2]
        known = [c for region in beside for c in region.contacts if accept(c)]
        return heapq.nsmallest(count, known, key=lambda c: c.long_id ^ goal)

    def gap(self, key: bytes) -> bytes:
        """Return what to look up next to know more about a key: itself, or a place beside it."""
        goal = int.from_bytes(key, "big")
        region = self._region_of(goal)
        if region is not None:
            at, end = region.sibling
            for explored in self._inside(at, end):
                if explored.low > at:
                    break
                at = explored.end
            goal = at if at < end else goal
        return goal.to_bytes(20, "big")

    def covers(self, key: bytes) -> bool:
        """Whether a key lies in an explored region."""
        return self._region_of(int.from_bytes(key, "big")) is not None

    # --- Inside ----------------------------------------------------------------------------------

    def _region_of(self, goal: int) -> _Region | None:
        at = bisect_right(self._regions, goal, key=lambda region: region.low) - 1
        if at < 0 or self._regions[at].end <= goal:
            return None
        return self._regions[at]

    def _inside(self, low: int, end: int) -> list[_Region]:
        first = bisect_right(self._regions, low - 1, key=lambda region: region.low)
        last = bisect_right(self._regions, end - 1, key=lambda region: region.low)
        return self._regions[first:last]

    def _is_explored(self, low: int, end: int) -> bool:
        return low >= 0 and sum(region.size for region in self._inside(low, end)) == end - low

    def _merge(self, region: _Region) -> _Region:
        """Join a region with its sibling, all of which is explored."""
        low, end = region.sibling
        contacts = [*region.contacts, *(c for r in self._inside(low, end) for c in r.contacts)]
        whole = _Region(min(region.low, low), 2 * region.size, contacts)
        self._regions = [r for r in self._regions if not whole.low <= r.low < whole.end]
        insort(self._regions, whole)
        return whole
