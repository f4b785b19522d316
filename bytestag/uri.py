"""Links: what people exchange (pure).

Printed::

    bytestag://H/name?t=f|d&b3=HEX&ib3=HEX&x.pe=host:port&n=HEX&net=NAME
    sha1://H/name
    magnet:?xt=urn:bstagih:BASE32&dn=name

Read beside these, with unknown query fields ignored::

    sha1dir://H.label/sub/path   sha1:////H/name   sha1://H?label=name&manifest=M
    sha1://H?chunkOf=F~start~end   kachery:zone:sha1:H:label   md5://H   md5dir://H
    magnet:?xt.1=urn:btih:HEX    a bare key

``H`` is the SHA-1 of the file or manifest; in ``urn:bstagih`` of its FileInfo. ``b3`` is the BLAKE3
of the FileInfo (``t=f``) or of the manifest (``t=d``), ``ib3`` that of the manifest's FileInfo if
the manifest is itself in parts. ``x.pe`` are addresses to try, ``n`` the node ID behind them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, unquote

from bytestag.errors import UsageError
from bytestag.keys import KeyBytes

LINK_CHARS_MAX = 65_536
HINTS_PRINTED_MAX = 3
HINTS_READ_MAX = 8
PORT_MIN, PORT_MAX = 1024, 65_535  # nobody is sent to a system's port by a link
NETWORK_CHARS_MAX = 64
PATH_MAX = 64
OPEN_NETWORK = "BYTESTAG"
INFO_SCHEME, TORRENT_SCHEME = "bstagih", "btih"
DIRECTORY_SCHEMES = ("sha1dir", "md5dir")
MD5_SCHEMES = ("md5", "md5dir")
URN_SCHEMES = (INFO_SCHEME, TORRENT_SCHEME)
SCHEMES = ("bytestag", "sha1", "md5", *DIRECTORY_SCHEMES, *URN_SCHEMES)

_HINT = "a link looks like bytestag://2fd4e1c6…/name or sha1://2fd4e1c6…/name"
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_NUMBER = re.compile(r"[0-9]{1,19}")

Hint = tuple[str, int]
Query = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Link:
    """A link, whatever it was written like. ``str(link)`` prints it, always the same way."""

    scheme: str
    """``bytestag``, ``sha1``, ``sha1dir``, ``md5``, ``md5dir``, or in magnet links ``bstagih`` and
    ``btih``."""
    digest: bytes
    """The hash that is named: a :class:`KeyBytes`, but for MD5 its 16 bytes."""
    name: str = ""
    """What it was called: decoration, never to be written to unchecked."""
    kind: str | None = None
    """``f`` file, ``d`` directory, None unknown."""
    b3: bytes = b""
    ib3: bytes = b""
    hints: tuple[Hint, ...] = ()
    node_id: KeyBytes | None = None
    network: str = OPEN_NETWORK
    path: tuple[str, ...] = ()
    """Components below the directory that is named."""
    manifest: KeyBytes | None = None
    """kachery: where to look for the list of chunks."""
    chunk_of: tuple[KeyBytes, int, int] | None = None
    """kachery-p2p: this is that file's bytes from start to end."""

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            _refuse(f"{self.scheme[:32]!r} links are not known")
        if len(self.digest) != (16 if self.scheme in MD5_SCHEMES else KeyBytes.BIT_SIZE // 8):
            _refuse("the hash in the link has the wrong length")
        if self.kind not in ("f", "d", None):
            _refuse("t= is f (file) or d (directory)")
        if any(len(blake3) not in (0, 32) for blake3 in (self.b3, self.ib3)):
            _refuse("b3= and ib3= are 64 hexadecimal digits")
        if len(self.hints) > HINTS_READ_MAX:
            _refuse(f"a link has at most {HINTS_READ_MAX} addresses")
        for host, port in self.hints:
            _check_address(host, port)
        if not 0 < len(self.network) <= NETWORK_CHARS_MAX:
            _refuse(f"net= has 1 to {NETWORK_CHARS_MAX} characters")
        if len(self.path) > PATH_MAX or (self.path and not self._has_path):
            _refuse("the path in the link is too long or names no directory")
        for name in self.path:
            if name in ("", ".", "..") or "/" in name or "\0" in name:
                _refuse(f"{name[:80]!a} is no component of a path")
        try:
            "".join((self.name, self.network, *self.path)).encode("utf-8")
        except UnicodeEncodeError:
            _refuse("a name in the link is not Unicode")

    @property
    def key(self) -> KeyBytes:
        """The key to look up. Raises UsageError for MD5, which names nothing in the network."""
        if self.scheme in MD5_SCHEMES:
            raise UsageError(
                "an md5:// link is found in local stores only", hint="ask for its sha1:// link"
            )
        return KeyBytes(self.digest)

    @property
    def _has_path(self) -> bool:
        """Whether what follows the name is a path below a directory, not decoration."""
        is_plain = self.scheme in ("bytestag", "sha1", "md5")
        is_open = self.scheme == "bytestag" and self.kind is None
        return (is_plain and self.kind == "d") or is_open or self.scheme in DIRECTORY_SCHEMES

    @classmethod
    def parse(cls, text: str) -> Link:
        """Read a link of any form. Raises UsageError, with a hint, if it is none."""
        text = text.strip()
        if len(text) > LINK_CHARS_MAX:
            _refuse(f"a link has at most {LINK_CHARS_MAX:,} characters")
        scheme, colon, rest = text.partition("#")[0].partition(":")
        scheme = scheme.lower()
        if not colon:
            return cls("sha1", _digest(scheme, "sha1"))
        if scheme == "magnet":
            return _parse_magnet(rest)
        if scheme == "kachery":
            return _parse_kachery(rest)
        if scheme not in SCHEMES or scheme in URN_SCHEMES:
            _refuse(f"{scheme[:32]!r} links are not known")
        return _parse_plain(scheme, rest)

    def __str__(self) -> str:
        if self.scheme in URN_SCHEMES:
            key = KeyBytes(self.digest)
            value = key.base32 if self.scheme == INFO_SCHEME else key.base16
            name = [("dn", self.name)] if self.name else []
            fields = [("xt", f"urn:{self.scheme}:{value}"), *name, *self._query()]
            return f"magnet:?{_print_query(fields)}"
        label, path = "", [_quote(name) for name in self.path]
        if self.scheme in DIRECTORY_SCHEMES:
            label = f".{_quote(self.name)}" if self.name else ""
        elif self.name or path:
            path.insert(0, _quote(self.name))
        query = _print_query(list(self._query()))
        location = "/".join((f"{self.scheme}://{self.digest.hex()}{label}", *path))
        return f"{location}?{query}" if query else location

    def _query(self) -> Iterator[tuple[str, str]]:
        if self.kind is not None and self.scheme not in DIRECTORY_SCHEMES:
            yield "t", self.kind
        if self.b3:
            yield "b3", self.b3.hex()
        if self.ib3:
            yield "ib3", self.ib3.hex()
        for host, port in self.hints[:HINTS_PRINTED_MAX]:
            yield "x.pe", format_address(host, port)
        if self.node_id is not None:
            yield "n", self.node_id.base16
        if self.network != OPEN_NETWORK:
            yield "net", self.network
        if self.manifest is not None:
            yield "manifest", self.manifest.base16
        if self.chunk_of is not None:
            key, start, end = self.chunk_of
            yield "chunkOf", f"{key}~{start}~{end}"


def format_address(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> Hint:
    """Read ``host:port`` or ``[IPv6]:port``. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ":" not in host:
            _refuse(f"{text[:80]!r}: brackets are for IPv6 addresses")
    elif ":" in host:
        _refuse(f"{text[:80]!r}: an IPv6 address stands in brackets")
    if not colon or not _NUMBER.fullmatch(port):
        _refuse(f"{text[:80]!r} is not host:port")
    _check_address(host, int(port))
    return host, int(port)


# --- Reading -------------------------------------------------------------------------------------


def _parse_plain(scheme: str, rest: str) -> Link:
    location, _, query_text = rest.partition("?")
    authority, *segments = location.lstrip("/").split("/")
    digest_text, _, label = authority.partition(".")
    query = _read_query(query_text)
    kind = "d" if scheme in DIRECTORY_SCHEMES else _first(query, "t") or None
    names = [_unquote(segment) for segment in segments]
    name = _unquote(label)
    path: tuple[str, ...] = ()
    if scheme in DIRECTORY_SCHEMES:
        path = tuple(filter(None, names))
    elif kind == "d" or (scheme == "bytestag" and kind is None):
        name = (names[0] if names else "") or name
        path = tuple(filter(None, names[1:]))
    else:
        name = next(filter(None, reversed(names)), name)
    name = name or _first(query, "label")
    return _with_query(scheme, _digest(digest_text, scheme), name, kind, path, query)


def _parse_magnet(rest: str) -> Link:
    query = _read_query(rest.removeprefix("?").replace("+", "%20"))
    urns: dict[str, str] = {}
    for key, value in query:
        prefix, _, urn = value.partition(":")
        if key.partition(".")[0] == "xt" and prefix.lower() == "urn":
            scheme, _, digest_text = urn.partition(":")
            urns.setdefault(scheme.lower(), digest_text)
    # Ours first: it says more about the parts.
    scheme = next((scheme for scheme in URN_SCHEMES if scheme in urns), "")
    if not scheme:
        _refuse("the magnet link has no urn:bstagih: or urn:btih:")
    kind = _first(query, "t") or None
    return _with_query(scheme, _digest(urns[scheme], scheme), _first(query, "dn"), kind, (), query)


def _parse_kachery(rest: str) -> Link:
    _zone, _, rest = rest.partition(":")
    algorithm, _, rest = rest.partition(":")
    digest_text, _, label = rest.partition(":")
    if algorithm.lower() != "sha1":
        _refuse("a kachery link is kachery:ZONE:sha1:HASH:LABEL")
    return Link("sha1", _digest(digest_text, "sha1"), _unquote(label))


def _with_query(
    scheme: str,
    digest: bytes,
    name: str,
    kind: str | None,
    path: tuple[str, ...],
    query: Query,
) -> Link:
    addresses = [value for key, value in query if key == "x.pe"]
    node_id, manifest = _first(query, "n"), _first(query, "manifest")
    return Link(
        scheme,
        digest,
        name,
        kind,
        b3=_blake3(_first(query, "b3")),
        ib3=_blake3(_first(query, "ib3")),
        hints=tuple(map(parse_address, addresses[:HINTS_READ_MAX])),
        node_id=KeyBytes(_digest(node_id, "n")) if node_id else None,
        network=_first(query, "net") or OPEN_NETWORK,
        path=path,
        manifest=KeyBytes(_digest(manifest, "manifest")) if manifest else None,
        chunk_of=_chunk_of(_first(query, "chunkOf")),
    )


def _read_query(text: str) -> Query:
    pairs = (field.partition("=") for field in text.split("&") if field)
    return [(_unquote(key), _unquote(value)) for key, _, value in pairs]


def _print_query(fields: Query) -> str:
    return "&".join(f"{key}={quote(value, safe='~:[].')}" for key, value in fields)


def _first(query: Query, name: str) -> str:
    return next((value for key, value in query if key == name), "")


def _digest(text: str, scheme: str) -> bytes:
    """Read the hash of a link: hexadecimal, or base32 where it has 160 bits."""
    if scheme in MD5_SCHEMES:
        if re.fullmatch("[0-9a-fA-F]{32}", text):
            return bytes.fromhex(text)
        _refuse("an MD5 is 32 hexadecimal digits")
    key = KeyBytes.new_silent(text) if text.isascii() and text.isalnum() else None
    if key is None:
        _refuse(f"{text[:80]!r} is not a key" if text else "the link has no key")
    return key


def _blake3(text: str) -> bytes:
    if text and not re.fullmatch("[0-9a-fA-F]{64}", text):
        _refuse("b3= and ib3= are 64 hexadecimal digits")
    return bytes.fromhex(text)


def _chunk_of(text: str) -> tuple[KeyBytes, int, int] | None:
    if not text:
        return None
    key, _, bounds = text.partition("~")
    start, _, end = bounds.partition("~")
    if not _NUMBER.fullmatch(start) or not _NUMBER.fullmatch(end) or int(start) > int(end):
        _refuse("chunkOf= is HASH~START~END")
    return KeyBytes(_digest(key, "sha1")), int(start), int(end)


def _check_address(host: str, port: int) -> None:
    if not PORT_MIN <= port <= PORT_MAX:
        _refuse(f"a port is {PORT_MIN} to {PORT_MAX}, not {port}")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            _refuse(f"{host[:80]!r} is not an IPv6 address")
        if "%" in host:
            _refuse("an address in a link has no scope: it would mean another machine's")
    elif not _HOST_NAME.fullmatch(host):
        _refuse(f"{host[:80]!r} is not a host")


def _quote(text: str) -> str:
    return quote(text, safe="")


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        _refuse(f"{text[:80]!r} is not percent-encoded UTF-8")


def _refuse(message: str) -> NoReturn:
    raise UsageError(message, hint=_HINT)
