"""WholeHash: the hashes of a file whose parts come in any order, each byte hashed once (pure)."""

from __future__ import annotations

from collections.abc import Callable

from bytestag.config import PART_BYTES
from bytestag.hashing import Buffer, Hasher, blake3_hasher, sha1_hasher

COPY_BYTES = 1024 * 1024
AHEAD_MAX = 16_384
"""Of so many parts it is known that they are in their place; others are read at the end."""
KEPT_MAX = 32
"""So many of those up to 256 KiB are kept, lest they be read again: sources take turns."""


class WholeHash:
    """Compares a file with its SHA-1 and BLAKE3; an empty one is not compared.

    What comes in order is hashed as it comes; ``read(offset, size)`` is asked for the rest later.
    """

    def __init__(self, sha1: bytes, blake3: bytes, read: Callable[[int, int], bytes]) -> None:
        self._read = read
        self._hashers: list[tuple[Hasher, bytes]] = []
        if sha1:
            self._hashers.append((sha1_hasher(), sha1))
        if blake3:
            self._hashers.append((blake3_hasher(), blake3))
        self._position = 0
        self._ahead: dict[int, int] = {}
        """Parts that came before those in front of them: offset -> size."""
        self._kept: dict[int, bytes] = {}

    def add(self, offset: int, part: Buffer) -> None:
        """A part is in its place now."""
        if offset > self._position:
            if len(self._ahead) < AHEAD_MAX:
                self._ahead[offset] = len(part)
                if len(self._kept) < KEPT_MAX and len(part) <= PART_BYTES:
                    self._kept[offset] = bytes(part)  # not all that was received with it
        elif offset == self._position:
            self._update(part)
            while (size := self._ahead.pop(self._position, None)) is not None:
                kept = self._kept.pop(self._position, None)
                self._update(self._read(self._position, size) if kept is None else kept)

    def matches(self, size: int) -> bool:
        """Return whether a whole file of ``size`` bytes has the hashes; to be asked once."""
        while self._position < size:
            block = self._read(self._position, min(COPY_BYTES, size - self._position))
            if not block:
                return False
            self._update(block)
        return all(hasher.digest() == wanted for hasher, wanted in self._hashers)

    def _update(self, block: Buffer) -> None:
        for hasher, _ in self._hashers:
            hasher.update(block)
        self._position += len(block)
