"""What the content store hands out, and how it knows a file again (pure).

A file is known again by its stamp: size, time of change and inode. A file written a moment ago may
be written again within the same tick of the clock, so its time of change counts as unknown, and
what has an unknown stamp is hashed before it is believed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from bytestag.hashing import MD5_BYTES, SHA1_BYTES

INT_MAX = 2**63 - 1  # what a column holds
RACY_NS = 20_000_000  # a later write may leave the same time: five ticks of a 250 Hz kernel
RACY_COARSE_NS = 2_000_000_000  # where the file system keeps whole seconds
MTIME_UNKNOWN = -1
DIGEST_BYTES = {"sha1": SHA1_BYTES, "md5": MD5_BYTES}


@dataclass(frozen=True, slots=True)
class Content:
    """One stored object."""

    sha1: bytes
    size: int
    path: Path
    blake3: bytes = b""
    """Empty where unknown."""
    md5: bytes = b""
    """Empty where unknown."""
    origin: str = "object"
    """``object`` (the store's own), ``link`` (the user's file), ``second`` or ``kachery``."""
    is_pinned: bool = False
    name: str = ""
    """What it was called when it was stored: a base name, decoration."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that ``verify`` found."""

    sha1: bytes
    path: Path
    what: str


class Hashes(NamedTuple):
    """What one read of some bytes gave. ``md5`` is empty unless it was asked for."""

    size: int
    sha1: bytes
    blake3: bytes
    md5: bytes = b""


class Stamp(NamedTuple):
    """How a file is known again."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file, as far as signed database integers hold it."""
        return cls(status.st_size, status.st_mtime_ns & INT_MAX, status.st_ino & INT_MAX)

    def settled(self, now_ns: int) -> Stamp:
        """Return the stamp, with an unknown time if the file was written a moment ago."""
        is_coarse = self.mtime_ns % 1_000_000_000 == 0
        racy_ns = RACY_COARSE_NS if is_coarse else RACY_NS
        if abs(now_ns - self.mtime_ns) < racy_ns:
            return self._replace(mtime_ns=MTIME_UNKNOWN)
        return self
