"""msgpack with types: the one module that imports msgspec (pure).

A decoder is built once for each type; what does not fit the type raises :class:`PacketError`,
whatever msgspec or Python thought of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bytestag.errors import PacketError

Struct = msgspec.Struct
Raw = msgspec.Raw
Meta = msgspec.Meta
Packed = bytes | memoryview | msgspec.Raw


def _plain(value: object) -> bytes:
    """Encode keys as the bytes that they are; msgspec knows ``bytes`` itself only."""
    if isinstance(value, bytes):
        return bytes(value)
    raise TypeError(f"cannot encode {type(value).__name__}")


_encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode


def encode(value: Any) -> bytes:
    """Return the msgpack bytes of ``value``."""
    return _encode(value)


def decoder(type_: Any) -> Callable[[Packed], Any]:
    """Return a function from msgpack bytes to ``type_``; anything else raises PacketError."""
    decode_ = msgspec.msgpack.Decoder(type_).decode

    def decode(buffer: Packed) -> Any:
        try:
            return decode_(buffer)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
            raise PacketError(f"malformed message: {error}") from error

    return decode
