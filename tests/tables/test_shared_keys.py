"""The keys that are announced of shares, from the database, are those that the rows name."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from bytestag import config
from bytestag.hashing import sha1
from bytestag.keys import BIT_SIZE, KeyBytes
from bytestag.tables.database_engine import Database
from bytestag.tables.shared import SharedFilesKVPTable
from bytestag.tables.shared_keys import SharedKeys
from tests.tables.helpers import NOW

END = 1 << BIT_SIZE
FILES = {
    "a/table.csv": b"1,2,3\n" * 100_000,
    "a/b/equal": b"the same",
    "a/b/c/equal": b"the same",
    "a/empty": b"",
    "top": b"another",
}
OTHER_FILES = {"equal": b"the same", "deep/one": b"one"}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        os.utime(path, (10**9, 10**9))
    return root


def gathered(table: SharedFilesKVPTable) -> set[KeyBytes]:
    """Return the same keys by going through all rows of all shares."""
    keys = set()
    for path in table.shared_directories:
        keys.add(table.root(path).sha1)
        for record in table.share_records(path):
            if record.key != record.index:
                keys.update((record.key, record.index))
    return keys


@pytest.fixture
def table(database: Database) -> SharedFilesKVPTable:
    return SharedFilesKVPTable(database, wall=lambda: NOW)


@pytest.mark.parametrize("manifest_inline_bytes", [100, 2**18])
def test_the_keys_are_those_of_files_descriptions_and_manifests(
    table, tmp_path, monkeypatch, manifest_inline_bytes
):
    monkeypatch.setattr(config, "MANIFEST_INLINE_BYTES_MAX", manifest_inline_bytes)
    table.add_path(write(tmp_path / "one", FILES))
    table.add_path(write(tmp_path / "two", OTHER_FILES))
    table.add_path(write(tmp_path, {"file": b"a share of its own"}) / "file")
    table.scan()
    expected = gathered(table)
    keys = SharedKeys(table.database)
    assert keys.between(0, END) == sorted(expected)
    assert len(keys) == len(expected)
    part = FILES["a/table.csv"][: config.PART_BYTES]
    assert KeyBytes(sha1(part)) not in expected
    for value in (b"the same", b"", b"one", b"a share of its own"):
        assert KeyBytes(sha1(value)) in expected


def test_ranges_meet_and_have_each_key_once(table, tmp_path):
    table.add_path(write(tmp_path / "one", FILES))
    table.scan()
    keys = SharedKeys(table.database)
    whole = keys.between(0, END)
    bounds = [0, *(int.from_bytes(key, "big") for key in whole), END]
    met = [keys.between(low, end) for low, end in itertools.pairwise(bounds)]
    assert met == [[], *([key] for key in whole)]
    assert keys.between(END // 2, END // 2) == []


def test_a_file_that_goes_takes_its_keys_with_it_unless_another_has_them(table, tmp_path):
    root = write(tmp_path / "one", FILES)
    table.add_path(root)
    table.scan()
    for name in ("a/b/equal", "top"):
        (root / name).unlink()
    table.scan()
    found = SharedKeys(table.database).between(0, END)
    assert KeyBytes(sha1(b"the same")) in found
    assert KeyBytes(sha1(b"another")) not in found
    assert set(found) == gathered(table)
    table.remove_path(root)
    nothing = SharedKeys(table.database)
    assert (len(nothing), nothing.between(0, END)) == (0, [])
