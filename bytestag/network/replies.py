"""Which replies are awaited: (sequence ID, address), once, until a deadline (pure)."""

from __future__ import annotations

from typing import Generic, TypeVar

from bytestag.crypto.identity import Address

T = TypeVar("T")
REPLIES_MAX = 4096


class ReplyTable(Generic[T]):
    """Matches replies to requests; a reply from elsewhere, a second one, or a stranger's is None.

    ``T`` is what waits for the reply: a future in the shell.
    """

    def __init__(self, most: int = REPLIES_MAX) -> None:
        self._waiting: dict[tuple[bytes, Address], T] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return len(self._waiting) >= self._most

    def expect(self, sequence_id: bytes, address: Address, waiter: T) -> None:
        """Await a reply to this request from this address."""
        self._waiting[sequence_id, address] = waiter

    def take(self, sequence_id: bytes, address: Address) -> T | None:
        """Return who waits for this reply, and await it no longer."""
        return self._waiting.pop((sequence_id, address), None)

    def drain(self) -> list[T]:
        """Return everybody who waits, and await nothing."""
        waiters = list(self._waiting.values())
        self._waiting.clear()
        return waiters
