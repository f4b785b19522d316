"""Safe names: what may become a file here."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.models import safe_names
from bytestag.models.safe_names import check_component, check_path, check_tree


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.txt",
        ".hidden",
        "ü",
        "日本語",
        "console",
        "com",
        "com10",
        "a b",
        "x" * 255,
        "nul-1",
        "…",
    ],
)
def test_ordinary_names_are_safe(name: str) -> None:
    check_component(name)
    assert safe_names._problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "a/b", "/", "a\\b", "\0", "a\nb", "\x1b[2J", "\x7f", "\x85", "\u202egnp.exe",
        "a\u2066b", "\u200fa", "a\u061cb", "a.", "a ", "...", " ", "con", "CON", "nul.txt",
        "Com1", "lpt9.tar.gz", "com¹", "aux .txt", "conin$", "prn:", "x" * 256, "ü" * 128,
        unicodedata.normalize("NFD", "ü"), "\ud800", "a.Bytestag-INCOMPLETE",
        "a.byte\u017ftag-incomplete",
    ],
    ids=ascii,
)  # fmt: skip
def test_names_that_escape_hide_or_open_devices_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        check_component(name)


@given(st.text(max_size=8))
def test_a_safe_name_is_one_encodable_component(name: str) -> None:
    try:
        check_component(name)
    except FormatError:
        return
    assert name.encode("utf-8").split(b"/") == [name.encode("utf-8")]
    assert unicodedata.normalize("NFC", name) == name
    assert name.isprintable() or not any(ord(character) < 32 for character in name)


def test_a_path_has_one_to_32_components() -> None:
    check_path(["a"] * 32)
    for path in ([], ["a"] * 33, ["a", ".."]):
        with pytest.raises(FormatError):
            check_path(path)


@pytest.mark.parametrize(
    ("files", "directories"),
    [
        ([("a",), ("a",)], []),
        ([("a",), ("a", "b")], []),
        ([("a", "b"), ("a",)], []),
        ([("a",)], [("a",)]),
        ([("a",)], [("A", "b")]),
        ([("a",), ("A",)], []),
        ([("straße",), ("STRASSE",)], []),
        ([("d", "x"), ("D", "y")], []),
        ([("d", "x")], [("D",)]),
        ([("é", "x"), ("É", "y")], []),
        ([()], []),
        ([("a",) * 33], []),
        ([], [("a",) * 33]),
        ([("a", "con", "b")], []),
    ],
)
def test_paths_that_cannot_exist_together_are_refused(files: Any, directories: Any) -> None:
    with pytest.raises(FormatError):
        check_tree(files, directories)


def test_paths_that_can_exist_together_are_accepted() -> None:
    files = [("a", "b"), ("a", "c"), ("b",), ("c", "a", "b")]
    directories = [("a",), ("e",), ("e", "f")]
    check_tree(files, directories)
    check_tree([], [])
    for file in [*directories, *files, ("c",), ("c", "a")]:  # each of them has its place
        with pytest.raises(FormatError):
            check_tree([*files, file], directories)


def test_a_name_kept_for_incomplete_files_is_refused():
    with pytest.raises(FormatError, match="not whole"):
        check_component("x.bytestag-incomplete")


@given(st.from_regex(safe_names._PLAIN, fullmatch=True))
def test_names_of_which_nothing_more_is_asked_have_nothing_wrong(name: str) -> None:
    assert safe_names._problem(name) is None


@pytest.mark.parametrize("name", ["CON", "lpt1.txt", "a.", "x.Bytestag-INCOMPLETE", "a/b", "a\n"])
def test_of_unsafe_names_more_is_asked(name: str) -> None:
    assert not safe_names._PLAIN.fullmatch(name)
