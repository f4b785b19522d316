"""How long the chain of referrals was that led a look-up to the closest node.

Look-ups are watched from outside: while :func:`watched_walks` lasts, the shortlist of each walk
notes who named whom first. Our own table's contacts have depth 1, whom they name 2, and so on: the
requests along the chain, the last one that to the node itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from bytestag.dht import walking
from bytestag.dht.lookup import Shortlist
from bytestag.dht.routing import Contact

WALKS_MAX = 1000


class WatchedShortlist(Shortlist):
    """A shortlist that notes depths."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.depths: dict[bytes, int] = {}
        self._referrer_depth = 0

    def add(self, contacts: Iterable[Contact]) -> None:
        contacts = list(contacts)
        for contact in contacts:
            self.depths.setdefault(contact.id, self._referrer_depth + 1)
        super().add(contacts)

    def receive_answer(self, contact: Contact, contacts: Iterable[Contact]) -> None:
        self._referrer_depth = self.depths.get(contact.id, 0)
        super().receive_answer(contact, contacts)
        self._referrer_depth = 0


class Walks:
    """The last walks, by target."""

    def __init__(self) -> None:
        self._shortlists: dict[bytes, WatchedShortlist] = {}

    def make(self, target: bytes, *arguments: Any, **options: Any) -> WatchedShortlist:
        """Stand in for the class :class:`Shortlist`."""
        shortlist = WatchedShortlist(target, *arguments, **options)
        self._shortlists[target] = shortlist
        if len(self._shortlists) > WALKS_MAX:
            del self._shortlists[next(iter(self._shortlists))]
        return shortlist

    def hops(self, target: bytes, node_id: bytes) -> int:
        """Return the depth at which the last walk to a target found a node; 0 if it did not."""
        return self._shortlists[target].depths.get(node_id, 0)


@contextlib.contextmanager
def watched_walks() -> Iterator[Walks]:
    """Watch all walks that begin meanwhile."""
    walks = Walks()
    walking.Shortlist = walks.make  # type: ignore[assignment, attr-defined]
    try:
        yield walks
    finally:
        walking.Shortlist = Shortlist  # type: ignore[attr-defined]
