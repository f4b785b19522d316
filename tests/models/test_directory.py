"""Directory manifests: vectors, round trips, kachery's form, hostile ones."""

import json
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.hashing import blake3, sha1
from bytestag.models.directory import DirectoryManifest, FileEntry

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "directory.json").read_text("utf-8")
)
ENTRY = FileEntry(sha1(b"x"), 1)
FULL = FileEntry(sha1(b"x"), 1, blake3(b"x"), sha1(b"info"), blake3(b"info"))
HEX = sha1(b"x").hex()

paths = st.lists(st.sampled_from(["a", "b", "ü", "c.txt"]), min_size=1, max_size=4).map(tuple)


def parse(value: object) -> DirectoryManifest:
    return DirectoryManifest.from_bytes(json.dumps(value).encode())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    manifest = DirectoryManifest.from_bytes(bytes.fromhex(vector["bytes"]))
    assert manifest.to_bytes().hex() == vector["bytes"]
    assert manifest.hash.base16 == vector["hash"]
    assert ["/".join(path) for path, _ in manifest.entries()] == vector["paths"]


@given(st.dictionaries(paths, st.sampled_from([ENTRY, FULL]), max_size=8), st.lists(paths))
def test_a_manifest_is_read_back(files: dict[Any, FileEntry], empty: list[Any]) -> None:
    try:
        manifest = DirectoryManifest.build(files.items(), empty)
    except FormatError:
        every = [*files, *empty]
        assert any(a != b and a == b[: len(a)] for a in files for b in every) or set(files) & set(
            empty
        )
        return
    again = DirectoryManifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert dict(again.entries()) == files
    assert again.file_count == len(files)
    assert again.total_size == len(files)
    backwards = DirectoryManifest.build(reversed(list(files.items())), reversed(empty))
    assert backwards.to_bytes() == manifest.to_bytes()


def test_a_manifest_of_kachery_is_read_in_any_order_and_spacing() -> None:
    text = (
        (
            '{"files": {"b": {"size": 1, "sha1": "HEX"}, "a": {"sha1": "HEX", "size": 2}}, '
            '"dirs": {"z": {"files": {}, "dirs": {}}}}'
        )
        .replace("HEX", HEX.upper(), 1)
        .replace("HEX", HEX)
    )
    manifest = DirectoryManifest.from_bytes(text.encode())
    assert [(path, entry.size) for path, entry in manifest.entries()] == [(("a",), 2), (("b",), 1)]
    assert list(manifest.empty_directories()) == [("z",)]
    assert parse({"files": {}}) == parse({"dirs": {}})


def test_things_are_found_by_path() -> None:
    manifest = DirectoryManifest.build([(("a", "b", "c"), ENTRY)], [("e",)])
    assert manifest.at(("a", "b", "c")) == ENTRY
    assert manifest.at(("a",)) == DirectoryManifest.build([(("b", "c"), ENTRY)])
    assert manifest.at(()) is manifest
    assert manifest.at(("e",)) == DirectoryManifest()
    for path in (("x",), ("a", "x"), ("a", "b", "c", "d")):
        with pytest.raises(KeyError):
            manifest.at(path)


def test_names_are_held_in_nfc() -> None:
    nfd = unicodedata.normalize("NFD", "ü")
    manifest = parse({"files": {nfd: {"sha1": HEX, "size": 1}}})
    assert list(manifest.files) == ["ü"]
    assert manifest.at((nfd,)) == ENTRY
    with pytest.raises(FormatError, match="twice"):
        parse({"files": {name: {"sha1": HEX, "size": 1} for name in (nfd, "ü")}})


def test_unknown_fields_are_kept_everywhere() -> None:
    value = {
        "new": 1,
        "files": {"a": {"sha1": HEX, "size": 1, "mode": "x", "pack": [1, 2]}},
        "dirs": {"d": {"files": {}, "dirs": {}, "note": {"n": None}}},
    }
    assert json.loads(parse(value).to_bytes()) == value


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1},
        {"files": []},
        {"dirs": None},
        {"dirs": {"a": 1}},
        {"files": {"a": 1}},
        {"files": {"a": {"size": 1}}},
        {"files": {"a": {"md5": "x", "size": 1}}},
        {"files": {"a": {"sha1": HEX}}},
        {"files": {"a": {"sha1": HEX, "size": -1}}},
        {"files": {"a": {"sha1": HEX, "size": 1.5}}},
        {"files": {"a": {"sha1": HEX, "size": 2**63}}},
        {"files": {"a": {"sha1": HEX[2:], "size": 1}}},
        {"files": {"a": {"sha1": "g" * 40, "size": 1}}},
        {"files": {"a": {"sha1": " " * 38 + "aa", "size": 1}}},
        {"files": {"a": {"sha1": HEX, "size": 1, "b3": HEX}}},
        {"files": {"a": {"sha1": HEX, "size": 1, "info": 5}}},
        {"files": {"a": {"sha1": HEX, "size": 1, "needs": ["pack"]}}},
        {"files": {}, "needs": ["enc"]},
        {"files": {"a": {"sha1": HEX, "size": 1}}, "dirs": {"a": {}}},
        *({"files": {name: {"sha1": HEX, "size": 1}}} for name in ("", ".", "..", "a/b", "\0")),
        {"files": {"\ud800": {"sha1": HEX, "size": 1}}},
        {"files": {"x" * 1025: {"sha1": HEX, "size": 1}}},
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_manifest_that_does_not_hold_together_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        parse(value)


def nested(depth: int, leaf: dict[str, Any]) -> dict[str, Any]:
    for _ in range(depth):
        leaf = {"dirs": {"d": leaf}}
    return leaf


def test_a_path_has_at_most_64_components() -> None:
    leaf = {"files": {"f": {"sha1": HEX, "size": 1}}}
    ((path, _),) = parse(nested(63, leaf)).entries()
    assert len(path) == 64
    assert parse(nested(64, {"files": {}}))
    for value in (nested(64, leaf), nested(65, {"files": {}})):
        with pytest.raises(FormatError, match="64 components"):
            parse(value)
    with pytest.raises(FormatError, match="deep"):
        DirectoryManifest.from_bytes(b'{"dirs":{"d":' * 5000 + b"{}" + b"}}" * 5000)
    assert DirectoryManifest.build([(path, ENTRY)])
    with pytest.raises(FormatError):
        DirectoryManifest.build([((*path, "f"), ENTRY)])
    with pytest.raises(FormatError):
        DirectoryManifest.build([], [("d",) * 65])


def test_ten_million_entries_are_refused_before_they_are_parsed() -> None:
    with pytest.raises(FormatError, match="items"):
        DirectoryManifest.from_bytes(b'{"files":[' + b"{}," * 10_000_000 + b"{}]}")


def test_more_entries_than_a_manifest_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bytestag.models.directory.MANIFEST_ENTRIES_MAX", 10)
    files = [((f"d{number}", "f"), ENTRY) for number in range(5)]
    manifest = DirectoryManifest.build(files[:4])
    assert DirectoryManifest.from_bytes(manifest.to_bytes()) == manifest
    with pytest.raises(FormatError):
        DirectoryManifest.build([*files, (("x", "f"), ENTRY)])
    with pytest.raises(FormatError):
        DirectoryManifest.build([], [(f"d{number}",) for number in range(12)])
    with pytest.raises(FormatError):
        parse({"dirs": {f"d{number}": {} for number in range(11)}})


@pytest.mark.parametrize(
    "files",
    [
        [("a",), ("a",)],
        [("a",), ("a", "b")],
        [("a", "b"), ("a",)],
        [()],
        [("..", "a")],
        [("a\\b",)],
        [("con",)],
        [("",)],
    ],
)
def test_an_unsafe_or_clashing_path_is_not_built(files: list[Any]) -> None:
    with pytest.raises(FormatError):
        DirectoryManifest.build((path, ENTRY) for path in files)


@pytest.mark.slow
def test_a_hundred_thousand_files_are_a_matter_of_seconds() -> None:
    files = [((f"d{i % 300}", f"s{i % 7}", f"f{i}"), FULL) for i in range(100_000)]
    started = time.process_time()
    manifest = DirectoryManifest.build(files)
    assert DirectoryManifest.from_bytes(manifest.to_bytes()).file_count == 100_000
    assert time.process_time() - started < 20  # measured 1.8 s


@given(st.binary(max_size=80))
def test_any_bytes_are_a_manifest_or_refused(buffer: bytes) -> None:
    try:
        DirectoryManifest.from_bytes(buffer)
    except FormatError:
        return
    assert b"files" in buffer or b"dirs" in buffer
