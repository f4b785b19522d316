"""Neighbours: the nodes closest to many keys, for the length of one job (shell).

Made anew for each job, because what it learnt grows old: a dead donor must not be counted on in the
next one. Jobs that take their keys in order explore each region of the key space once.
"""

from __future__ import annotations

from collections.abc import Callable

from bytestag.config import ALPHA, BETA, K
from bytestag.dht.network import DHTNetwork
from bytestag.dht.radius import is_within
from bytestag.dht.regions import RegionMap
from bytestag.dht.routing import Contact
from bytestag.keys import KeyBytes

GAPS_MAX = 8
"""Look-ups for one key: where donors are rare, the nearest few must do."""


class Neighbours:
    """Looks up a key only if what the job explored so far does not tell.

    With ``is_thorough`` nobody is named who did not answer. Without, three neighbours are asked
    and taken at their word: whoever then turns out to be gone is for the caller to notice.
    """

    def __init__(self, network: DHTNetwork) -> None:
        self._network = network
        self._regions = RegionMap()
        self._named = RegionMap()  # what was only heard of is kept apart

    def covers(self, key: bytes) -> bool:
        """Whether look-ups of this job told of all nodes around a key."""
        return self._regions.covers(key)

    async def donors(self, key: KeyBytes, count: int) -> list[Contact]:
        """Return donors that take this key, closest first; ``count`` if there are as many near."""
        goal = key.integer

        def takes(contact: Contact) -> bool:
            return contact.is_donor and is_within(contact.radius, contact.long_id, goal)

        return await self._closest(key, count, takes, is_thorough=True)

    async def nodes(
        self, key: KeyBytes, count: int = K, *, is_thorough: bool = True
    ) -> list[Contact]:
        """Return nodes of any kind, closest first."""
        return (await self._closest(key, count, _is_any, is_thorough=is_thorough))[:count]

    async def _closest(
        self,
        key: KeyBytes,
        count: int,
        accept: Callable[[Contact], bool],
        *,
        is_thorough: bool,
    ) -> list[Contact]:
        if self._network.protocol.router.is_empty:
            return []  # a look-up for each of a million keys would find nobody
        regions = self._regions if is_thorough else self._named
        for _ in range(GAPS_MAX):
            known = regions.closest(key, count, accept)
            if known is not None:
                return known
            target = KeyBytes(regions.gap(key))
            outcome = await self._network.lookup(
                target,
                is_thorough=is_thorough,
                seeds=regions.best_known(target, K, _is_any),
                alpha=ALPHA if is_thorough else BETA,
            )
            found = outcome.contacts if is_thorough else outcome.known
            is_complete = outcome.is_complete if is_thorough else len(found) < K
            if not regions.learn(target, found, is_complete=is_complete and bool(found)):
                break
        return regions.best_known(key, count, accept)


def _is_any(contact: Contact) -> bool:
    return True
