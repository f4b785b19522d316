"""What peers say to each other inside a session: typed messages <-> msgpack (pure).

Arrays whose first element is the type. Formats and their use: ``docs/protocol.rst``, "Messages".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Annotated

from bytestag import codec
from bytestag.codec import Meta
from bytestag.config import OFFER_KEYS_MAX, VALUE_BYTES_MAX
from bytestag.network.packets import (
    NAME_BYTES,
    Bin8,
    Bin16,
    Bin20,
    Bin32,
    PrefixBits,
    Row,
    Seconds,
    Size,
)

Hours = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Code = Annotated[int, Meta(ge=0, le=255)]
ROWS_NAMED_MAX = 1024
UNIT_BYTES_MIN = 1024  # so that the units of a value are few: the receiver counts them
VALUES_AT_ONCE_MAX = 64
ValueBytes = Annotated[int, Meta(ge=0, le=VALUE_BYTES_MAX)]
UnitBytes = Annotated[int, Meta(ge=UNIT_BYTES_MIN, le=65535)]


class AbsentReason(enum.IntEnum):
    """Why a GET got no bytes."""

    NOT_HELD = 1
    BUSY = 2
    NOT_PERMITTED = 3
    RANGE = 4


class Get(codec.Struct, tag=1, array_like=True):
    """Send me these bytes; also the credit for them. ``id`` names the transfer."""

    id: Bin20
    slot: Annotated[int, Meta(ge=0, le=65535)]
    key: Bin20
    index: Bin20 | None
    selector: Annotated[bytes, Meta(max_length=32)]
    offset: ValueBytes
    length: ValueBytes


class Found(codec.Struct, tag=2, array_like=True):
    """The bytes follow as units of this size; ``size`` is the whole value's."""

    id: Bin20
    index: Bin20
    blake3: Bin32
    size: ValueBytes
    others: Size
    unit_bytes: UnitBytes


class Absent(codec.Struct, tag=3, array_like=True):
    """No bytes will come."""

    id: Bin20
    reason: Code


class Cancel(codec.Struct, tag=4, array_like=True):
    """Stop sending."""

    id: Bin20


class Entry(codec.Struct, array_like=True):
    """One row of an offer."""

    key: Bin20 | None
    index: Bin20
    blake3: Bin32
    size: ValueBytes
    deposit: Annotated[int, Meta(ge=0, lt=OFFER_KEYS_MAX)] | None = None
    proof: Annotated[bytes, Meta(max_length=193)] = b""
    time_to_live: Seconds = 0
    value: Annotated[bytes, Meta(max_length=1024)] | None = None


class Offer(codec.Struct, tag=5, array_like=True):
    """Rows that the holder may ask for."""

    id: Bin20
    deposits: Annotated[list[bytes], Meta(max_length=OFFER_KEYS_MAX)]
    entries: Annotated[list[Entry], Meta(min_length=1, max_length=OFFER_KEYS_MAX)]


class Answer(codec.Struct, tag=6, array_like=True):
    """A verdict for each entry; accepted ones will be asked for."""

    id: Bin20
    verdicts: Annotated[bytes, Meta(max_length=OFFER_KEYS_MAX)]
    granted: Annotated[list[Hours], Meta(max_length=OFFER_KEYS_MAX)]


class Final(codec.Struct, array_like=True):
    """The last word on one entry."""

    entry: Annotated[int, Meta(ge=0, lt=OFFER_KEYS_MAX)]
    verdict: Code
    granted: Hours


class Stored(codec.Struct, tag=7, array_like=True):
    """Sent after the commit."""

    id: Bin20
    finals: Annotated[list[Final], Meta(max_length=OFFER_KEYS_MAX)]


class Provide(codec.Struct, tag=8, array_like=True):
    """A signed provider record."""

    id: Bin20
    record: Annotated[bytes, Meta(max_length=24_000)]


class Done(codec.Struct, tag=9, array_like=True):
    """The verdict on a Provide."""

    id: Bin20
    verdict: Code


class Prove(codec.Struct, tag=10, array_like=True):
    """Show that you hold these rows."""

    id: Bin20
    nonce: Bin32
    rows: Annotated[list[Row], Meta(max_length=OFFER_KEYS_MAX)]


class Proof(codec.Struct, tag=11, array_like=True):
    """BLAKE3 of each value keyed with the nonce; None where it is not held."""

    id: Bin20
    proofs: Annotated[list[Bin32 | None], Meta(max_length=OFFER_KEYS_MAX)]


class Compare(codec.Struct, tag=12, array_like=True):
    """Do you still hold all that I named to you under this prefix? ``digest`` stands for it."""

    id: Bin20
    prefix_bits: PrefixBits
    prefix: Bin8
    digest: Bin16


class Compared(codec.Struct, tag=13, array_like=True):
    """Yes, or: name the rows."""

    id: Bin20
    is_same: bool


class Names(codec.Struct, tag=14, array_like=True):
    """These rows I hold, and you should: 8 bytes of BLAKE3 each, ascending."""

    id: Bin20
    prefix_bits: PrefixBits
    prefix: Bin8
    names: Annotated[bytes, Meta(max_length=NAME_BYTES * ROWS_NAMED_MAX)]


class Lacking(codec.Struct, tag=15, array_like=True):
    """Bit *i* (of byte *i* / 8, lowest first) is set if the *i*-th named row is not held."""

    id: Bin20
    bitmap: Annotated[bytes, Meta(max_length=ROWS_NAMED_MAX // 8)]


class Want(codec.Struct, array_like=True):
    """Names a value of known size."""

    key: Bin20
    index: Bin20 | None
    selector: Annotated[bytes, Meta(max_length=32)]
    length: Annotated[int, Meta(ge=1, le=VALUE_BYTES_MAX)]


class GetMany(codec.Struct, tag=16, array_like=True):
    """Send me these whole values, one after another as if they were one.

    At most 4 MiB together; 1 MiB where the peer does not say that it takes more.
    """

    id: Bin20
    slot: Annotated[int, Meta(ge=0, le=65535)]
    wants: Annotated[list[Want], Meta(min_length=1, max_length=VALUES_AT_ONCE_MAX)]


class FoundMany(codec.Struct, tag=17, array_like=True):
    """Those follow, as units of this size, whose bit is set (of byte *i* / 8, lowest first)."""

    id: Bin20
    bitmap: Annotated[bytes, Meta(max_length=VALUES_AT_ONCE_MAX // 8)]
    unit_bytes: UnitBytes


def bitmap(flags: Sequence[bool]) -> bytes:
    """Pack flags: bit *i* of byte *i* / 8, lowest first."""
    bits = sum(1 << number for number, flag in enumerate(flags) if flag)
    return bits.to_bytes(-(-len(flags) // 8), "little")


def flags(bitmap: bytes, count: int) -> list[bool]:
    """Unpack a :func:`bitmap`; what it does not reach is False."""
    bits = int.from_bytes(bitmap, "little")
    return [bool(bits >> number & 1) for number in range(count)]


Message = (
    Get | Found | Absent | Cancel | Offer | Answer | Stored | Provide | Done | Prove | Proof
    | Compare | Compared | Names | Lacking | GetMany | FoundMany
)  # fmt: skip

decode: Callable[[codec.Packed], Message] = codec.decoder(Message)
encode = codec.encode
