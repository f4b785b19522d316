"""Admission: who may enter the routing table (shell).

A contact enters only when it answered a request of ours from an address on its own signed card.
Whoever asks us is a candidate; verifying candidates is bounded, and nothing is ever stored or sent
on because somebody new appeared (kademlia's ``welcome_if_new`` can storm without end).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial

from bytestag.config import MINUTE, Config
from bytestag.crypto.identity import Address
from bytestag.dht.reachability import is_eligible
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.errors import LocalError
from bytestag.events.runtime import Runtime

TRIED_REMEMBERED_MAX = 4096
CHECKS_MAX = 64


class Admission:
    """Decides on newcomers.

    ``verify`` and ``check`` ask, and call what they are given when they know; an answer leads to
    :meth:`admit` before. They raise LocalError if nothing can be asked now.
    """

    def __init__(
        self,
        router: RoutingTable,
        config: Config,
        runtime: Runtime,
        verify: Callable[[Address, bool, Callable[[], None]], None],
        check: Callable[[Contact, Callable[[], None]], None],
    ) -> None:
        self._router = router
        self._config = config
        self._runtime = runtime
        self._verify_at = verify
        self._check_on = check
        self._tried: OrderedDict[Address, float] = OrderedDict()
        self._candidates: OrderedDict[Address, bool] = OrderedDict()
        self._verifying: set[Address] = set()
        self._checking: set[bytes] = set()
        self.counters: Counter[str] = Counter()

    def admit(self, contact: Contact) -> None:
        """Put a verified contact into the table, and check on the one it might replace."""
        oldest = self._router.add_contact(contact)
        if oldest is None or oldest.id in self._checking or len(self._checking) >= CHECKS_MAX:
            return
        self._checking.add(oldest.id)  # its failure makes room
        try:
            self._check_on(oldest, partial(self._checking.discard, oldest.id))
        except LocalError:  # full, or the node is closing
            self._checking.discard(oldest.id)

    def consider(self, node_id: bytes | None, address: Address, is_proven: bool) -> bool:
        """Verify somebody who asked us, if the table could use it; return whether we shall.

        Each address once a minute; a few at a time, and the others wait in line.
        """
        now = self._runtime.monotonic()
        tried = self._tried.get(address)
        if node_id is None or (tried is not None and now - tried < MINUTE):
            return False
        may_enter = is_eligible(address[0], is_local=self._config.is_local)
        router = self._router
        if not may_enter or not (
            router.wants(node_id) or router.doubts(node_id) or self._has_moved(node_id, address)
        ):
            return False
        if len(self._candidates) >= self._config.candidates_max:
            self.counters["candidates dropped"] += 1
            return False
        self._candidates[address] = is_proven
        self._tried[address] = now
        self._tried.move_to_end(address)
        if len(self._tried) > TRIED_REMEMBERED_MAX:
            self._tried.popitem(last=False)
        self._verify_waiting()
        return True

    def _has_moved(self, node_id: bytes, address: Address) -> bool:
        """Whether a contact asks from another address than we know; its answer will prove it."""
        known = self._router.contact(node_id)
        return known is not None and known.address != address

    def _verify_waiting(self) -> None:
        while self._candidates and len(self._verifying) < self._config.verify_pings_max:
            address, is_proven = self._candidates.popitem(last=False)
            self._verifying.add(address)
            try:
                self._verify_at(address, is_proven, partial(self._has_verified, address))
            except LocalError:  # full, or the node is closing
                self._verifying.discard(address)
                self.counters["candidates dropped"] += 1
                return

    def _has_verified(self, address: Address) -> None:
        self._verifying.discard(address)
        self._verify_waiting()
