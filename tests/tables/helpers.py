"""Rows and values for the tests of tables."""

from __future__ import annotations

from pathlib import Path

from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, KVPRecord, Standing

NOW = 1_000_000
TTL = 86_490
COLLISIONS = Path(__file__).with_name("collisions")
"""Pairs of different bytes with one SHA-1: shattered.io (2017), sha-mbles.github.io (2020)."""


def key_of(value: bytes) -> KeyBytes:
    return KeyBytes(sha1(value))


def row(
    value: bytes, *, key: KeyBytes | None = None, ttl: int = TTL, timestamp: int = NOW, **fields
) -> tuple[KVPRecord, bytes]:
    """Return a row with its bytes; without a key it is found by its own SHA-1."""
    index = key_of(value)
    kvpid = KVPID(index if key is None else key, index)
    fields.setdefault("standing", Standing.REPLICA)
    return KVPRecord(kvpid, blake3(value), len(value), timestamp, ttl, **fields), value


def kept(value: bytes, depositor: bytes = b"d" * 32, **fields) -> tuple[KVPRecord, bytes]:
    """Return a row backed by a deposit."""
    return row(value, standing=Standing.KEPT, deposit=b"signed", depositor=depositor, **fields)


def numbered(count: int, size: int = 16) -> list[bytes]:
    """Return different values of a size."""
    return [number.to_bytes(4, "big") * (size // 4) for number in range(count)]
