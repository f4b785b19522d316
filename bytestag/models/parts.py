"""Parts of a file and the list values that name many of them (pure).

A list value is what FileInfo version 2 refers to: entries of SHA-1 ‖ BLAKE3 in the order of the
file, 5,041 to a value of at most 256 KiB, all values full but the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from bytestag.config import PART_BYTES, VALUE_BYTES_MAX
from bytestag.errors import FormatError
from bytestag.hashing import BLAKE3_BYTES, SHA1_BYTES
from bytestag.models.canonical import INT_MAX

PART_BYTES_MIN = 1024  # below, the entry would be a twentieth of what it describes
ENTRY_BYTES = SHA1_BYTES + BLAKE3_BYTES
LIST_BYTES_MAX = PART_BYTES  # as a part, so that reading a range costs one short value more
LIST_ENTRIES_MAX = LIST_BYTES_MAX // ENTRY_BYTES  # 5,041


class PartEntry(NamedTuple):
    """One part: its hashes and where it lies in the file."""

    sha1: bytes
    blake3: bytes
    """Empty in descriptions from before BLAKE3."""
    offset: int
    size: int
    """The most it may have, if the description does not tell the file's size."""


class ListEntry(NamedTuple):
    """One list value of version 2: its hashes and which parts it names."""

    sha1: bytes
    blake3: bytes
    first: int
    """Number of its first part."""
    length: int
    """How many parts it names."""


class PartList:
    """A list value: entries of SHA-1 ‖ BLAKE3 in the order of the file."""

    @staticmethod
    def pack(entries: Iterable[Sequence[Any]]) -> bytes:
        """Return the list value of entries that begin with SHA-1 and BLAKE3."""
        value = b"".join(entry[0] + entry[1] for entry in entries)
        if len(value) > LIST_BYTES_MAX or len(value) % ENTRY_BYTES:
            raise FormatError("these entries are no list value")
        return value

    @staticmethod
    def unpack(
        value: bytes, first: int = 0, part_bytes: int = PART_BYTES, file_size: int | None = None
    ) -> list[PartEntry]:
        """Read a list value whose first entry is part number ``first`` of a file."""
        if not value or len(value) > LIST_BYTES_MAX or len(value) % ENTRY_BYTES:
            raise FormatError(f"{len(value):,} bytes are no list of parts")
        hashes = (
            (value[i : i + SHA1_BYTES], value[i + SHA1_BYTES : i + ENTRY_BYTES])
            for i in range(0, len(value), ENTRY_BYTES)
        )
        return place(hashes, first, part_bytes, file_size)


def place(
    hashes: Iterable[tuple[bytes, bytes]], first: int, part_bytes: int, file_size: int | None
) -> list[PartEntry]:
    """Give parts their offsets and sizes, counting from part number ``first``."""
    end = INT_MAX if file_size is None else file_size
    return [
        PartEntry(sha1_, blake3_, offset, max(0, min(part_bytes, end - offset)))
        for offset, (sha1_, blake3_) in zip(
            range(first * part_bytes, INT_MAX, part_bytes), hashes, strict=False
        )
    ]


def count_parts(size: int, part_bytes: int = PART_BYTES) -> int:
    """Return how many parts a file of ``size`` bytes has."""
    return -(-size // part_bytes)


def list_layout(count: int) -> Iterator[tuple[int, int]]:
    """Yield the first part and the number of parts of each list value."""
    for first in range(0, count, LIST_ENTRIES_MAX):
        yield first, min(LIST_ENTRIES_MAX, count - first)


def check_part_bytes(part_bytes: int) -> None:
    """Raise FormatError unless files are cut into parts of this size."""
    is_power = part_bytes & (part_bytes - 1) == 0
    if not PART_BYTES_MIN <= part_bytes <= VALUE_BYTES_MAX or not is_power:
        raise FormatError("a part has a power of two of bytes, from 1 KiB to 1 MiB")
