"""Who a node is: its two keys, its node ID, its signed address card (pure).

The node ID is a hash of both public keys, so that a Noise IK session alone proves it; nobody can
choose one. Formats: ``docs/protocol.rst``, "Identity".
"""

from __future__ import annotations

import ipaddress
import socket  # for inet_ntop only: ten times faster than ipaddress
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from bytestag.config import ADDRESSES_MAX, HOUR
from bytestag.crypto.primitives import KEY_BYTES, SIGNATURE_BYTES, SigningKey, StaticKey, verify
from bytestag.errors import FormatError, PacketError
from bytestag.hashing import sha256
from bytestag.keys import KeyBytes

Address = tuple[str, int]
"""Host in its numeric form, UDP port."""

DONOR = 1
"""Capability: stores values for others."""
MANY = 2
"""Capability: answers GETs of many values; said in the handshake alone."""
COMPARES = 4
"""Capability: compares rows in the clear as well (``bt_compare``, ``bt_prove``)."""
EARLY = 8
"""Capability: answers a GET that came with the INIT; said in the handshake alone."""
LONG_RUNS = 16
"""Capability: takes 4 MiB for many values, not 1 MiB alone; said in the handshake alone."""

CARD_HOURS = 24
SKEW_HOURS = 2
_CARD_DOMAIN = b"bytestag/card/1"
_CARD_HEAD = struct.Struct(">8s32s32sIBB")


def id_hash(ed25519_public: bytes, x25519_public: bytes) -> bytes:
    """Return the 32-byte hash whose first 20 bytes are the node ID."""
    return sha256(b"bytestag/id/1" + ed25519_public + x25519_public)


def trailing_zero_bits(hash_: bytes) -> int:
    """Return how many zero bits end the hash: the work that was put into an identity."""
    number = int.from_bytes(hash_, "big")
    return (number & -number).bit_length() - 1 if number else len(hash_) * 8


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's secret keys and what follows from them."""

    signing: SigningKey = field(repr=False)
    static: StaticKey = field(repr=False)
    node_id: KeyBytes

    @classmethod
    def from_bytes(cls, secret: bytes) -> Identity:
        """Read the 64 bytes of :meth:`to_bytes`: Ed25519 seed ‖ X25519 secret.

        Raises:
            FormatError: it has another length.
        """
        if len(secret) != 2 * KEY_BYTES:
            raise FormatError("an identity has 64 bytes", hint="give the file that a node wrote")
        signing, static = SigningKey(secret[:KEY_BYTES]), StaticKey(secret[KEY_BYTES:])
        return cls(signing, static, KeyBytes(id_hash(signing.public, static.public)[:20]))

    @classmethod
    def generate(cls, token_bytes: Callable[[int], bytes], pow_bits: int = 0) -> Identity:
        """Make an identity whose ID hash ends in ``pow_bits`` zero bits (16 take about 2 s)."""
        signing = SigningKey(token_bytes(KEY_BYTES))
        while True:
            static = StaticKey(token_bytes(KEY_BYTES))
            hash_ = id_hash(signing.public, static.public)
            if trailing_zero_bits(hash_) >= pow_bits:
                return cls(signing, static, KeyBytes(hash_[:20]))

    def to_bytes(self) -> bytes:
        """Return the 64 secret bytes; keep them in a file of mode 0600."""
        return self.signing.secret + self.static.secret


def pack_address(address: Address) -> bytes:
    """Return the typed address: ``04`` or ``06``, IP, port."""
    return _packed_ip(address[0]) + address[1].to_bytes(2, "big")


@lru_cache(maxsize=65_536)
def _packed_ip(host: str) -> bytes:
    ip = ipaddress.ip_address(host)
    if ip.version == 6 and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return bytes([ip.version]) + ip.packed


def unpack_addresses(packed: bytes, count: int | None = None) -> list[Address]:
    """Read typed addresses; ``hub`` ones are skipped.

    Raises:
        PacketError: an unknown type, a truncated address, port 0, or more than 8.
    """
    result: list[Address] = []
    seen, position = 0, 0
    while position < len(packed):
        kind = packed[position]
        size = {4: 4, 6: 16, 0x68: 18}.get(kind)
        end = position + 1 + (size or 0) + 2
        seen += 1
        if size is None or end > len(packed) or seen > ADDRESSES_MAX:
            raise PacketError("malformed typed addresses")
        if kind != 0x68:
            result.append(unpack_address(bytes(packed[position + 1 : end])))
        position = end
    if count is not None and seen != count:
        raise PacketError("wrong number of addresses")
    return result


@lru_cache(maxsize=65_536)
def unpack_address(packed: bytes) -> Address:
    """Read an IP of 4 or 16 bytes and a port; raises PacketError for port 0."""
    port = int.from_bytes(packed[-2:], "big")
    if not port:
        raise PacketError("an address has port 0")
    family = socket.AF_INET if len(packed) == 6 else socket.AF_INET6
    return (socket.inet_ntop(family, packed[:-2]), port)


@dataclass(frozen=True, slots=True)
class Card:
    """A signed address card: these keys are reachable at these addresses."""

    network_id: bytes
    ed25519: bytes
    x25519: bytes
    hour: int
    capabilities: int
    addresses: tuple[Address, ...]
    packed: bytes = field(repr=False)

    @property
    def node_id(self) -> KeyBytes:
        return KeyBytes(id_hash(self.ed25519, self.x25519)[:20])

    def is_fresh(self, now: float) -> bool:
        """Return whether the wall clock time ``now`` lies within its validity."""
        hours = now / HOUR - self.hour
        return -SKEW_HOURS <= hours <= CARD_HOURS + SKEW_HOURS


def make_card(
    identity: Identity,
    network_id: bytes,
    addresses: list[Address],
    capabilities: int,
    now: float,
) -> Card:
    """Sign a card for this hour."""
    hour = int(now // HOUR)
    head = _CARD_HEAD.pack(
        network_id,
        identity.signing.public,
        identity.static.public,
        hour,
        capabilities,
        len(addresses),
    )
    body = head + b"".join(map(pack_address, addresses))
    packed = body + identity.signing.sign(_CARD_DOMAIN + body)
    return Card(
        network_id,
        identity.signing.public,
        identity.static.public,
        hour,
        capabilities,
        tuple(addresses),
        packed,
    )


def read_card(packed: bytes, network_id: bytes, pow_bits: int = 0) -> Card:
    """Read and verify a card; whether it is fresh is for the caller to ask.

    Raises:
        PacketError: malformed, another network, too little work in its ID, bad signature.
    """
    if len(packed) < _CARD_HEAD.size + SIGNATURE_BYTES:
        raise PacketError("truncated card")
    body, signature = packed[:-SIGNATURE_BYTES], packed[-SIGNATURE_BYTES:]
    network, ed25519, x25519, hour, capabilities, count = _CARD_HEAD.unpack_from(body)
    addresses = tuple(unpack_addresses(body[_CARD_HEAD.size :], count))
    card = Card(network, ed25519, x25519, hour, capabilities, addresses, packed)
    if network != network_id:
        raise PacketError("card of another network")
    if trailing_zero_bits(id_hash(ed25519, x25519)) < pow_bits:
        raise PacketError("card with too little work in its node ID")
    if not verify(ed25519, signature, _CARD_DOMAIN + body):
        raise PacketError("card with a bad signature")
    return card
