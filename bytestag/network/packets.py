"""The control plane's datagrams: bytes <-> requests and replies (pure).

The only parser of control datagrams. rpcudp's frame: type byte, 20-byte sequence ID, msgpack. What
does not decode raises PacketError and nothing else. Formats: ``docs/protocol.rst``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from bytestag import codec
from bytestag.codec import Meta
from bytestag.config import DATAGRAM_BYTES_MAX, PROTOCOL_VERSION, K
from bytestag.crypto.providers import RENEWAL_BYTES_MAX, RENEWED_MAX
from bytestag.errors import PacketError

REQUEST = 0x00
RESPONSE = 0x01
HEAD_BYTES = 21
DATAGRAM_BYTES_RECEIVED_MAX = 1452
STOCK_DATAGRAM_BYTES_MAX = 8192 + HEAD_BYTES
PADDED_BYTES = 400

Bin8 = Annotated[bytes, Meta(min_length=8, max_length=8)]
Bin16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bin20 = Annotated[bytes, Meta(min_length=20, max_length=20)]
Bin32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
Size = Annotated[int, Meta(ge=0, le=2**40)]
Capabilities = Annotated[int, Meta(ge=0, le=255)]
PrefixBits = Annotated[int, Meta(ge=0, le=64)]
RESULT_BYTES_MAX = max(RENEWED_MAX, 32)
NOT_HELD = b"\0"
NAME_BYTES = 8
NAMES_IN_QUERY_MAX = 128
"""With a token, so many have room in 1,200 bytes."""


class Row(codec.Struct, array_like=True):
    """Names a row."""

    key: Bin20
    index: Bin20
    blake3: Bin32


class Comparison(codec.Struct, array_like=True):
    """These rows under a prefix I hold, ascending, 8 bytes each: which of them do you lack?"""

    prefix_bits: PrefixBits
    prefix: Bin8
    names: Annotated[bytes, Meta(max_length=NAME_BYTES * NAMES_IN_QUERY_MAX)]


class Sample(codec.Struct, array_like=True):
    """Show that you hold this row."""

    nonce: Bin32
    row: Row


class Subject(TypedDict, total=False):
    """What a request is about, beside its target."""

    renewal: bytes
    comparison: Comparison
    sample: Sample


class Query(codec.Struct, omit_defaults=True, rename={
    "version": "v", "network": "n", "node_id": "i", "capabilities": "c", "token": "t",
    "target": "k", "wants_card": "w", "padding": "p", "renewal": "r", "comparison": "q",
    "sample": "s",
}):  # fmt: skip
    """The map of a request."""

    version: int
    network: Bin8
    node_id: Bin20 | None = None
    capabilities: Capabilities = 0
    token: Bin16 | None = None
    target: Bin20 | None = None
    wants_card: bool = False
    padding: Annotated[bytes, Meta(max_length=1452)] = b""
    renewal: Annotated[bytes, Meta(max_length=RENEWAL_BYTES_MAX)] = b""
    comparison: Comparison | None = None
    sample: Sample | None = None


class Held(codec.Struct, array_like=True):
    """A row that the answerer has under the key."""

    index: Bin20
    size: Size
    blake3: Bin32


class Provider(codec.Struct, array_like=True):
    """A node that said it serves the key."""

    node_id: Bin20
    seconds_left: Seconds
    addresses: Annotated[bytes, Meta(max_length=200)]


class Reply(codec.Struct, omit_defaults=True, rename={
    "version": "v", "network": "n", "node_id": "i", "capabilities": "c", "observed": "o",
    "token": "t", "card": "d", "contacts4": "4", "contacts6": "6", "held": "h", "more": "m",
    "value": "l", "providers": "p", "result": "r", "radius": "u",
}):  # fmt: skip
    """The map of a response."""

    version: int
    network: Bin8
    observed: Annotated[bytes, Meta(max_length=24)]
    token: Bin16
    node_id: Bin20 | None = None
    capabilities: Capabilities = 0
    card: Annotated[bytes, Meta(max_length=400)] | None = None
    contacts4: Annotated[bytes, Meta(max_length=26 * K)] = b""
    contacts6: Annotated[bytes, Meta(max_length=38 * K)] = b""
    held: Annotated[list[Held], Meta(max_length=8)] = []  # noqa: RUF012
    more: Size = 0
    value: Annotated[bytes, Meta(max_length=1024)] | None = None
    providers: Annotated[list[Provider], Meta(max_length=8)] = []  # noqa: RUF012
    result: Annotated[bytes, Meta(max_length=RESULT_BYTES_MAX)] = b""
    """Of a renewal: one byte a record. Of a comparison: the bitmap of what is lacking. Of a sample:
    the proof, one zero byte if the row is not held. Empty if the tables were not looked at."""
    radius: Annotated[int, Meta(ge=0, le=160)] = 160


FINDS = frozenset({"bt_find_node", "bt_find_value"})
REPAIRS = frozenset({"bt_compare", "bt_prove"})
"""What is done for those alone whose address a token proves."""
_SUBJECTS = (("renewal", "bt_renew"), ("comparison", "bt_compare"), ("sample", "bt_prove"))
NATIVE_METHODS = frozenset({"bt_ping", "bt_renew", *FINDS, *REPAIRS})
STOCK_METHODS = frozenset({"stun", "ping", "store", "find_node", "find_value"})

_decode_request: Callable[[codec.Packed], tuple[str, list[codec.Raw]]] = codec.decoder(
    tuple[str, list[codec.Raw]]
)
_decode_query: Callable[[codec.Packed], Query] = codec.decoder(Query)
_decode_reply: Callable[[codec.Packed], Reply] = codec.decoder(Reply)
_decode_any = codec.decoder(Any)


def split(datagram: bytes) -> tuple[bytes, bytes]:
    """Return (sequence ID, body) of a control datagram."""
    if len(datagram) <= HEAD_BYTES:
        raise PacketError("truncated control datagram")
    return datagram[1:HEAD_BYTES], datagram[HEAD_BYTES:]


def decode_request(body: bytes) -> tuple[str, list[codec.Raw]]:
    """Return (method, undecoded arguments)."""
    method, arguments = _decode_request(body)
    if method not in NATIVE_METHODS and method not in STOCK_METHODS:
        raise PacketError("unknown method")
    if method in NATIVE_METHODS:
        _check_length(body)
    return method, arguments


def decode_query(method: str, arguments: list[codec.Raw], network_id: bytes) -> Query:
    """Decode the one argument of a native request."""
    if len(arguments) != 1:
        raise PacketError("a native request has one argument")
    query = _decode_query(arguments[0])
    if query.version != PROTOCOL_VERSION or query.network != network_id:
        raise PacketError("another version or network")
    if query.target is None and method in FINDS:
        raise PacketError("a find without a target")
    for subject, its_method in _SUBJECTS:
        if bool(getattr(query, subject)) != (method == its_method):
            raise PacketError("a renewal, a comparison and a sample have methods of their own")
    return query


def decode_stock_arguments(arguments: list[codec.Raw]) -> list[Any]:
    """Decode the arguments of a stock request into plain values."""
    return [_decode_any(argument) for argument in arguments]


def decode_reply(body: bytes, network_id: bytes) -> Reply:
    """Decode a native response."""
    _check_length(body)
    reply = _decode_reply(body)
    if reply.version != PROTOCOL_VERSION or reply.network != network_id:
        raise PacketError("another version or network")
    if len(reply.contacts4) % 26 or len(reply.contacts6) % 38:
        raise PacketError("truncated contacts")
    return reply


def decode_stock_reply(body: bytes) -> Any:
    """Decode a stock response into plain values."""
    return _decode_any(body)


def encode_request(sequence_id: bytes, method: str, arguments: list[Any]) -> bytes:
    """Return a request datagram, padded to 400 bytes or a few more if it carries no token."""
    datagram = _request(sequence_id, method, arguments)
    query = arguments[0] if arguments else None
    if isinstance(query, Query) and query.token is None and len(datagram) < PADDED_BYTES:
        query.padding = bytes(PADDED_BYTES - len(datagram))
        datagram = _request(sequence_id, method, arguments)
    return datagram


def encode_response(sequence_id: bytes, result: Any) -> bytes:
    """Return a response datagram."""
    return bytes([RESPONSE]) + sequence_id + codec.encode(result)


def encode_reply(sequence_id: bytes, reply: Reply, bytes_max: int = DATAGRAM_BYTES_MAX) -> bytes:
    """Return a response of at most ``bytes_max``: far contacts go first, then the rest.

    A value that has no room even without contacts and providers goes before them.
    """
    datagram = encode_response(sequence_id, reply)
    if reply.value is not None and len(datagram) > bytes_max:
        lists = (reply.contacts4, reply.contacts6, reply.providers)
        if len(datagram) - sum(len(codec.encode(part)) for part in lists) > bytes_max:
            reply.value = None
            datagram = encode_response(sequence_id, reply)
    while len(datagram) > bytes_max:
        excess = len(datagram) - bytes_max
        if reply.contacts6:
            reply.contacts6 = reply.contacts6[: -38 * -(-excess // 38)]
        elif reply.contacts4:
            reply.contacts4 = reply.contacts4[: -26 * -(-excess // 26)]
        elif reply.providers:
            reply.providers = reply.providers[:-1]
        elif reply.value is not None:
            reply.value = None
        elif reply.held:
            reply.held, reply.more = reply.held[:-1], reply.more + 1
        elif reply.card is not None:
            reply.card = None
        else:
            raise PacketError("no room for a reply")
        datagram = encode_response(sequence_id, reply)
    return datagram


def _check_length(body: bytes) -> None:
    if len(body) + HEAD_BYTES > DATAGRAM_BYTES_RECEIVED_MAX:
        raise PacketError("native datagram too long")


def _request(sequence_id: bytes, method: str, arguments: list[Any]) -> bytes:
    return bytes([REQUEST]) + sequence_id + codec.encode([method, arguments])
