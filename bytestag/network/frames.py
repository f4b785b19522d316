"""The frames inside a CONTROL datagram: bytes <-> values (pure). Format: ``docs/protocol.rst``."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bytestag.errors import PacketError

FRAGMENT_BYTES_MAX = 1140  # with its head and an ACK it fills a datagram of 1,200
FRAGMENTS_MAX = 64
MESSAGE_BYTES_MAX = FRAGMENT_BYTES_MAX * FRAGMENTS_MAX
UNIT_PAIRS_MAX = 80

PADDING, MESSAGE, ACK, UNITS, PING, CLOSE, PATH_CHALLENGE, PATH_RESPONSE = range(8)

_MESSAGE_HEAD = struct.Struct(">BIBBH")
_ACK = struct.Struct(">BQQ")
_PAIR = struct.Struct(">IQ")


@dataclass(frozen=True, slots=True)
class Message:
    """One fragment of a message."""

    number: int
    fragment: int
    fragments: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """Counters received: ``largest``, and largest − 1 − i for each bit i."""

    largest: int
    bitmap: int

    def covers(self, counter: int) -> bool:
        """Whether it says that a datagram was received."""
        age = self.largest - counter
        return age == 0 or (age > 0 and bool(self.bitmap >> (age - 1) & 1))


@dataclass(frozen=True, slots=True)
class Units:
    """Segments received: (train, bitmap of indices)."""

    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for an ACK."""


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over."""

    reason: int


@dataclass(frozen=True, slots=True)
class PathChallenge:
    """To be sent back from the address where it arrived."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class PathResponse:
    """The answer to a PathChallenge."""

    nonce: bytes


Frame = Message | Ack | Units | Ping | Close | PathChallenge | PathResponse


def fragments(number: int, message: bytes) -> list[bytes]:
    """Return the encoded MESSAGE frames of a message of at most 70,400 bytes."""
    assert len(message) <= MESSAGE_BYTES_MAX
    count = max(1, -(-len(message) // FRAGMENT_BYTES_MAX))
    result = []
    for fragment in range(count):
        body = message[fragment * FRAGMENT_BYTES_MAX : (fragment + 1) * FRAGMENT_BYTES_MAX]
        result.append(_MESSAGE_HEAD.pack(MESSAGE, number, fragment, count, len(body)) + body)
    return result


def encode(frame: Frame) -> bytes:
    """Return the bytes of any frame but a long message's."""
    match frame:
        case Message(number, fragment, count, body):
            return _MESSAGE_HEAD.pack(MESSAGE, number, fragment, count, len(body)) + body
        case Ack(largest, bitmap):
            return _ACK.pack(ACK, largest, bitmap)
        case Units(pairs):
            head = bytes([UNITS, len(pairs)])
            return head + b"".join(_PAIR.pack(train, bitmap) for train, bitmap in pairs)
        case Ping():
            return bytes([PING])
        case Close(reason):
            return bytes([CLOSE, reason])
        case PathChallenge(nonce):
            return bytes([PATH_CHALLENGE]) + nonce
        case PathResponse(nonce):
            return bytes([PATH_RESPONSE]) + nonce


def decode(plaintext: bytes) -> list[Frame]:
    """Return the frames of a CONTROL datagram.

    Raises:
        PacketError: an unknown or truncated frame.
    """
    frames: list[Frame] = []
    position, end = 0, len(plaintext)
    try:
        while position < end:
            kind = plaintext[position]
            if kind == PADDING:
                position += 1
                continue
            frame, position = _decode_one(kind, plaintext, position)
            if position > end:
                raise PacketError("truncated frame")
            frames.append(frame)
    except (struct.error, IndexError) as error:
        raise PacketError("truncated frame") from error
    return frames


def _decode_one(kind: int, text: bytes, at: int) -> tuple[Frame, int]:
    match kind:
        case 1:
            _, number, fragment, count, size = _MESSAGE_HEAD.unpack_from(text, at)
            if not fragment < count <= FRAGMENTS_MAX or size > FRAGMENT_BYTES_MAX:
                raise PacketError("malformed message fragment")
            start = at + _MESSAGE_HEAD.size
            return Message(number, fragment, count, text[start : start + size]), start + size
        case 2:
            _, largest, bitmap = _ACK.unpack_from(text, at)
            return Ack(largest, bitmap), at + _ACK.size
        case 3:
            count = text[at + 1]
            stop = at + 2 + count * _PAIR.size
            if count > UNIT_PAIRS_MAX or stop > len(text):
                raise PacketError("malformed unit acknowledgement")
            return Units(tuple(_PAIR.iter_unpack(text[at + 2 : stop]))), stop
        case 4:
            return Ping(), at + 1
        case 5:
            return Close(text[at + 1]), at + 2
        case 6:
            return PathChallenge(text[at + 1 : at + 9]), at + 9
        case 7:
            return PathResponse(text[at + 1 : at + 9]), at + 9
    raise PacketError("unknown frame")
