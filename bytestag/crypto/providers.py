"""Provider records: "this node serves these keys until then", one signature for all of them (pure).

A hint to readers. It is accepted only in the provider's own session and never passed on between
holders. Format: ``docs/protocol.rst``, "Signed statements".
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bytestag.config import HOUR
from bytestag.crypto.identity import Address, Identity, id_hash, pack_address, unpack_addresses
from bytestag.crypto.primitives import SIGNATURE_BYTES, verify
from bytestag.errors import PacketError
from bytestag.keys import KeyBytes

PROVIDER_VERSION = 1
PROVIDER_KEYS_MAX = 1000
_DOMAIN = b"bytestag/provider/1"
_HEAD = struct.Struct(">B8s32s32sQIB20sB")
_KEY_BYTES = 20


@dataclass(frozen=True, slots=True)
class ProviderRecord:
    """What a provider signed; ``keys`` are ascending and share the prefix."""

    network_id: bytes
    ed25519: bytes
    x25519: bytes
    seq: int
    expiry_hour: int
    prefix_bits: int
    prefix: bytes
    addresses: tuple[Address, ...]
    keys: tuple[KeyBytes, ...]
    packed: bytes

    @property
    def node_id(self) -> KeyBytes:
        return KeyBytes(id_hash(self.ed25519, self.x25519)[:20])

    @property
    def expires(self) -> int:
        """Unix time."""
        return self.expiry_hour * HOUR


def make_provider_record(
    identity: Identity,
    network_id: bytes,
    seq: int,
    expires: float,
    addresses: Sequence[Address],
    keys: Sequence[KeyBytes],
    prefix_bits: int = 0,
) -> ProviderRecord:
    """Sign a record for 1 to 1,000 keys that share their first ``prefix_bits`` bits."""
    assert 0 < len(keys) <= PROVIDER_KEYS_MAX
    ordered = tuple(sorted(set(keys)))
    prefix = _masked(ordered[0], prefix_bits)
    hour = int(expires // HOUR)
    signing, static = identity.signing, identity.static
    body = b"".join(
        (
            _HEAD.pack(
                PROVIDER_VERSION,
                network_id,
                signing.public,
                static.public,
                seq,
                hour,
                prefix_bits,
                prefix,
                len(addresses),
            ),
            *map(pack_address, addresses),
            len(ordered).to_bytes(2, "big"),
            *ordered,
        )
    )
    packed = body + signing.sign(_DOMAIN + body)
    return ProviderRecord(
        network_id,
        signing.public,
        static.public,
        seq,
        hour,
        prefix_bits,
        prefix,
        tuple(addresses),
        ordered,
        packed,
    )


def read_provider_record(packed: bytes, network_id: bytes) -> ProviderRecord:
    """Read and verify a record.

    Raises:
        PacketError: malformed, another version or network, keys out of order or prefix, bad
            signature.
    """
    if len(packed) < _HEAD.size + 2 + SIGNATURE_BYTES:
        raise PacketError("truncated provider record")
    body, signature = packed[:-SIGNATURE_BYTES], packed[-SIGNATURE_BYTES:]
    version, network, ed25519, x25519, seq, hour, bits, prefix, count = _HEAD.unpack_from(body)
    if version != PROVIDER_VERSION or network != network_id:
        raise PacketError("provider record of another version or network")
    addresses, position = _read_addresses(body, count)
    keys = _read_keys(body[position:], prefix, bits)
    if not verify(ed25519, signature, _DOMAIN + body):
        raise PacketError("provider record with a bad signature")
    return ProviderRecord(
        network, ed25519, x25519, seq, hour, bits, prefix, tuple(addresses), keys, packed
    )


def _read_addresses(body: bytes, count: int) -> tuple[list[Address], int]:
    position = _HEAD.size
    for _ in range(count):
        size = {4: 7, 6: 19, 0x68: 21}.get(body[position] if position < len(body) else 0)
        if size is None:
            raise PacketError("malformed typed addresses")
        position += size
    return unpack_addresses(body[_HEAD.size : position], count), position


def _read_keys(packed: bytes, prefix: bytes, prefix_bits: int) -> tuple[KeyBytes, ...]:
    count = int.from_bytes(packed[:2], "big")
    if not 0 < count <= PROVIDER_KEYS_MAX or len(packed) != 2 + count * _KEY_BYTES:
        raise PacketError("wrong number of keys in a provider record")
    if prefix_bits > 160:
        raise PacketError("prefix longer than a key")
    keys = tuple(KeyBytes(packed[i : i + _KEY_BYTES]) for i in range(2, len(packed), _KEY_BYTES))
    if any(left >= right for left, right in itertools.pairwise(keys)):
        raise PacketError("keys of a provider record are not ascending")
    if _masked(keys[0], prefix_bits) != prefix or _masked(keys[-1], prefix_bits) != prefix:
        raise PacketError("keys of a provider record leave its prefix")
    return keys


def _masked(key: bytes, bits: int) -> bytes:
    keep = ((1 << bits) - 1) << (160 - bits)
    return (int.from_bytes(key, "big") & keep).to_bytes(20, "big")
