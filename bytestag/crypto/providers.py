"""Provider records: "this node serves these keys until then", one signature for all of them (pure).

A hint to readers. It is accepted only in the provider's own session and never passed on between
holders. A renewal gives records that a holder has got a longer life; it names them by their digests
and fits one datagram. Formats: ``docs/protocol.rst``, "Signed statements".
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bytestag.config import HOUR
from bytestag.crypto.identity import Address, Identity, id_hash, pack_address, unpack_addresses
from bytestag.crypto.primitives import SIGNATURE_BYTES, verify
from bytestag.errors import PacketError
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes

PROVIDER_VERSION = 2
PROVIDER_KEYS_MAX = 1000
RENEWED_MAX = 32
RENEWAL_BYTES_MAX = 106 + 32 * 17 + 64
_DOMAIN = b"bytestag/provider/1"
_HEAD = struct.Struct(">B8s32s32sQIB20sB")
_KEY_BYTES = 20
_RENEWAL_DOMAIN = b"bytestag/renewal/1"
_RENEWAL_HEAD = struct.Struct(">B8s32s32s20sQIB")
_RENEWED = struct.Struct(">B8s8s")


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
    version: int = PROVIDER_VERSION,
) -> ProviderRecord:
    """Sign a record for 1 to 1,000 keys that share their first ``prefix_bits`` bits.

    Version 1 writes whole keys; version 2 leaves out the whole bytes of the prefix.
    """
    assert 0 < len(keys) <= PROVIDER_KEYS_MAX
    ordered = tuple(sorted(set(keys)))
    prefix = masked(ordered[0], prefix_bits)
    hour = int(expires // HOUR)
    signing, static = identity.signing, identity.static
    body = b"".join(
        (
            _HEAD.pack(
                version,
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
            *(key[_left_out(version, prefix_bits) :] for key in ordered),
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
    if version not in (1, 2) or network != network_id:
        raise PacketError("provider record of another version or network")
    addresses, position = _read_addresses(body, count)
    keys = _read_keys(body[position:], prefix, bits, _left_out(version, bits))
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


def _read_keys(
    packed: bytes, prefix: bytes, prefix_bits: int, left_out: int
) -> tuple[KeyBytes, ...]:
    if prefix_bits > 160:
        raise PacketError("prefix longer than a key")
    count, step = int.from_bytes(packed[:2], "big"), _KEY_BYTES - left_out
    if not 0 < count <= PROVIDER_KEYS_MAX or len(packed) != 2 + count * step:
        raise PacketError("wrong number of keys in a provider record")
    begin = prefix[:left_out]
    keys = tuple(KeyBytes(begin + packed[2 + i * step : 2 + (i + 1) * step]) for i in range(count))
    if any(left >= right for left, right in itertools.pairwise(keys)):
        raise PacketError("keys of a provider record are not ascending")
    if masked(keys[0], prefix_bits) != prefix or masked(keys[-1], prefix_bits) != prefix:
        raise PacketError("keys of a provider record leave its prefix")
    return keys


def _left_out(version: int, prefix_bits: int) -> int:
    """Return how many bytes of each key are not written."""
    return min(prefix_bits // 8, _KEY_BYTES - 1) if version > 1 else 0


def masked(key: bytes, bits: int) -> bytes:
    """Return a key with all but its first bits zero."""
    keep = ((1 << bits) - 1) << (160 - bits)
    return (int.from_bytes(key, "big") & keep).to_bytes(20, "big")


def cut(
    keys: Sequence[KeyBytes], bits: int = 0, most: int = PROVIDER_KEYS_MAX
) -> Iterator[tuple[int, Sequence[KeyBytes]]]:
    """Cut ascending keys that share ``bits`` bits into records: yield (prefix bits, keys).

    Where there are too many for one record the prefix grows: the same keys are cut the same way
    each time, and one more or less changes few records.
    """
    if len(keys) <= most:
        if keys:
            yield bits, keys
        return
    middle = int.from_bytes(masked(keys[0], bits), "big") | 1 << (159 - bits)
    at = bisect_left(keys, middle.to_bytes(20, "big"))
    yield from cut(keys[:at], bits + 1, most)
    yield from cut(keys[at:], bits + 1, most)


# --- Renewals ------------------------------------------------------------------------------------


def keys_digest(keys: Sequence[KeyBytes]) -> bytes:
    """Return the 8 bytes that stand for the keys of a record, ascending."""
    return blake3(b"".join(keys))[:8]


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a provider signed for one holder: these records of mine live until then."""

    ed25519: bytes
    x25519: bytes
    holder: bytes
    seq: int
    expiry_hour: int
    records: tuple[tuple[int, bytes, bytes], ...]
    """(prefix bits, prefix padded to 20 bytes, digest) of each."""
    packed: bytes

    @property
    def node_id(self) -> KeyBytes:
        return KeyBytes(id_hash(self.ed25519, self.x25519)[:20])

    @property
    def expires(self) -> int:
        """Unix time."""
        return self.expiry_hour * HOUR

    def is_signed(self) -> bool:
        """Verify the signature; costs as much as a thousand look-ups of a digest."""
        body, signature = self.packed[:-SIGNATURE_BYTES], self.packed[-SIGNATURE_BYTES:]
        return verify(self.ed25519, signature, _RENEWAL_DOMAIN + body)


def make_renewal(
    identity: Identity,
    network_id: bytes,
    holder: bytes,
    seq: int,
    expires: float,
    records: Sequence[tuple[int, bytes, bytes]],
) -> bytes:
    """Sign a renewal of 1 to 32 records, whose prefixes have at most 64 bits."""
    assert 0 < len(records) <= RENEWED_MAX
    signing, static = identity.signing, identity.static
    head = _RENEWAL_HEAD.pack(
        1,
        network_id,
        signing.public,
        static.public,
        holder,
        seq,
        int(expires // HOUR),
        len(records),
    )
    body = head + b"".join(_RENEWED.pack(bits, prefix[:8], name) for bits, prefix, name in records)
    return body + signing.sign(_RENEWAL_DOMAIN + body)


def read_renewal(packed: bytes, network_id: bytes) -> Renewal:
    """Read a renewal; its signature is for the caller to check.

    Raises:
        PacketError: malformed, or of another version or network.
    """
    if len(packed) < _RENEWAL_HEAD.size + SIGNATURE_BYTES:
        raise PacketError("truncated renewal")
    version, network, ed25519, x25519, holder, seq, hour, count = _RENEWAL_HEAD.unpack_from(packed)
    if version != 1 or network != network_id:
        raise PacketError("renewal of another version or network")
    body = packed[_RENEWAL_HEAD.size : -SIGNATURE_BYTES]
    if not 0 < count <= RENEWED_MAX or len(body) != count * _RENEWED.size:
        raise PacketError("wrong number of records in a renewal")
    records = []
    for bits, prefix, name in _RENEWED.iter_unpack(body):
        whole = prefix + bytes(12)
        if bits > 64 or masked(whole, bits) != whole:
            raise PacketError("malformed prefix in a renewal")
        records.append((bits, whole, name))
    return Renewal(ed25519, x25519, holder, seq, hour, tuple(records), packed)
