"""Bencode and torrent metainfo: strict, bounded."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.hashing import sha1
from bytestag.models import torrent
from bytestag.models.torrent import TorrentInfo, decode, encode

values = st.recursive(
    st.integers(-(10**18), 10**18) | st.binary(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


def metainfo(**changes: Any) -> bytes:
    info: dict[bytes, Any] = {
        b"name": b"x.bin",
        b"piece length": 4,
        b"pieces": sha1(b"abcd") + sha1(b"ef"),
        b"length": 6,
    }
    for name, value in changes.items():
        key = name.replace("_", " ").encode()
        if value is None:
            info.pop(key, None)
        else:
            info[key] = value
    return encode({b"announce": b"udp://tracker.example", b"info": info})


@given(values)
def test_what_is_encoded_is_decoded(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=40) | st.text("ilde:-0123a", max_size=40).map(str.encode))
def test_any_bytes_are_the_one_form_of_a_value_or_refused(buffer: bytes) -> None:
    try:
        value = decode(buffer)
    except FormatError:
        return
    assert encode(value) == buffer


@pytest.mark.parametrize(
    "buffer",
    [
        b"", b"i", b"ie", b"i-e", b"i-0e", b"i01e", b"i1", b"i+1e", b"i1 e", b"i1_0e", b"-1:a",
        b"1", b"2:a", b"01:a", b":", b"l", b"li1e", b"d", b"d1:a", b"di1ei1ee", b"d1:ae", b"x",
        b"d1:bi1e1:ai1ee", b"d1:ai1e1:ai1ee", b"i1ei1e", b"9999999999:a", b"99999999999999:a",
        b"i" + b"9" * 30 + b"e", b"l" * 100_000, b"l" * 18 + b"e" * 18,
    ],
    ids=lambda buffer: repr(buffer[:20]),
)  # fmt: skip
def test_malformed_bencode_is_refused(buffer: bytes) -> None:
    with pytest.raises(FormatError):
        decode(buffer)


@pytest.mark.parametrize("value", ["text", 1.5, True, None, {"a": 1}])
def test_what_has_no_bencoding_is_refused(value: Any) -> None:
    with pytest.raises(FormatError):
        encode(value)


def test_a_value_that_is_too_deep_is_not_encoded() -> None:
    value: Any = []
    for _ in range(17):
        value = [value]
    with pytest.raises(FormatError):
        encode(value)


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torrent, "TORRENT_BYTES_MAX", 10)
    with pytest.raises(FormatError, match="more than"):
        decode(b"20:" + b"x" * 20)


def test_a_torrent_of_one_file_is_a_description_of_parts() -> None:
    info = TorrentInfo.from_bytes(metainfo())
    assert (info.name, info.size, info.piece_count) == ("x.bin", 6, 2)
    assert list(info.pieces()) == [(sha1(b"abcd"), 0, 4), (sha1(b"ef"), 4, 2)]
    assert [(file.path, file.size) for file in info.files] == [(("x.bin",), 6)]
    start = b"d8:announce21:udp://tracker.example4:info"
    assert info.infohash == sha1(metainfo()[len(start) : -1])


def test_a_torrent_of_several_files_lays_them_end_to_end() -> None:
    files = [{b"length": 4, b"path": [b"a"]}, {b"length": 2, b"path": [b"d", "ü".encode()]}]
    info = TorrentInfo.from_bytes(metainfo(length=None, files=files))
    assert [file.path for file in info.files] == [("x.bin", "a"), ("x.bin", "d", "ü")]
    assert info.size == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"name": b""},
        {"name": b"\xff"},
        {"name": 5},
        {"piece_length": 0},
        {"piece_length": -4},
        {"piece_length": 2**40},
        {"piece_length": b"4"},
        {"pieces": None},
        {"pieces": b"x" * 39},
        {"pieces": sha1(b"abcd")},
        {"pieces": [sha1(b"abcd")]},
        {"length": None},
        {"length": -1},
        {"length": 2**63},
        {"length": 9},
        {"files": []},
        {"length": None, "files": {}},
        {"length": None, "files": [1]},
        {"length": None, "files": [{b"length": 6}]},
        {"length": None, "files": [{b"length": 6, b"path": []}]},
        {"length": None, "files": [{b"length": 6, b"path": [b"a"] * 65}]},
        {"length": None, "files": [{b"length": -6, b"path": [b"a"]}]},
        {"length": None, "files": [{b"length": 6, b"path": [5]}]},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_a_torrent_that_lies_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        TorrentInfo.from_bytes(metainfo(**changes))


@pytest.mark.parametrize("buffer", [b"i1e", b"de", b"d4:infoi1ee"])
def test_what_is_no_torrent_is_refused(buffer: bytes) -> None:
    with pytest.raises(FormatError, match="not a torrent"):
        TorrentInfo.from_bytes(buffer)
