"""Neighbours: the nodes closest to many keys, for the length of one job (shell).

Made anew for each job, because what it learnt grows old: a dead donor must not be counted on in the
next one. Jobs that take their keys in order explore each region of the key space once.
"""

from __future__ import annotations

from collections.abc import Callable

from bytestag.config import K
from bytestag.dht.network import DHTNetwork
from bytestag.dht.regions import RegionMap
from bytestag.dht.routing import Contact
from bytestag.keys import KeyBytes

GAPS_MAX = 8
"""Look-ups for one key: where donors are rare, the nearest few must do."""


class Neighbours:
    """Looks up a key only if what the job explored so far does not tell.

    Donors are asked before they are named. Other ``nodes`` are taken from what their neighbours
    say, three of whom were asked: whoever then turns out to be gone is for the caller to skip.
    """

    def __init__(self, network: DHTNetwork) -> None:
        self._network = network
        self._donors = RegionMap()
        self._nodes = RegionMap()

    async def donors(self, key: KeyBytes, count: int) -> list[Contact]:
        """Return donors, closest first: at least ``count`` if there are as many near the key."""
        return await self._closest(self._donors, key, count, _is_donor, is_thorough=True)

    async def nodes(self, key: KeyBytes, count: int = K) -> list[Contact]:
        """Return nodes of any kind, closest first."""
        nodes = await self._closest(self._nodes, key, count, _is_any, is_thorough=False)
        return nodes[:count]

    async def _closest(
        self,
        regions: RegionMap,
        key: KeyBytes,
        count: int,
        accept: Callable[[Contact], bool],
        *,
        is_thorough: bool,
    ) -> list[Contact]:
        for _ in range(GAPS_MAX):
            known = regions.closest(key, count, accept)
            if known is not None:
                return known
            target = KeyBytes(regions.gap(key))
            outcome = await self._network.lookup(
                target, is_thorough=is_thorough, seeds=regions.best_known(target, K, _is_any)
            )
            found = outcome.contacts if is_thorough else outcome.known
            is_complete = outcome.is_complete if is_thorough else len(found) < K
            if not regions.learn(target, found, is_complete=is_complete and bool(found)):
                break
        return regions.best_known(key, count, accept)


def _is_donor(contact: Contact) -> bool:
    return contact.is_donor


def _is_any(contact: Contact) -> bool:
    return True
