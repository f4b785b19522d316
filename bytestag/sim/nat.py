"""NAT boxes: what is behind one has its address outside, and gets what it asked for (pure).

The kinds are those of RFC 3489, by what RFC 4787 calls mapping and filtering:

===============  ========================================  ===================================
kind             outer port of an inner address            who may send to it
===============  ========================================  ===================================
full-cone        one                                       everybody
port-restricted  one                                       addresses that were sent to before
symmetric        one for each address that it sends to     that address
===============  ========================================  ===================================
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass, field

from bytestag.crypto.identity import Address

IDLE_SECONDS = 120.0
"""What RFC 4787 demands at the least."""
MAPPINGS_MAX = 4096
PEERS_MAX = 1024
FIRST_PORT = 20_000
_Key = tuple[Address, Address | None]


class NatKind(enum.Enum):
    """How a box translates and filters."""

    FULL_CONE = "full-cone"
    PORT_RESTRICTED = "port-restricted"
    SYMMETRIC = "symmetric"


@dataclass(slots=True)
class _Mapping:
    key: _Key
    port: int
    used: float
    peers: OrderedDict[Address, None] = field(default_factory=OrderedDict)


class NatBox:
    """One box with one outer host. Bounded; what is unused for long is forgotten."""

    def __init__(
        self, kind: NatKind, outer_host: str, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.kind = kind
        self.outer_host = outer_host
        self._idle_seconds = idle_seconds
        self._by_key: OrderedDict[_Key, _Mapping] = OrderedDict()
        self._by_port: dict[int, _Mapping] = {}
        self._next_port = FIRST_PORT

    def __len__(self) -> int:
        return len(self._by_key)

    def outwards(self, inner: Address, destination: Address, now: float) -> Address:
        """Return the outer address from which a datagram of an inner one goes out."""
        key = (inner, destination if self.kind is NatKind.SYMMETRIC else None)
        mapping = self._by_key.get(key)
        if mapping is None or now - mapping.used > self._idle_seconds:
            mapping = self._renewed(key, mapping, now)
        mapping.used = now
        self._by_key.move_to_end(key)
        mapping.peers[destination] = None
        mapping.peers.move_to_end(destination)
        if len(mapping.peers) > PEERS_MAX:
            mapping.peers.popitem(last=False)
        return (self.outer_host, mapping.port)

    def inwards(self, source: Address, port: int, now: float) -> Address | None:
        """Return to which inner address a datagram that came from outside goes; None if to none."""
        mapping = self._by_port.get(port)
        if mapping is None or now - mapping.used > self._idle_seconds:
            return None
        if self.kind is not NatKind.FULL_CONE and source not in mapping.peers:
            return None
        return mapping.key[0]

    def inner(self, port: int) -> Address | None:
        """Return whose outer port this is."""
        mapping = self._by_port.get(port)
        return mapping.key[0] if mapping is not None else None

    def forget(self) -> None:
        """Lose all mappings, as by a power cut; the next get other ports."""
        self._by_key.clear()
        self._by_port.clear()

    def _renewed(self, key: _Key, old: _Mapping | None, now: float) -> _Mapping:
        if old is not None:
            self._drop(old)
        while len(self._by_key) >= MAPPINGS_MAX:
            self._drop(next(iter(self._by_key.values())))
        while self._next_port in self._by_port:
            self._next_port = self._next_port + 1 if self._next_port < 65_535 else FIRST_PORT
        mapping = _Mapping(key, self._next_port, now)
        self._next_port = self._next_port + 1 if self._next_port < 65_535 else FIRST_PORT
        self._by_key[key] = self._by_port[mapping.port] = mapping
        return mapping

    def _drop(self, mapping: _Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.port]
