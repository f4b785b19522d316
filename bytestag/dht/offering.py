"""Offering rows to a holder, and hearing what becomes of each (shell)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from bytestag.errors import RemoteError
from bytestag.network import messages as m
from bytestag.network.links import Link
from bytestag.tables.base import Verdict

ANSWER_SECONDS = 60.0
COUNTED = (Verdict.ACCEPTED, Verdict.HELD)
"""Last words after which the holder has the row."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """What became of one entry of an offer. ACCEPTED means: stored and committed."""

    entry: int
    verdict: Verdict
    granted_hours: int


async def offer(
    link: Link, message: m.Offer, seconds: float = ANSWER_SECONDS
) -> AsyncIterator[LastWord]:
    """Make an offer and yield the last word on each entry, as they come.

    Raises:
        Timeout: nothing came for ``seconds``.
        RemoteError: the session ended, or the holder answered something else.
    """
    count = len(message.entries)
    conversation = link.open(message)
    try:
        answer = await conversation.next(seconds)
        if not isinstance(answer, m.Answer) or len(answer.verdicts) != count:
            raise RemoteError("an offer was answered with something else")
        waiting = set()
        for number, code in enumerate(answer.verdicts):
            if code == Verdict.ACCEPTED:
                waiting.add(number)
            else:
                granted = answer.granted[number] if number < len(answer.granted) else 0
                yield LastWord(number, _verdict(code), granted)
        while waiting:
            stored = await conversation.next(seconds)
            finals = stored.finals if isinstance(stored, m.Stored) else []
            news = {final.entry: final for final in finals if final.entry in waiting}
            if not news:  # or it could keep us waiting for ever
                raise RemoteError("a holder said STORED of nothing that was open")
            for final in news.values():
                waiting.discard(final.entry)
                yield LastWord(final.entry, _verdict(final.verdict), final.granted)
    finally:
        conversation.close()


def _verdict(code: int) -> Verdict:
    try:
        return Verdict(code)
    except ValueError:
        return Verdict.FULL
