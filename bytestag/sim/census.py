"""Census: who lives in a network of up to sixteen million nodes, without making any of them (pure).

M Ed25519 keys and M X25519 keys are M² identities, each as valid as any other: its node ID is the
hash of both public keys. So ten million nodes cost 6,326 key pairs and ten million hashes. What is
kept of each is one number of 64 bits, the first 40 of its ID and which of them it is, in order:
80 MB for 10^7. Everything follows from the seed.
"""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator

from bytestag.crypto.identity import Address, Identity, id_hash
from bytestag.crypto.primitives import KEY_BYTES, SigningKey, StaticKey
from bytestag.errors import UsageError
from bytestag.keys import BIT_SIZE, KeyBytes

INDEX_BITS = 24
NODES_MAX = 1 << INDEX_BITS
"""As many hosts as 10.0.0.0/8 has; of those one IPv4 address each."""
PREFIX_BITS = 40
"""Of the ID: among 10^7 nodes some fifty pairs agree in more, which no range here can tell."""
PORT = 4000
PARTITIONS = 256
Report = Callable[[int, int], None]


class Census:
    """The identities and addresses of ``nodes`` nodes, numbered from 0 (their *index*).

    Their *rank* is their place in the order of the IDs. ``report`` is told (done, all) while the
    census is made, which takes about two seconds for each million.
    """

    def __init__(
        self, nodes: int, seed: object = 0, report: Report = lambda done, of: None
    ) -> None:
        if not 1 <= nodes <= NODES_MAX:
            raise UsageError(f"a census has 1 to {NODES_MAX} nodes, not {nodes}")
        secret = random.Random(f"{seed} census").randbytes
        self._side = math.isqrt(nodes - 1) + 1
        self._signing = [SigningKey(secret(KEY_BYTES)) for _ in range(self._side)]
        self._static = [StaticKey(secret(KEY_BYTES)) for _ in range(self._side)]
        self._ranked = self._rank_all(nodes, report)

    def _rank_all(self, nodes: int, report: Report) -> array[int]:
        """Return prefix and index of each node as one number, ascending."""
        shift = 64 - PREFIX_BITS
        publics = [static.public for static in self._static]
        parts = [array("Q") for _ in range(PARTITIONS)]  # sorted apart: a list of all takes 400 MB
        index = 0
        for signing in self._signing:
            public = signing.public
            for static in publics[: nodes - index]:
                head = id_hash(public, static)[:8]
                number = int.from_bytes(head, "big") >> shift << shift | index
                parts[head[0]].append(number)
                index += 1
            report(index, nodes)
        ranked = array("Q")
        for number, part in enumerate(parts):
            ranked.extend(sorted(part))
            parts[number] = array("Q")
        return ranked

    def __len__(self) -> int:
        return len(self._ranked)

    # --- One node --------------------------------------------------------------------------------

    def node_id(self, index: int) -> bytes:
        """Return the 20 bytes of a node's ID."""
        row, column = divmod(index, self._side)
        return id_hash(self._signing[row].public, self._static[column].public)[:20]

    def identity(self, index: int) -> Identity:
        """Return a node's keys and ID."""
        row, column = divmod(index, self._side)
        return Identity(self._signing[row], self._static[column], KeyBytes(self.node_id(index)))

    def address(self, index: int) -> Address:
        """Return where a node is."""
        return (f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}", PORT)

    def index_of(self, address: Address) -> int | None:
        """Return which node is at an address, or None for nobody."""
        host, port = address
        parts = host.split(".")
        if port != PORT or len(parts) != 4 or parts[0] != "10":
            return None
        index = int(parts[1]) << 16 | int(parts[2]) << 8 | int(parts[3])
        return index if index < len(self) else None

    # --- Ranges ----------------------------------------------------------------------------------

    def index_at(self, rank: int) -> int:
        """Return the index of the node with this rank."""
        return self._ranked[rank] & (NODES_MAX - 1)

    def ranks(self, prefix: int, depth: int) -> tuple[int, int]:
        """Return (first, end) ranks of the IDs whose first ``depth`` (≤ 40) bits are ``prefix``."""
        shift = 64 - depth
        first = bisect_left(self._ranked, prefix << shift)
        if prefix + 1 == 1 << depth:
            return first, len(self)
        return first, bisect_left(self._ranked, (prefix + 1) << shift, first)

    def closest(
        self, key: bytes, count: int, accept: Callable[[int], bool] = lambda index: True
    ) -> list[int]:
        """Return the indices of the acceptable nodes closest to a key, closest first."""
        goal = int.from_bytes(key, "big")
        found: list[int] = []
        for depth in range(PREFIX_BITS, -1, -1):
            first, end = self.ranks(goal >> (BIT_SIZE - depth), depth)
            if depth and end - first < count:
                continue
            found = [index for index in self._indices(first, end) if accept(index)]
            if len(found) >= count:
                break
        found.sort(key=lambda index: int.from_bytes(self.node_id(index), "big") ^ goal)
        return found[:count]

    def _indices(self, first: int, end: int) -> Iterator[int]:
        return (self.index_at(rank) for rank in range(first, end))
