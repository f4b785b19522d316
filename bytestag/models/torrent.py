"""BitTorrent metainfo, version 1, read as a description of parts (pure).

BEP 3: a bencoded dictionary whose ``info`` names piece length, SHA-1 of each piece, and files; the
SHA-1 of the bencoded ``info`` is the infohash. Bencode has one form for each value (no leading
zeros, keys sorted), and no other is read, so encoding what was decoded gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bytestag.config import MANIFEST_ENTRIES_MAX, MIB
from bytestag.errors import FormatError
from bytestag.hashing import SHA1_BYTES, sha1
from bytestag.keys import KeyBytes
from bytestag.models.canonical import is_count

TORRENT_BYTES_MAX = 16 * MIB  # 800,000 pieces; an empty list costs 28 times its two bytes
DEPTH_MAX = 16  # BEP 3 needs 5
INT_DIGITS_MAX = 20  # -2^63
LENGTH_DIGITS_MAX = 10
PATH_MAX = 64
PIECE_BYTES_MAX = 256 * MIB

Bencode = int | bytes | list[Any] | dict[bytes, Any]


@dataclass(frozen=True, slots=True)
class TorrentFile:
    """One file of a torrent."""

    path: tuple[str, ...]
    """Components, as the torrent has them: never to be written to unchecked."""
    size: int


@dataclass(frozen=True, slots=True)
class TorrentInfo:
    """What a ``.torrent`` says: the files, end to end, cut into pieces of equal size."""

    infohash: KeyBytes
    name: str
    piece_bytes: int
    piece_hashes: bytes
    """SHA-1 of all pieces, joined."""
    files: tuple[TorrentFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def piece_count(self) -> int:
        return len(self.piece_hashes) // SHA1_BYTES

    def pieces(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield SHA-1, offset and size of each piece."""
        size = self.size
        for number in range(self.piece_count):
            offset = number * self.piece_bytes
            hash_ = self.piece_hashes[number * SHA1_BYTES : (number + 1) * SHA1_BYTES]
            yield hash_, offset, min(self.piece_bytes, size - offset)

    @classmethod
    def from_bytes(cls, buffer: bytes) -> TorrentInfo:
        """Read a ``.torrent`` file. Raises FormatError on anything else."""
        metainfo = decode(buffer)
        info = metainfo.get(b"info") if isinstance(metainfo, dict) else None
        if not isinstance(info, dict):
            raise FormatError("this is not a torrent: 'info' is missing")
        if b"pieces" not in info:
            raise FormatError("only version 1 of the torrent format is read")
        name = _text(info.get(b"name"))
        piece_bytes, hashes = info.get(b"piece length"), info[b"pieces"]
        if not is_count(piece_bytes) or not 0 < piece_bytes <= PIECE_BYTES_MAX:
            raise FormatError("'piece length' is not a size")
        if not isinstance(hashes, bytes) or len(hashes) % SHA1_BYTES:
            raise FormatError("'pieces' is not a row of SHA-1")
        files = tuple(_files(info, name))
        torrent = cls(KeyBytes(sha1(encode(info))), name, piece_bytes, hashes, files)
        if torrent.piece_count != -(-torrent.size // piece_bytes):
            raise FormatError("the number of pieces does not fit the size")
        return torrent


def _files(info: dict[bytes, Any], name: str) -> Iterator[TorrentFile]:
    if b"files" not in info:
        if not is_count(info.get(b"length")):
            raise FormatError("'length' is not a size")
        yield TorrentFile((name,), info[b"length"])
        return
    files = info[b"files"]
    if b"length" in info or not isinstance(files, list) or len(files) > MANIFEST_ENTRIES_MAX:
        raise FormatError("'files' is not a list of files")
    for item in files:
        path = item.get(b"path") if isinstance(item, dict) else None
        if not isinstance(path, list) or not 0 < len(path) <= PATH_MAX:
            raise FormatError("'path' is not a list of names")
        if not is_count(item.get(b"length")):
            raise FormatError("'length' is not a size")
        yield TorrentFile((name, *map(_text, path)), item[b"length"])


def _text(value: object) -> str:
    if not isinstance(value, bytes) or not value:
        raise FormatError("a name is missing")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("a name is not UTF-8") from error


# --- Bencode -------------------------------------------------------------------------------------


def encode(value: Bencode) -> bytes:
    """Return the bencoding of a value."""
    chunks: list[bytes] = []
    _encode(value, chunks, DEPTH_MAX)
    return b"".join(chunks)


def decode(buffer: bytes) -> Bencode:
    """Return the value in ``buffer``. Raises FormatError unless it is bencode, whole and strict."""
    if len(buffer) > TORRENT_BYTES_MAX:
        raise FormatError(
            f"{len(buffer):,} bytes, more than the {TORRENT_BYTES_MAX:,} that are read"
        )
    value, end = _decode(buffer, 0, DEPTH_MAX)
    if end != len(buffer):
        raise FormatError("bytes follow the bencoded value")
    return value


def _encode(value: Bencode, chunks: list[bytes], depth_left: int) -> None:
    if depth_left < 0:
        raise FormatError(f"nested more than {DEPTH_MAX} deep")
    if isinstance(value, bytes):
        chunks += (b"%d:" % len(value), value)
    elif type(value) is int:
        chunks.append(b"i%de" % value)
    elif isinstance(value, list):
        chunks.append(b"l")
        for item in value:
            _encode(item, chunks, depth_left - 1)
        chunks.append(b"e")
    elif isinstance(value, dict) and all(isinstance(key, bytes) for key in value):
        chunks.append(b"d")
        for key in sorted(value):
            _encode(key, chunks, depth_left - 1)
            _encode(value[key], chunks, depth_left - 1)
        chunks.append(b"e")
    else:
        raise FormatError(f"{type(value).__name__} has no bencoding")


def _decode(buffer: bytes, at: int, depth_left: int) -> tuple[Bencode, int]:
    """Return the value that begins at ``at``, and where it ends."""
    if depth_left < 0:
        raise FormatError(f"nested more than {DEPTH_MAX} deep")
    kind = buffer[at : at + 1]
    if kind == b"i":
        return _number(buffer, at + 1, b"e", INT_DIGITS_MAX)
    if kind == b"l":
        items: list[Any] = []
        at += 1
        while buffer[at : at + 1] != b"e":
            item, at = _decode(buffer, at, depth_left - 1)
            items.append(item)
        return items, at + 1
    if kind == b"d":
        return _dictionary(buffer, at + 1, depth_left)
    return _string(buffer, at)


def _dictionary(buffer: bytes, at: int, depth_left: int) -> tuple[dict[bytes, Any], int]:
    fields: dict[bytes, Any] = {}
    last: bytes | None = None
    while buffer[at : at + 1] != b"e":
        key, at = _string(buffer, at)
        if last is not None and key <= last:
            raise FormatError("the keys of a bencoded dictionary are not sorted")
        last = key
        fields[key], at = _decode(buffer, at, depth_left - 1)
    return fields, at + 1


def _string(buffer: bytes, at: int) -> tuple[bytes, int]:
    length, start = _number(buffer, at, b":", LENGTH_DIGITS_MAX)
    end = start + length
    if length < 0 or end > len(buffer):
        raise FormatError("a bencoded string is longer than what is there")
    return buffer[start:end], end


def _number(buffer: bytes, at: int, end_mark: bytes, digits_max: int) -> tuple[int, int]:
    end = buffer.find(end_mark, at, at + digits_max + 1)
    text = buffer[at:end] if end >= 0 else b""
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or (digits[0:1] == b"0" and text != b"0"):
        raise FormatError("a bencoded number is malformed")
    return int(text), end + 1
