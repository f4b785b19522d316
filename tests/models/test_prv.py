"""``.prv`` and ``.prvdir``: vectors, kbucket's forms, what is never written, hostile ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.hashing import blake3, sha1
from bytestag.models.directory import FileEntry
from bytestag.models.prv import PrvDirectory, PrvFile, read_prv
from bytestag.uri import Link

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "prv.json").read_text("utf-8"))
VALUE = b"a" * 1500
FILE = PrvFile(sha1(VALUE), 1500, sha1(VALUE[:1000]), blake3(VALUE))
HEX = FILE.sha1.hex()
OLD = {
    "original_checksum": HEX,
    "original_size": 1500,
    "original_fcs": f"head1000-{FILE.head_sha1.hex()}",
    "original_path": "/home/alice/a.dat",
    "prv_version": "0.11",
}

paths = st.lists(st.sampled_from(["a", "b", "ü", "c.txt"]), min_size=1, max_size=4).map(tuple)


def parse(value: object) -> PrvFile | PrvDirectory:
    return read_prv(json.dumps(value).encode())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    read = read_prv(bytes.fromhex(vector["bytes"]))
    assert read.to_bytes().hex() == vector["written"]
    assert read_prv(read.to_bytes()) == read
    if isinstance(read, PrvFile):
        assert str(read.link("a.dat")) == vector["link"]
    else:
        assert read.manifest().hash.base16 == vector["manifest"]


def test_the_hashes_are_kbuckets() -> None:
    fields = FILE.to_json()
    assert fields["original_checksum"] == "c520e6109835c876fd98636efec43dd61634b7d3"
    assert fields["original_fcs"] == "head1000-291e9a6c66994949b57ba5e650361e98fc36b1ba"
    assert fields["prv_version"] == "0.11"


def test_a_file_is_text_of_four_spaces_with_sorted_names_that_ends_a_line() -> None:
    text = FILE.to_bytes().decode("ascii")
    assert text.startswith('{\n    "original_b3": ')
    assert text.endswith("}\n")
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_the_path_that_kbucket_wrote_is_never_kept() -> None:
    read = parse({**OLD, "owner": "alice"})
    assert isinstance(read, PrvFile)
    assert b"alice" not in read.to_bytes()
    assert "path" not in repr(read)
    assert read == PrvFile(FILE.sha1, 1500, FILE.head_sha1)
    tree = parse({"files": {"x": OLD}, "dirs": {"d": {"files": {"y": OLD}}}, "owner": "alice"})
    assert b"alice" not in tree.to_bytes()


def test_the_short_names_of_fields_are_read_too() -> None:
    short = {name.removeprefix("original_"): value for name, value in OLD.items()}
    assert parse(short) == parse(OLD)


def test_an_unknown_kind_of_head_is_passed_over() -> None:
    read = parse({**OLD, "original_fcs": "tail5-00"})
    assert isinstance(read, PrvFile)
    assert read.head_sha1 == b""


def test_a_file_fits_by_size_and_every_known_hash() -> None:
    other = blake3(b"other")
    assert FILE.fits(1500, FILE.sha1, FILE.b3)
    assert not FILE.fits(1499, FILE.sha1, FILE.b3)
    assert not FILE.fits(1500, sha1(b"other"), FILE.b3)
    assert not FILE.fits(1500, FILE.sha1, other)
    assert PrvFile(FILE.sha1, 1500).fits(1500, FILE.sha1, other)


def test_a_file_gives_a_link_and_a_directory_a_manifest() -> None:
    hint = ("192.0.2.1", 4001)
    link = PrvFile(FILE.sha1, 1500, hints=(hint,)).link("a b.dat")
    assert str(link) == f"sha1://{HEX}/a%20b.dat?x.pe=192.0.2.1:4001"
    assert Link.parse(str(link)) == link
    manifest = PrvDirectory.build([(("s", "x"), FILE)], [("e",)]).manifest()
    assert dict(manifest.entries()) == {("s", "x"): FileEntry(FILE.sha1, 1500, FILE.b3)}
    assert list(manifest.empty_directories()) == [("e",)]


def test_the_hints_of_a_directory_are_its_own_then_those_of_its_files() -> None:
    files = {f"{n}": PrvFile(FILE.sha1, 1, hints=(("192.0.2.1", 4000 + n),)) for n in range(20)}
    tree = PrvDirectory(files, hints=(("192.0.2.2", 5000),))
    assert tree.all_hints()[0] == ("192.0.2.2", 5000)
    assert len(tree.all_hints()) == 8


@given(st.dictionaries(paths, st.sampled_from([FILE, PrvFile(FILE.sha1, 1)])))
def test_a_directory_is_read_back(files: dict[Any, PrvFile]) -> None:
    clash = any(a != b and a == b[: len(a)] for a in files for b in files)
    if clash:
        with pytest.raises(FormatError):
            PrvDirectory.build(files.items())
        return
    tree = PrvDirectory.build(files.items())
    assert read_prv(tree.to_bytes()) == tree
    assert dict(tree.entries()) == files


def test_names_are_read_in_form_nfc_and_checked_when_used() -> None:
    tree = PrvDirectory.from_bytes(json.dumps({"files": {"u\u0308": OLD}}).encode())
    assert list(tree.manifest().files) == ["ü"]
    for name in ("a\\b", "CON", "x\x1b", "dot."):
        unsafe = PrvDirectory.from_bytes(json.dumps({"files": {name: OLD}}).encode())
        with pytest.raises(FormatError):
            unsafe.manifest()


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"files": []},
        {"files": {"x": []}},
        {"dirs": {"x": 1}},
        {"files": {"../x": OLD}},
        {"files": {"a/b": OLD}},
        {"files": {"x": OLD}, "dirs": {"x": {}}},
        {**OLD, "original_checksum": HEX[:-1]},
        {**OLD, "original_checksum": None},
        {**OLD, "original_size": -1},
        {**OLD, "original_size": "1500"},
        {**OLD, "original_size": True},
        {**OLD, "original_fcs": "head1000-zz"},
        {**OLD, "original_fcs": 7},
        {**OLD, "original_b3": "00"},
        {**OLD, "hints": "192.0.2.1:4001"},
        {**OLD, "hints": ["192.0.2.1:22"]},
        {**OLD, "hints": ["192.0.2.1:4001"] * 9},
        {**OLD, "x": "y" * 70_000},
    ],
)
def test_what_does_not_hold_together_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        parse(value)


def test_depth_is_bounded_on_every_way_in() -> None:
    tree: dict[str, Any] = {"files": {}}
    for _ in range(65):
        tree = {"dirs": {"d": tree}}
    with pytest.raises(FormatError):
        parse(tree)
    with pytest.raises(FormatError):
        read_prv(b'{"dirs":{"d":' * 100_000)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(buffer: bytes) -> None:
    try:
        read = read_prv(buffer)
    except FormatError:
        return
    assert read_prv(read.to_bytes()) == read
