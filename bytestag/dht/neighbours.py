"""Neighbours: the nodes closest to many keys, for the length of one job (shell).

Made anew for each job, because what it learnt grows old: a dead donor must not be counted on in the
next one.
"""

from __future__ import annotations

from collections.abc import Callable

from bytestag.config import K
from bytestag.dht.network import DHTNetwork
from bytestag.dht.regions import RegionMap
from bytestag.dht.routing import Contact
from bytestag.keys import KeyBytes


class Neighbours:
    """Looks up a key only if no earlier look-up of the job covers its region."""

    def __init__(self, network: DHTNetwork) -> None:
        self._network = network
        self._regions = RegionMap()

    async def donors(self, key: KeyBytes, count: int) -> list[Contact]:
        """Return donors, closest first: at least ``count`` if there are as many near the key."""
        return await self._closest(key, count, lambda contact: contact.is_donor)

    async def nodes(self, key: KeyBytes, count: int = K) -> list[Contact]:
        """Return nodes of any kind, closest first."""
        return (await self._closest(key, count, lambda contact: True))[:count]

    async def _closest(
        self, key: KeyBytes, count: int, accept: Callable[[Contact], bool]
    ) -> list[Contact]:
        known = self._regions.closest(key, count, accept)
        if known is not None:
            return known
        outcome = await self._network.lookup(key)
        self._regions.learn(key, outcome.contacts, is_complete=outcome.is_complete)
        return list(filter(accept, outcome.contacts))
