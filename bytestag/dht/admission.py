"""Admission: who may enter the routing table (shell).

A contact enters only when it answered a request of ours from an address on its own signed card.
Whoever asks us is a candidate; verifying candidates is bounded, and nothing is ever stored or sent
on because somebody new appeared (kademlia's ``welcome_if_new`` can storm without end).
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

from bytestag.config import MINUTE, Config
from bytestag.crypto.identity import Address
from bytestag.dht.reachability import is_eligible
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot

_logger = logging.getLogger(__name__)

TRIED_REMEMBERED_MAX = 4096


class Admission:
    """Decides on newcomers. ``verify`` and ``check`` ask; an answer leads to :meth:`admit`."""

    def __init__(
        self,
        router: RoutingTable,
        config: Config,
        runtime: Runtime,
        slot: FnTaskSlot,
        verify: Callable[[Address, bool], Awaitable[None]],
        check: Callable[[Contact], Awaitable[None]],
    ) -> None:
        self._router = router
        self._config = config
        self._runtime = runtime
        self._slot = slot
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
        if oldest is not None and oldest.id not in self._checking:
            try:
                self._slot.add_no_block(self._check, oldest)
                self._checking.add(oldest.id)
            except BytestagError:  # full, or the node is closing
                pass

    async def _check(self, contact: Contact) -> None:
        """Ping the least recently seen contact of a full bucket; its failure makes room."""
        try:
            await self._check_on(contact)
        except BytestagError:
            pass
        finally:
            self._checking.discard(contact.id)

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
            try:
                self._slot.add_no_block(self._verify, address, is_proven)
            except BytestagError:  # full, or the node is closing
                self.counters["candidates dropped"] += 1
                return
            self._verifying.add(address)

    async def _verify(self, address: Address, is_proven: bool) -> None:
        try:
            await self._verify_at(address, is_proven)
        except BytestagError as error:
            _logger.debug("- candidate %s:%d: %s", *address, error)
        finally:
            self._verifying.discard(address)
            self._verify_waiting()
