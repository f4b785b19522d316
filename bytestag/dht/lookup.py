"""Shortlist: whom to ask next in a look-up, and when it is over (pure).

Unlike lock-step Kademlia: ``alpha`` requests are outstanding *among the closest k not yet
answered*; a slow one frees its place, its late answer still counts; one that failed never comes
back, whoever mentions it again.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from bytestag.config import ALPHA, BETA, K
from bytestag.dht.routing import Contact

CANDIDATES_MAX = 100


class State(enum.Enum):
    """What is known of a contact in one look-up."""

    NEW = enum.auto()
    ASKED = enum.auto()
    SLOW = enum.auto()
    """Past its soft time-out: asked once more, its place is free."""
    LATE = enum.auto()
    """As long again: the walk does not wait for it."""
    ANSWERED = enum.auto()
    FAILED = enum.auto()


@dataclass(slots=True, eq=False)
class _Candidate:
    contact: Contact
    state: State = State.NEW


class Shortlist:
    """One look-up of ``target``.

    ``alpha`` grows with each contact that is slow: where some are dead, more are asked at once.
    With ``is_thorough`` it ends when the k closest have answered (to store there), without when
    the ``beta`` closest have (to find something).
    """

    def __init__(
        self,
        target: bytes,
        *,
        k: int = K,
        alpha: int = ALPHA,
        beta: int = BETA,
        is_thorough: bool = True,
        exclude: bytes = b"",
    ) -> None:
        self.target = target
        self._goal = int.from_bytes(target, "big")
        self._k = k
        self._alpha = alpha
        self._is_thorough = is_thorough
        self._needed = k if is_thorough else beta
        self._exclude = exclude
        self._candidates: list[_Candidate] = []
        self._distances: list[int] = []  # of the candidates, in their order
        self._by_id: dict[bytes, _Candidate] = {}
        self._failed: set[bytes] = set()
        self._is_any_late = False
        self._new = 0

    # --- Getters ---------------------------------------------------------------------------------

    @property
    def asked(self) -> int:
        """How many contacts were asked."""
        known = sum(c.state is not State.NEW for c in self._candidates)
        return known + len(self._failed)

    @property
    def answered(self) -> int:
        """How many contacts answered."""
        return sum(c.state is State.ANSWERED for c in self._candidates)

    @property
    def has_unanswered(self) -> bool:
        """Whether anybody that was mentioned has not answered (and not failed either)."""
        return any(c.state is not State.ANSWERED for c in self._candidates)

    def closest(self) -> list[Contact]:
        """Return the k closest contacts that answered, closest first."""
        answered = [c.contact for c in self._candidates if c.state is State.ANSWERED]
        return answered[: self._k]

    def known(self) -> list[Contact]:
        """Return the k closest contacts that have not failed, asked or not, closest first."""
        return [candidate.contact for candidate in self._candidates[: self._k]]

    @property
    def is_finished(self) -> bool:
        """Whether enough of the closest have answered, or only ones too slow are left."""
        answered = 0
        is_any_left = False
        for candidate in self._nearest():
            if candidate.state is State.ANSWERED:
                answered += 1
                if answered == self._needed:
                    return True
            elif candidate.state is State.SLOW and not self._is_thorough:
                is_any_left = True
            else:
                return False
        is_any_left |= self._is_any_late and any(c.state is State.LATE for c in self._candidates)
        return answered > 0 or not is_any_left

    def _nearest(self) -> list[_Candidate]:
        """The k closest that the walk waits for: those that are late hold no place among them."""
        if not self._is_any_late:
            return self._candidates[: self._k]
        waited_for = (c for c in self._candidates if c.state is not State.LATE)
        return list(islice(waited_for, self._k))

    # --- Commands --------------------------------------------------------------------------------

    def wants(self, node_id: bytes) -> bool:
        """Whether a contact with this ID would be news, and among the 100 closest."""
        if node_id in self._by_id or node_id in self._failed or node_id == self._exclude:
            return False
        if self._new < CANDIDATES_MAX:
            return True
        last = self._last_new()
        return int.from_bytes(node_id, "big") ^ self._goal < self._distances[last]

    def add(self, contacts: Iterable[Contact]) -> None:
        """Learn of contacts; the 100 closest are kept, and whoever was asked."""
        for contact in contacts:
            if not self.wants(contact.id):
                continue
            distance = contact.long_id ^ self._goal
            candidate = self._by_id[contact.id] = _Candidate(contact)
            at = bisect_left(self._distances, distance)
            self._distances.insert(at, distance)
            self._candidates.insert(at, candidate)
            self._new += 1
            if self._new > CANDIDATES_MAX:
                self._remove(self._last_new())
                self._new -= 1

    def _last_new(self) -> int:
        """Who goes first: the farthest that was not asked. Liars cannot crowd out who answered."""
        at = len(self._candidates) - 1
        while self._candidates[at].state is not State.NEW:
            at -= 1
        return at

    def _remove(self, at: int) -> None:
        del self._distances[at]
        candidate = self._candidates.pop(at)
        del self._by_id[candidate.contact.id]

    def contacts_to_ask(self) -> list[Contact]:
        """Return whom to ask now; they count as asked."""
        nearest = self._nearest()
        free = self._alpha - sum(c.state is State.ASKED for c in nearest)
        chosen = [c for c in nearest if c.state is State.NEW][: max(free, 0)]
        for candidate in chosen:
            candidate.state = State.ASKED
        self._new -= len(chosen)
        return [candidate.contact for candidate in chosen]

    def receive_answer(self, contact: Contact, contacts: Iterable[Contact]) -> None:
        """A contact answered, with others that are close to the target."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None:
            self._new -= candidate.state is State.NEW
            candidate.state = State.ANSWERED
            candidate.contact = contact
        self.add(contacts)

    def receive_slow(self, contact: Contact) -> None:
        """A contact did not answer within the soft time-out."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state is State.ASKED:
            candidate.state = State.SLOW
            self._alpha = max(self._alpha, min(self._alpha + 1, ALPHA))

    def receive_late(self, contact: Contact) -> None:
        """A contact did not answer the second request in that time either."""
        candidate = self._by_id.get(contact.id)
        if candidate is not None and candidate.state is State.SLOW:
            candidate.state = State.LATE
            self._is_any_late = True

    def receive_failure(self, contact: Contact) -> None:
        """A contact did not answer at all, or wrongly."""
        if contact.id in self._by_id:
            self._new -= self._by_id[contact.id].state is State.NEW
            self._failed.add(contact.id)
            self._remove(bisect_left(self._distances, contact.long_id ^ self._goal))
