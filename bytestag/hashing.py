"""SHA-1 locates, BLAKE3 decides: the one module that hashes content (pure).

Links, keys and indices are SHA-1, so that links in old papers resolve. Whether bytes are the right
ones is decided by BLAKE3-256, because two files with equal SHA-1 can be made (Shattered, 2017).
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from blake3 import blake3 as _blake3

SHA1_BYTES = 20
BLAKE3_BYTES = 32
MD5_BYTES = 16

Buffer = bytes | bytearray | memoryview


class Hasher(Protocol):
    """The part of :mod:`hashlib`'s interface used here."""

    def update(self, buffer: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...


def sha1(buffer: Buffer) -> bytes:
    """Return the 20-byte SHA-1 (FIPS 180-4)."""
    return hashlib.sha1(buffer, usedforsecurity=False).digest()


def sha256(buffer: Buffer) -> bytes:
    """Return the 32-byte SHA-256 (FIPS 180-4)."""
    return hashlib.sha256(buffer).digest()


def md5(buffer: Buffer) -> bytes:
    """Return the 16-byte MD5 (RFC 1321): a name that old links have, never a proof."""
    return hashlib.md5(buffer, usedforsecurity=False).digest()


def blake3(buffer: Buffer) -> bytes:
    """Return the 32-byte BLAKE3 hash."""
    return _blake3(buffer).digest()


def blake3_keyed(key: bytes, buffer: Buffer) -> bytes:
    """Return the 32-byte keyed BLAKE3 hash; ``key`` has 32 bytes."""
    return _blake3(buffer, key=key).digest()


def sha1_hasher() -> Hasher:
    """Return an incremental SHA-1."""
    return hashlib.sha1(usedforsecurity=False)


def md5_hasher() -> Hasher:
    """Return an incremental MD5."""
    return hashlib.md5(usedforsecurity=False)


def blake3_hasher() -> Hasher:
    """Return an incremental BLAKE3."""
    return _blake3()


def blake2s_keyed(key: bytes, buffer: Buffer, digest_bytes: int = 16) -> bytes:
    """Return the keyed BLAKE2s (RFC 7693): 0.4 µs, so it may run on every packet."""
    return hashlib.blake2s(buffer, key=key, digest_size=digest_bytes).digest()
