"""Reachability: which addresses our card may claim (pure).

An explicit host is known from the start. Otherwise peers tell us where our requests come from: one
suffices in a local network; in the open one three in distinct /24s (/48s) must agree on a global
address.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from functools import lru_cache

from bytestag.config import ADDRESSES_MAX
from bytestag.crypto.identity import Address, pack_address
from bytestag.dht.routing import address_group

VOTES_NEEDED = 3
VOTED_MAX = 16


def is_unspecified(host: str) -> bool:
    """Return whether a bound host stands for every address of the machine."""
    return ipaddress.ip_address(host).is_unspecified


@lru_cache(maxsize=65_536)
def is_eligible(host: str, *, is_local: bool) -> bool:
    """Return whether a host may stand on a card or in a routing table of such a network."""
    ip = ipaddress.ip_address(host)
    return not ip.is_unspecified and not ip.is_multicast and (is_local or ip.is_global)


@lru_cache(maxsize=65_536)
def is_loopback(host: str) -> bool:
    """Return whether a host is this machine itself."""
    return ipaddress.ip_address(host).is_loopback


class Reachability:
    """Votes on our own addresses."""

    def __init__(self, bound: Address, *, is_local: bool) -> None:
        self._is_local = is_local
        self._known: list[Address] = []
        self._packed: set[bytes] = set()
        self._votes: OrderedDict[Address, set[str]] = OrderedDict()
        if not is_unspecified(bound[0]) and self._is_eligible(bound):
            self._known.append(bound)
            self._packed.add(pack_address(bound))
        self._given = len(self._known)

    @property
    def is_known(self) -> bool:
        """Whether the card lists any address."""
        return bool(self._known)

    @property
    def addresses(self) -> list[Address]:
        """What the card lists; empty while we are a client."""
        return list(self._known)

    def knows(self, packed: bytes) -> bool:
        """Whether a packed address is one of ours."""
        return packed in self._packed

    def vote(self, voter: Address, observed: Address) -> bool:
        """A peer saw us at ``observed``; return whether our addresses changed by it."""
        if observed in self._known or not self._is_eligible(observed):
            return False
        voters = self._votes.setdefault(observed, set())
        self._votes.move_to_end(observed)
        while len(self._votes) > VOTED_MAX:
            self._votes.popitem(last=False)
        voters.add(voter[0] if self._is_local else address_group(voter[0]))
        if len(voters - {""}) < (1 if self._is_local else VOTES_NEEDED):
            return False
        del self._votes[observed]
        self._known.append(observed)
        if len(self._known) > ADDRESSES_MAX:  # the oldest that was only observed
            del self._known[self._given]
        self._packed = set(map(pack_address, self._known))
        return True

    def _is_eligible(self, address: Address) -> bool:
        return is_eligible(address[0], is_local=self._is_local)
