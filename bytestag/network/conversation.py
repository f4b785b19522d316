"""Conversation: a question to a peer, and what it brings (shell)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bytestag.errors import RemoteError, Timeout
from bytestag.network import messages as m
from bytestag.network.units import Download


class Conversation:
    """A question whose answers are awaited one by one."""

    def __init__(self, answers: asyncio.Queue[m.Message | None], end: Callable[[], None]) -> None:
        """None among ``answers`` says that the session ended; ``end`` that none are awaited."""
        self._answers = answers
        self._end = end

    async def next(self, seconds: float) -> m.Message:
        """Return the next answer; raises Timeout, or RemoteError when the session ended."""
        if self._answers.empty():
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._answers.get()
            except TimeoutError:
                raise Timeout(f"no answer within {seconds:g} s") from None
        else:
            answer = self._answers.get_nowait()
        if answer is None:
            raise RemoteError("the session ended")
        return answer

    def close(self) -> None:
        """Await no more answers; idempotent."""
        self._end()


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a GET brought: bytes that authenticate, not yet compared with any hash."""

    value: bytearray
    index: bytes
    blake3: bytes
    size: int
    others: int


@dataclass(slots=True)
class Incoming:
    """A GET of ours under way."""

    download: Download
    offset: int
    lengths: Sequence[int]
    """Of each value at most so many bytes."""
    done: asyncio.Future[None]
    conversation: Conversation

    def length(self, found: m.Found | m.FoundMany) -> int:
        """Return how many bytes an answer promises."""
        if isinstance(found, m.Found):
            return min(max(found.size - self.offset, 0), self.lengths[0])
        held = m.flags(found.bitmap, len(self.lengths))
        return sum(itertools.compress(self.lengths, held))
