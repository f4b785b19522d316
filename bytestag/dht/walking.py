"""Walk: asks the contacts that a shortlist names until it is finished (shell)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from bytestag.config import ALPHA, K
from bytestag.dht.lookup import Shortlist
from bytestag.dht.protocol import Answer, Protocol
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.network.rpc import Call

LATE_SILENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LookupOutcome:
    """What a look-up found: contacts that answered, closest first, and the counts."""

    contacts: list[Contact]
    asked: int
    answered: int
    known: list[Contact]
    """The k closest that anybody named and that did not fail, asked or not."""
    is_complete: bool
    """Whether fewer than k nodes answered, so that these are all there are."""


class Walk:
    """One look-up, from our table and ``seeds``. ``on_answer`` returns True to end it early.

    With ``taken`` it is one of several disjoint paths: it starts from its ``seeds`` alone, asks
    nobody whom another path asked, and hears nothing of what that one was told.
    """

    def __init__(
        self,
        protocol: Protocol,
        target: bytes,
        *,
        method: str,
        is_thorough: bool,
        on_answer: Callable[[Answer], bool] | None = None,
        seeds: Iterable[Contact] = (),
        alpha: int = ALPHA,
        taken: set[bytes] | None = None,
    ) -> None:
        self._protocol = protocol
        self._target = target
        self._method = method
        self._is_thorough = is_thorough
        self._on_answer = on_answer
        self._shortlist = Shortlist(
            target, alpha=alpha, is_thorough=is_thorough, exclude=protocol.identity.node_id
        )
        self._shortlist.add(seeds)
        self._taken = taken
        if taken is None:
            self._shortlist.add(protocol.router.closest_sound(target, K))
        self._has_enough = False
        self._calls: dict[bytes, Call] = {}
        self._late: dict[bytes, Contact] = {}
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, seconds_max: float) -> LookupOutcome:
        """Walk until the shortlist is finished, ``on_answer`` has enough, or the time is over."""
        is_over = False
        self._go_on()
        try:
            async with asyncio.timeout(seconds_max):
                await self._ended
        except TimeoutError:  # nodes that name ever closer ones lead nowhere
            is_over = True
        finally:
            self._end()
        shortlist = self._shortlist
        contacts = shortlist.closest()
        is_whole = self._is_thorough and not (is_over or shortlist.has_unanswered)
        return LookupOutcome(
            contacts,
            shortlist.asked,
            shortlist.answered,
            shortlist.known(),
            is_whole and len(contacts) < K,
        )

    def _go_on(self) -> None:
        """Ask whoever is next, or end."""
        while not self._ended.done():
            if self._has_enough or self._shortlist.is_finished:
                self._ended.set_result(None)
                return
            chosen = self._shortlist.contacts_to_ask()
            if not chosen:
                return
            for contact in chosen:
                self._ask(contact)

    def _ask(self, contact: Contact) -> None:
        if self._taken is not None:
            if contact.id in self._taken:
                self._shortlist.receive_failure(contact)
                return
            self._taken.add(contact.id)
        try:
            self._calls[contact.id] = self._protocol.begin_ask(
                contact,
                self._method,
                self._target,
                partial(self._on_end, contact),
                partial(self._on_slow, contact),
            )
        except BytestagError:
            self._shortlist.receive_failure(contact)

    def _on_slow(self, contact: Contact, times: int) -> None:
        if times == 1:
            self._shortlist.receive_slow(contact)
        else:
            self._late[contact.id] = contact
            self._shortlist.receive_late(contact)
        self._go_on()

    def _on_end(self, contact: Contact, answer: Answer | BytestagError) -> None:
        del self._calls[contact.id]
        self._late.pop(contact.id, None)
        if isinstance(answer, BytestagError):
            self._shortlist.receive_failure(contact)
        else:
            referrals = self._protocol.referrals
            others = referrals.contacts(answer.contact.address, answer.reply, self._shortlist.wants)
            self._shortlist.receive_answer(answer.contact, others)
            if self._on_answer is not None and self._on_answer(answer):
                self._has_enough = True
        self._go_on()

    def _end(self) -> None:
        """Wait for nobody any more; who was late counts as silent for a moment."""
        self._ended.cancel()
        for call in self._calls.values():
            call.cancel()
        self._calls.clear()  # they refer to us
        for contact in self._late.values():
            self._protocol.has_failed(contact, LATE_SILENCE_SECONDS)
