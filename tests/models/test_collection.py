"""CollectionInfo: vectors, round trips, lies."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import FormatError
from bytestag.hashing import blake3, sha1
from bytestag.models.collection import CollectionInfo
from bytestag.models.fileinfo import build

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "collection.json").read_text("utf-8")
)
INFO, _ = build(sha1(b"x"), blake3(b"x"), 1, [(sha1(b"x"), blake3(b"x"))], ["x.txt"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    collection = CollectionInfo.from_bytes(bytes.fromhex(vector["bytes"]))
    assert collection.to_bytes().hex() == vector["bytes"]
    assert collection.id.base16 == vector["id"]
    assert len(collection.files) == vector["files"]


@given(
    st.integers(0, 3),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | st.integers(0, 2**63 - 1),
)
def test_a_collection_is_read_back(count: int, text: str | None, timestamp: int | None) -> None:
    collection = CollectionInfo((INFO,) * count, text, text, timestamp, extra={"later": [1]})
    assert CollectionInfo.from_bytes(collection.to_bytes()) == collection


@pytest.mark.parametrize(
    "changes",
    [
        {"!": "BytestagFileInfo"},
        {"files": None},
        {"files": {}},
        {"files": [1]},
        {"files": [{"!": "BytestagFileInfo"}]},
        {"files": [{**INFO.to_json(), "size": 2**40}]},
        {"name": 5},
        {"comment": ["x"]},
        {"comment": "\ud800"},
        {"timestamp": -1},
        {"timestamp": 1.5},
        {"needs": ["later"]},
    ],
    ids=repr,
)
def test_a_collection_that_lies_is_refused(changes: dict[str, Any]) -> None:
    fields = {"!": "BytestagCollectionInfo", "files": [INFO.to_json()]}
    assert CollectionInfo.from_bytes(json.dumps(fields).encode()).files == (INFO,)
    with pytest.raises(FormatError):
        CollectionInfo.from_bytes(json.dumps(fields | changes).encode())


def test_a_collection_that_lies_cannot_be_made() -> None:
    for fields in ({"timestamp": -1}, {"name": "\ud800"}):
        with pytest.raises(FormatError):
            CollectionInfo(**fields)  # type: ignore[arg-type]


@given(st.binary(max_size=80))
def test_any_bytes_are_a_collection_or_refused(buffer: bytes) -> None:
    with pytest.raises(FormatError):
        CollectionInfo.from_bytes(buffer)
