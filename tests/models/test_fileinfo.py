"""FileInfo and list values: vectors, round trips, lies."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.canonical import b64
from bytestag.models.fileinfo import FileInfo, PartEntry, PartList, build, one_part_bytes
from bytestag.models.parts import ENTRY_BYTES, LIST_ENTRIES_MAX

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "fileinfo.json").read_text("utf-8")
)
PART = 262_144
SHA1 = sha1(b"file")
BLAKE3 = blake3(b"file")


def hashes(count: int) -> Iterator[tuple[bytes, bytes]]:
    return ((sha1(b"%d" % number), blake3(b"%d" % number)) for number in range(count))


def flat(**changes: Any) -> bytes:
    """Return a valid description of two parts, with some fields changed or (None) left out."""
    fields: dict[str, Any] = {
        "!": "BytestagFileInfo",
        "hash": b64(SHA1),
        "b3": b64(BLAKE3),
        "parts": [b64(a) for a, _ in hashes(2)],
        "parts_b3": [b64(b) for _, b in hashes(2)],
        "size": PART + 1,
    } | changes
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


def large(**changes: Any) -> bytes:
    """Return a valid description in two lists."""
    info, _ = build(SHA1, BLAKE3, PART * (LIST_ENTRIES_MAX + 1), hashes(LIST_ENTRIES_MAX + 1))
    fields = info.to_json() | changes
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()


def test_the_vector_of_2012_holds() -> None:
    hash_ = KeyBytes("jbip9t8iC9lEz3jndkm5I2fTWV0=")
    info = FileInfo(hash_, size=None, parts=(PartEntry(hash_, b"", 0, PART),))
    assert info.id.base16 == "54a9acf27eb21b1a4b1cbd5cba5fac7a4cafb967"
    assert FileInfo.from_bytes(info.to_bytes()) == info


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    info = FileInfo.from_bytes(bytes.fromhex(vector["bytes"]))
    assert info.to_bytes().hex() == vector["bytes"]
    assert info.id.base16 == vector["id"]
    assert info.size == vector["size"]
    assert info.part_count == vector["part_count"]
    assert [entry.sha1.hex() for entry in info.lists] == vector["lists"]


@given(st.integers(0, 40 * 1024), st.lists(st.text("aü/.", min_size=1, max_size=5), max_size=3))
def test_a_description_is_read_back(size: int, filename: list[str]) -> None:
    count = -(-size // 1024)
    info, values = build(SHA1, BLAKE3, size, hashes(count), filename, part_bytes=1024)
    assert values == []
    again = FileInfo.from_bytes(info.to_bytes())
    assert again == info
    assert again.filename == tuple(filename)
    assert again.part_count == count
    ranges = [(part.offset, part.size) for part in again.parts]
    assert list(again.part_ranges()) == ranges
    assert sum(length for _, length in ranges) == size


def test_an_empty_file_has_no_parts() -> None:
    info, values = build(sha1(b""), blake3(b""), 0, [])
    assert (info.parts, info.lists, values, info.part_count) == ((), (), [], 0)
    assert FileInfo.from_bytes(info.to_bytes()) == info
    assert b'"parts":[]' in info.to_bytes()


def test_a_large_file_is_described_by_lists_that_name_each_part() -> None:
    count = LIST_ENTRIES_MAX + 3
    size = (count - 1) * 1024 + 7
    info, values = build(SHA1, BLAKE3, size, hashes(count), part_bytes=1024)
    assert [len(value) for value in values] == [LIST_ENTRIES_MAX * ENTRY_BYTES, 3 * ENTRY_BYTES]
    again = FileInfo.from_bytes(info.to_bytes())
    assert again == info
    assert again.parts == ()
    parts = [
        part for number, value in enumerate(values) for part in again.list_parts(number, value)
    ]
    assert [(part.sha1, part.blake3) for part in parts] == list(hashes(count))
    assert [(part.offset, part.size) for part in parts] == list(again.part_ranges())
    assert sum(part.size for part in parts) == size
    assert PartList.pack(parts[-3:]) == values[1]


def test_the_flat_form_ends_at_4096_parts() -> None:
    info, values = build(SHA1, BLAKE3, 4096 * 1024, hashes(4096), part_bytes=1024)
    assert len(info.parts) == 4096
    assert values == []
    info, values = build(SHA1, BLAKE3, 4096 * 1024 + 1, hashes(4097), part_bytes=1024)
    assert (len(info.lists), len(values)) == (1, 1)


def test_a_terabyte_is_a_root_of_some_sixty_kilobytes() -> None:
    fields = FileInfo.from_bytes(large()).to_json()
    count = -(-(10**12) // PART)
    fields |= {"size": 10**12, "lists": fields["lists"][:1] * -(-count // LIST_ENTRIES_MAX)}
    info = FileInfo.from_json(fields)
    assert len(info.lists) == 757
    assert info.part_count == count
    assert len(info.to_bytes()) < 60_000


def test_a_list_value_that_lies_is_refused() -> None:
    info, (value,) = build(SHA1, BLAKE3, 5000 * 1024, hashes(5000), part_bytes=1024)
    for wrong in (b"", value[:-1], value[:-ENTRY_BYTES], bytes([value[0] ^ 1]) + value[1:]):
        with pytest.raises(FormatError):
            info.list_parts(0, wrong)
    for wrong in (b"", b"x" * 53, bytes(ENTRY_BYTES * (LIST_ENTRIES_MAX + 1))):
        with pytest.raises(FormatError):
            PartList.unpack(wrong)
    with pytest.raises(FormatError):
        PartList.pack(hashes(LIST_ENTRIES_MAX + 1))


@pytest.mark.parametrize("count", [4, 6, 4999, 5001])
def test_building_with_a_wrong_number_of_parts_is_refused(count: int) -> None:
    size = (5 if count < 10 else 5000) * 1024
    with pytest.raises(FormatError):
        build(SHA1, BLAKE3, size, hashes(count), part_bytes=1024)


def test_unknown_and_reserved_fields_are_kept() -> None:
    extra = {"enc": {"cipher": 1}, "parity": [1], "pack": "x", "needs": [], "Ω": 1.5}
    info = FileInfo.from_bytes(flat(**extra))
    assert dict(info.extra) == extra
    again = FileInfo.from_bytes(info.to_bytes())
    assert again == info
    assert json.loads(info.to_bytes())["enc"] == {"cipher": 1}


def test_a_needed_feature_that_is_not_known_is_named_in_the_error() -> None:
    for name, word in (("enc", "reserved"), ("teleport", "unknown")):
        with pytest.raises(FormatError, match=f"'{name}'.*{word}") as caught:
            FileInfo.from_bytes(flat(needs=[name]))
        assert caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"!": "BytestagCollectionInfo"},
        {"hash": None},
        {"hash": "x"},
        {"hash": b64(BLAKE3)},
        {"hash": 5},
        {"hash": "!" * 28},
        {"b3": b64(SHA1)},
        {"b3": ""},
        {"size": -1},
        {"size": 2**63},
        {"size": 1.0},
        {"size": True},
        {"size": "5"},
        {"size": 0},
        {"size": PART},
        {"size": 2 * PART + 1},
        {"parts": None},
        {"parts": {}},
        {"parts": [1, 2]},
        {"parts": [b64(SHA1)]},
        {"parts": [b64(SHA1)] * 30_000},
        {"parts": [b64(SHA1)] * 30_000, "parts_b3": [b64(BLAKE3)] * 30_000, "size": 30_000 * PART},
        {"parts_b3": [b64(BLAKE3)]},
        {"parts_b3": [b64(SHA1)] * 2},
        {"lists": []},
        {"lists": [b64(SHA1 + BLAKE3)]},
        {"part_bytes": 0},
        {"part_bytes": 1},
        {"part_bytes": 3000},
        {"part_bytes": 2**21},
        {"part_bytes": 2**40},
        {"filename": "name"},
        {"filename": [5]},
        {"filename": [""]},
        {"filename": ["x" * 1025]},
        {"filename": ["\ud800"]},
        {"filename": ["x"] * 65},
        {"needs": "enc"},
        {"needs": [1]},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_a_flat_description_that_lies_is_refused(changes: dict[str, Any]) -> None:
    assert FileInfo.from_bytes(flat())
    with pytest.raises(FormatError):
        FileInfo.from_bytes(flat(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": None},
        {"size": 2**62},
        {"size": 4096 * PART},
        {"size": PART * LIST_ENTRIES_MAX},
        {"b3": None},
        {"lists": []},
        {"lists": ["x", "y"]},
        {"lists": [b64(SHA1), b64(SHA1)]},
        {"lists": [b64(SHA1 + BLAKE3)] * 13_001},
        {"parts": []},
        {"parts_b3": []},
    ],
    ids=lambda changes: repr(changes)[:60],
)
def test_a_large_description_that_lies_is_refused(changes: dict[str, Any]) -> None:
    assert FileInfo.from_bytes(large())
    with pytest.raises(FormatError):
        FileInfo.from_bytes(large(**changes))


def test_a_description_that_lies_cannot_be_made() -> None:
    part = PartEntry(SHA1, BLAKE3, 0, 5)
    key = KeyBytes(SHA1)
    for fields in (
        {"size": 6, "parts": (part,)},
        {"size": 5, "parts": (part._replace(sha1=b""),)},
        {"size": 5, "parts": (part,), "blake3": b"short"},
        {"size": 5, "parts": (part,), "part_bytes": 1000},
        {"size": PART + 5, "parts": (part, part._replace(blake3=b""))},
    ):
        with pytest.raises(FormatError):
            FileInfo(key, **fields)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        FileInfo(key, 5, parts=(part,)).part_range(1)


@given(
    st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(["!", "hash", "parts", "lists", "size", "part_bytes", "filename", "needs"]),
        st.recursive(
            st.none() | st.integers() | st.sampled_from(["BytestagFileInfo", b64(SHA1), ""]),
            lambda inner: st.lists(inner, max_size=2),
        ),
    ).map(lambda value: json.dumps(value | {"!": "BytestagFileInfo"}).encode())
)
def test_any_bytes_are_a_description_or_refused(buffer: bytes) -> None:
    try:
        info = FileInfo.from_bytes(buffer)
    except FormatError:
        return
    assert FileInfo.from_bytes(info.to_bytes()) == info


@given(
    st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32), st.integers(1, PART)
)
def test_a_file_of_one_part_is_written_as_any_other(
    sha1_: bytes, blake3_: bytes, size: int
) -> None:
    info, lists = build(sha1_, blake3_, size, [(sha1_, blake3_)])
    assert one_part_bytes(sha1_, blake3_, size) == info.to_bytes()
    assert not lists
