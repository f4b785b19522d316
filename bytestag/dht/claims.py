"""Claims: which rows neighbours named to us, and which of them we lacked (pure but for a lock).

A holder names the rows of a key region to those who should have them as well, once; from then on it
sends a digest that stands for the same names. While we still hold all of them, the answer is one
word. What a nearer neighbour claims to look after, we need not look after too.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from bytestag.hashing import blake3
from bytestag.network.messages import bitmap
from bytestag.network.packets import NAME_BYTES
from bytestag.tables.base import KVPRecord

CLAIM_BYTES = 512
"""What a claim costs beside its names."""
NAMES_BYTES_MAX = 8 * 1024 * 1024
NAMES_BYTES_OF_NODE_MAX = NAMES_BYTES_MAX // 16

PREFIX_BITS_MAX = 64
Prefix = tuple[int, bytes]
"""How many leading bits keys have in common (at most 64), and their first 8 bytes with the other
bits zero."""


def row_name(record: KVPRecord) -> bytes:
    """Return the 8 bytes that stand for a row: BLAKE3(key ‖ index ‖ blake3)."""
    key, index = record.kvpid
    return _name_of(key + index + record.blake3)


@lru_cache(maxsize=16_384)  # a region's rows are named to each of their holders
def _name_of(row: bytes) -> bytes:
    return blake3(row)[:NAME_BYTES]


def names_digest(names: bytes) -> bytes:
    """Return the 16 bytes that stand for ascending names."""
    return blake3(names)[:16]


def prefix_of(key: bytes, bits: int) -> Prefix:
    """Return the prefix of a key."""
    kept = int.from_bytes(key[:8], "big") >> (64 - bits) << (64 - bits)
    return bits, kept.to_bytes(8, "big")


def range_of(prefix: Prefix) -> tuple[int, int]:
    """Return the keys of a prefix, as (low, end)."""
    low = int.from_bytes(prefix[1], "big") << 96
    return low, low + (1 << (160 - prefix[0]))


@dataclass(slots=True)
class _Claim:
    names: bytes
    time: float
    holds_all: bool
    """Whether we hold all of these rows."""


class Claims:
    """What was named to one node. Times are monotonic seconds."""

    def __init__(
        self, bytes_max: int = NAMES_BYTES_MAX, of_node_max: int = NAMES_BYTES_OF_NODE_MAX
    ) -> None:
        self._lock = threading.Lock()
        self._claims: OrderedDict[tuple[bytes, Prefix], _Claim] = OrderedDict()
        self._nodes_of: dict[Prefix, set[bytes]] = {}
        self._bytes_of: Counter[bytes] = Counter()
        self._bytes_max = bytes_max
        self._of_node_max = of_node_max

    @property
    def bytes_used(self) -> int:
        return self._bytes_of.total()

    def learn(
        self, node_id: bytes, prefix: Prefix, names: bytes, now: float, *, holds_all: bool
    ) -> None:
        """A node named rows; the oldest claims make room, its own first."""
        with self._lock:
            self._forget(node_id, prefix)
            size = len(names) + CLAIM_BYTES
            if size > self._of_node_max:
                return
            while self._bytes_of[node_id] + size > self._of_node_max:
                self._forget(*next(claimed for claimed in self._claims if claimed[0] == node_id))
            while self._claims and self._bytes_of.total() + size > self._bytes_max:
                self._forget(*next(iter(self._claims)))
            self._claims[node_id, prefix] = _Claim(names, now, holds_all)
            self._nodes_of.setdefault(prefix, set()).add(node_id)
            self._bytes_of[node_id] += size

    def confirm(self, node_id: bytes, prefix: Prefix, digest: bytes, now: float) -> bool:
        """A node repeats a claim; return whether it is known and we hold all of it still."""
        with self._lock:
            claim = self._claims.get((node_id, prefix))
            if claim is None or names_digest(claim.names) != digest:
                return False
            claim.time = now
            self._claims.move_to_end((node_id, prefix))
            return claim.holds_all

    def row_went(self, key: bytes) -> None:
        """We hold a row of this key no longer (any thread)."""
        with self._lock:
            for bits in range(PREFIX_BITS_MAX + 1):
                prefix = prefix_of(key, bits)
                for node_id in self._nodes_of.get(prefix, ()):
                    self._claims[node_id, prefix].holds_all = False

    def names(
        self, node_ids: Iterable[bytes], prefix: Prefix, since: float
    ) -> dict[bytes, set[bytes]]:
        """Return what nodes claim to hold under a prefix, if they said so since a time."""
        wanted = set(node_ids)
        low, end = range_of(prefix)
        found: dict[bytes, set[bytes]] = {}
        with self._lock:
            for (node_id, other), claim in self._claims.items():
                if node_id not in wanted or claim.time < since:
                    continue
                other_low, other_end = range_of(other)
                if other_low < end and low < other_end:
                    found.setdefault(node_id, set()).update(split_names(claim.names))
        return found

    def _forget(self, node_id: bytes, prefix: Prefix) -> None:
        claim = self._claims.pop((node_id, prefix), None)
        if claim is None:
            return
        self._nodes_of[prefix].discard(node_id)
        if not self._nodes_of[prefix]:
            del self._nodes_of[prefix]
        self._bytes_of[node_id] -= len(claim.names) + CLAIM_BYTES
        if not self._bytes_of[node_id]:
            del self._bytes_of[node_id]


def split_names(names: bytes) -> list[bytes]:
    """Return names one by one."""
    return [names[i : i + NAME_BYTES] for i in range(0, len(names), NAME_BYTES)]


def lacking(names: bytes, held: set[bytes]) -> bytes:
    """Return the bitmap of the names that are not held."""
    return bitmap([name not in held for name in split_names(names)])
