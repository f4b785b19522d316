"""Walk: asks the contacts that a shortlist names until it is finished (shell)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from bytestag.config import K
from bytestag.dht.lookup import Shortlist
from bytestag.dht.protocol import Answer, Protocol
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError

LATE_SILENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class LookupOutcome:
    """What a look-up found: contacts that answered, closest first, and the counts."""

    contacts: list[Contact]
    asked: int
    answered: int
    is_complete: bool
    """Whether fewer than k nodes answered, so that these are all there are."""


class Walk:
    """One look-up. ``on_answer`` returns True to end it early."""

    def __init__(
        self,
        protocol: Protocol,
        target: bytes,
        *,
        method: str,
        is_thorough: bool,
        on_answer: Callable[[Answer], bool] | None,
    ) -> None:
        self._protocol = protocol
        self._target = target
        self._method = method
        self._is_thorough = is_thorough
        self._on_answer = on_answer
        self._shortlist = Shortlist(
            target, is_thorough=is_thorough, exclude=protocol.identity.node_id
        )
        self._shortlist.add(protocol.router.closest(target, K))
        self._changed = asyncio.Event()
        self._has_enough = False

    async def run(self, seconds_max: float) -> LookupOutcome:
        """Walk until the shortlist is finished, ``on_answer`` has enough, or the time is over."""
        shortlist = self._shortlist
        is_over = False
        deadline = asyncio.get_running_loop().time() + seconds_max
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []
            while not (shortlist.is_finished or self._has_enough or is_over):
                tasks += [group.create_task(self._ask(c)) for c in shortlist.contacts_to_ask()]
                self._changed.clear()
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._changed.wait()
                except TimeoutError:  # nodes that name ever closer ones lead nowhere
                    is_over = True
            for task in tasks:
                task.cancel()
        contacts = shortlist.closest()
        is_whole = self._is_thorough and not (is_over or shortlist.has_unanswered)
        return LookupOutcome(
            contacts, shortlist.asked, shortlist.answered, is_whole and len(contacts) < K
        )

    async def _ask(self, contact: Contact) -> None:
        is_late = False

        def on_slow(times: int) -> None:
            nonlocal is_late
            if times == 1:
                self._shortlist.receive_slow(contact)
            else:
                is_late = True
                self._shortlist.receive_late(contact)
            self._changed.set()

        try:
            answer = await self._protocol.ask(contact, self._method, self._target, on_slow)
        except BytestagError:
            self._shortlist.receive_failure(contact)
        except asyncio.CancelledError:
            if is_late:  # the walk ended without it
                self._protocol.has_failed(contact, LATE_SILENCE_SECONDS)
            raise
        else:
            others = [c for c in answer.contacts if not self._protocol.is_silent(c)]
            self._shortlist.receive_answer(answer.contact, others)
            if self._on_answer is not None and self._on_answer(answer):
                self._has_enough = True
        self._changed.set()
