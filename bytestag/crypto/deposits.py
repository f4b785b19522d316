"""Deposits: a publisher's signature that lets a value outlive it (pure).

One signature covers up to 64 rows through a Merkle tree (RFC 6962, 2.1); each holder keeps the
deposit with the proof of its row, so that it can hand the row on without the publisher.
Format: ``docs/protocol.rst``, "Signed statements".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bytestag.config import HOUR, OFFER_KEYS_MAX
from bytestag.crypto.primitives import SIGNATURE_BYTES, SigningKey, verify
from bytestag.errors import PacketError
from bytestag.hashing import blake3

DEPOSIT_VERSION = 1
_DOMAIN = b"bytestag/deposit/1"
_BODY = struct.Struct(">B8s32sQIB32s")
DEPOSIT_BYTES = _BODY.size + SIGNATURE_BYTES
_LEAF = struct.Struct(">B20s20s32sQ")
_HASH_BYTES = 32


def leaf_hash(key: bytes, index: bytes, blake3_: bytes, size: int) -> bytes:
    """Return the Merkle leaf of a row."""
    return blake3(_LEAF.pack(0, key, index, blake3_, size))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over 1 to 64 leaves."""
    return _all_siblings(leaves)[0]


def merkle_proof(leaves: Sequence[bytes], position: int) -> bytes:
    """Return ``position 1 ‖ siblings``, lowest sibling first."""
    return merkle_proofs(leaves)[position]


def merkle_proofs(leaves: Sequence[bytes]) -> list[bytes]:
    """Return the proofs of all leaves; each node is hashed once."""
    return [bytes([i]) + siblings for i, siblings in enumerate(_all_siblings(leaves)[1])]


def _all_siblings(leaves: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the root, and for each leaf its siblings, lowest first."""
    if len(leaves) == 1:
        return leaves[0], [b""]
    middle = _split(len(leaves))
    left, of_left = _all_siblings(leaves[:middle])
    right, of_right = _all_siblings(leaves[middle:])
    siblings = [s + right for s in of_left] + [s + left for s in of_right]
    return _inner(left, right), siblings


def merkle_root_of_proof(proof: bytes, leaf: bytes, count: int) -> bytes:
    """Return the root that a proof leads to.

    Raises:
        PacketError: the proof does not fit a tree of ``count`` leaves.
    """
    if not proof or not 0 <= proof[0] < count or (len(proof) - 1) % _HASH_BYTES:
        raise PacketError("malformed Merkle proof")
    siblings = [proof[i : i + _HASH_BYTES] for i in range(1, len(proof), _HASH_BYTES)]
    root = _climb(leaf, proof[0], count, siblings)
    if siblings:
        raise PacketError("Merkle proof is too long")
    return root


@dataclass(frozen=True, slots=True)
class Deposit:
    """The signed statement: ``depositor`` wants the rows under ``root`` kept until that hour."""

    network_id: bytes
    depositor: bytes
    seq: int
    keep_until_hour: int
    count: int
    root: bytes
    packed: bytes

    @property
    def keep_until(self) -> int:
        """Unix time."""
        return self.keep_until_hour * HOUR


def make_deposit(
    signing: SigningKey, network_id: bytes, seq: int, keep_until: float, leaves: Sequence[bytes]
) -> Deposit:
    """Sign a deposit for 1 to 64 leaves."""
    assert 0 < len(leaves) <= OFFER_KEYS_MAX
    hour = int(keep_until // HOUR)
    root = merkle_root(leaves)
    body = _BODY.pack(DEPOSIT_VERSION, network_id, signing.public, seq, hour, len(leaves), root)
    packed = body + signing.sign(_DOMAIN + body)
    return Deposit(network_id, signing.public, seq, hour, len(leaves), root, packed)


def read_deposit(packed: bytes, network_id: bytes) -> Deposit:
    """Read and verify a deposit.

    Raises:
        PacketError: malformed, another version or network, bad signature.
    """
    if len(packed) != DEPOSIT_BYTES:
        raise PacketError("malformed deposit")
    body, signature = packed[:-SIGNATURE_BYTES], packed[-SIGNATURE_BYTES:]
    version, network, depositor, seq, hour, count, root = _BODY.unpack(body)
    if version != DEPOSIT_VERSION or network != network_id or not 0 < count <= OFFER_KEYS_MAX:
        raise PacketError("deposit of another version or network")
    if not verify(depositor, signature, _DOMAIN + body):
        raise PacketError("deposit with a bad signature")
    return Deposit(network, depositor, seq, hour, count, root, packed)


def split_proof(stored: bytes) -> tuple[bytes, bytes]:
    """Split what a table keeps, ``deposit ‖ proof``, into the two."""
    return stored[:DEPOSIT_BYTES], stored[DEPOSIT_BYTES:]


def covers(deposit: Deposit, proof: bytes, leaf: bytes) -> bool:
    """Return whether the proof leads from the leaf to the deposit's root."""
    try:
        return merkle_root_of_proof(proof, leaf, deposit.count) == deposit.root
    except PacketError:
        return False


def _split(count: int) -> int:
    """Return the largest power of two smaller than ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _inner(left: bytes, right: bytes) -> bytes:
    return blake3(b"\x01" + left + right)


def _climb(leaf: bytes, position: int, count: int, siblings: list[bytes]) -> bytes:
    """Follow the path; takes its siblings from the end of the list."""
    if count == 1:
        return leaf
    if not siblings:
        raise PacketError("Merkle proof is too short")
    sibling = siblings.pop()
    middle = _split(count)
    if position < middle:
        return _inner(_climb(leaf, position, middle, siblings), sibling)
    return _inner(sibling, _climb(leaf, position - middle, count - middle, siblings))
