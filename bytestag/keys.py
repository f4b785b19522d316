"""Keys: 160-bit names and the XOR metric between them (pure).

Maymounkov & Mazières, "Kademlia" (2002): the distance of two keys is the integer of their XOR.
A key is an immutable ``bytes`` of 20, so it is hashed, compared and sent as such. In text it is
written as hexadecimal, base32 (magnet links) or base64 (JSON); all three are read.
"""

from __future__ import annotations

import base64
import binascii
import functools
import random
import secrets
from collections.abc import Callable
from typing import Literal, Protocol, cast, overload

from bytestag.errors import UsageError
from bytestag.hashing import sha1

BIT_SIZE = 160
BYTE_SIZE = BIT_SIZE // 8


class KeyBytes(bytes):
    """A key or node ID.

    ::

        KeyBytes(b"....................")   # 20 raw bytes
        KeyBytes("37aa63c77398d954473262e1a0057c1e632eda77")   # hex, else base32, else base64
        KeyBytes()                          # a random one

    Raises :class:`UsageError`, a ``ValueError``, for anything that is not 160 bits.
    """

    __slots__ = ()

    BIT_SIZE = BIT_SIZE

    def __new__(cls, value: bytes | bytearray | memoryview | str | None = None) -> KeyBytes:
        if type(value) is bytes and len(value) == BYTE_SIZE:
            return super().__new__(cls, value)  # every packet and row comes this way: 0.2 µs
        if value is None:
            value = secrets.token_bytes(BYTE_SIZE)
        elif isinstance(value, str):
            value = _text_to_bytes(value)
        elif not isinstance(value, bytes | bytearray | memoryview):
            raise UsageError(f"a key is bytes or text, not {type(value).__name__}")
        self = super().__new__(cls, value)
        if len(self) != BYTE_SIZE:
            raise UsageError(f"a key has {BYTE_SIZE} bytes, not {len(self)}")
        return self

    @classmethod
    def new_hash(cls, bytes_: bytes | bytearray | memoryview) -> KeyBytes:
        """Return the SHA-1 of ``bytes_`` as a key."""
        return cls(sha1(bytes_))

    @classmethod
    def new_silent(cls, value: bytes | bytearray | memoryview | str | None) -> KeyBytes | None:
        """Return ``value`` as a key, or None if it is not one (None itself is not)."""
        if value is None:
            return None
        try:
            return cls(value)
        except ValueError:
            return None

    @property
    def base16(self) -> str:
        """Lower-case hexadecimal, as links have it."""
        return self.hex()

    @property
    def base32(self) -> str:
        """Base32, as magnet links have it."""
        return bytes_to_b32(self)

    @property
    def base64(self) -> str:
        """Padded base64, as JSON has it."""
        return bytes_to_b64(self)

    @property
    def binary(self) -> bytes:
        """The 20 bytes, without the class."""
        return bytes(self)

    @property
    def binary_str(self) -> str:
        """160 zeros and ones, for people who study distances."""
        return f"{self.integer:0{BIT_SIZE}b}"

    @property
    def integer(self) -> int:
        """The key as a big-endian number."""
        return int.from_bytes(self, "big")

    def distance(self, other: bytes) -> bytes:
        """Return the XOR of both keys, which sorts by nearness as bytes."""
        return self.distance_int(other).to_bytes(BYTE_SIZE, "big")

    def distance_int(self, other: bytes) -> int:
        """Return the XOR of both keys as a number."""
        return int.from_bytes(self, "big") ^ int.from_bytes(other, "big")

    def validate(self) -> None:
        """Raise ValueError unless this has 160 bits; keys are born valid, so it never does."""
        if len(self) != BYTE_SIZE:
            raise UsageError(f"a key has {BYTE_SIZE} bytes, not {len(self)}")

    def validate_value(self, value: bytes | bytearray | memoryview) -> None:
        """Raise ValueError unless this key is the SHA-1 of ``value``."""
        self.validate_hash_value(self, value)

    @classmethod
    def validate_hash_value(cls, hash_bytes: bytes, value: bytes | bytearray | memoryview) -> None:
        """Raise ValueError unless ``hash_bytes`` is the SHA-1 of ``value``."""
        if sha1(value) != bytes(hash_bytes):
            raise UsageError("the value does not have the hash that its key says")

    def __repr__(self) -> str:
        return f"KeyBytes('{self.hex()}')"

    def __str__(self) -> str:
        return self.hex()


# --- Distances -----------------------------------------------------------------------------------


def leading_zero_bits(bytes_: bytes) -> int:
    """Return how many zero bits come before the first one."""
    return len(bytes_) * 8 - int.from_bytes(bytes_, "big").bit_length()


def compute_bucket_number(key_1: bytes, key_2: bytes) -> int:
    """Return the leading zero bits of the XOR: 0 is the far half, 159 the nearest neighbour.

    A key has no bucket for itself: equal keys give 160.
    """
    return BIT_SIZE - (int.from_bytes(key_1, "big") ^ int.from_bytes(key_2, "big")).bit_length()


def random_bucket_key(
    node_key: bytes,
    bucket_number: int,
    bit_size: int = BIT_SIZE,
    rng: random.Random | None = None,
) -> KeyBytes:
    """Return a random key whose bucket number, as seen from ``node_key``, is ``bucket_number``.

    With a ``bit_size`` below 160 only the first so many bits differ from ``node_key``.
    """
    if not 0 <= bucket_number < bit_size <= BIT_SIZE:
        raise UsageError(f"there is no bucket {bucket_number} in a space of {bit_size} bits")
    low_bits = bit_size - bucket_number - 1
    low = (rng or secrets.SystemRandom()).getrandbits(low_bits)
    distance = (1 << low_bits | low) << (BIT_SIZE - bit_size)
    return KeyBytes((int.from_bytes(node_key, "big") ^ distance).to_bytes(BYTE_SIZE, "big"))


# --- Bytes and text ------------------------------------------------------------------------------


class _Decoder(Protocol):
    @overload
    def __call__(self, s: str, ignore_error: Literal[False] = ...) -> bytes: ...

    @overload
    def __call__(self, s: str, ignore_error: bool) -> bytes | None: ...


def _silenceable(decode: Callable[[str], bytes]) -> _Decoder:
    """Give a decoder the ``ignore_error`` of the 2012 interface: None instead of UsageError."""

    @functools.wraps(decode)
    def wrapper(s: str, ignore_error: bool = False) -> bytes | None:
        try:
            return decode(s)
        except (ValueError, binascii.Error) as error:
            if ignore_error:
                return None
            raise UsageError(f"not a hash in text form: {error}") from error

    return cast(_Decoder, wrapper)


@_silenceable
def b16_to_bytes(s: str) -> bytes:
    """Convert hexadecimal text of any case to bytes."""
    return base64.b16decode(s, casefold=True)


@_silenceable
def b32_to_bytes(s: str) -> bytes:
    """Convert padded base32 text of any case to bytes."""
    return base64.b32decode(s, casefold=True)


@_silenceable
def b64_to_bytes(s: str) -> bytes:
    """Convert padded base64 text to bytes; a foreign character is an error."""
    return base64.b64decode(s, validate=True)


def bytes_to_b16(b: bytes) -> str:
    """Convert bytes to lower-case hexadecimal."""
    return b.hex()


def bytes_to_b32(b: bytes) -> str:
    """Convert bytes to padded base32."""
    return base64.b32encode(b).decode("ascii")


def bytes_to_b64(b: bytes) -> str:
    """Convert bytes to padded base64."""
    return base64.b64encode(b).decode("ascii")


def _text_to_bytes(text: str) -> bytes:
    """Read hex, base32 or base64, whichever gives a key; their lengths (40, 32, 28) differ."""
    for decode in (b16_to_bytes, b32_to_bytes, b64_to_bytes):
        value = decode(text, ignore_error=True)
        if value is not None and len(value) == BYTE_SIZE:
            return value
    raise UsageError(
        f"not a key: {text[:64]!r}", hint="a key is 40 hexadecimal digits, or base32 or base64"
    )
