"""Storing directories: the manifest, what is followed, what is refused, what is not read again."""

from __future__ import annotations

import os
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from bytestag.errors import NotFound, UsageError
from bytestag.hashing import md5, sha1
from bytestag.models.directory import DirectoryManifest
from bytestag.store import trees
from bytestag.store.content import ContentStore
from tests.store.test_content import LONG_AGO_NS, settled


@pytest.fixture
def store(tmp_path):
    store = ContentStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def tree(tmp_path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    settled(tree / "a.txt", b"some text")
    settled(tree / "sub" / "наука", b"science")
    settled(tree / "sub" / "none", b"")
    return tree


def reads_of(store: ContentStore, tree: Path, **options) -> int:
    ticks: list[int] = []
    store.add_directory(tree, tick=ticks.append, **options)
    return len(ticks)


def test_the_manifest_is_kacherys_and_is_stored_itself(store, tree):
    manifest, content = store.add_directory(tree)
    assert store.read(content) == manifest.to_bytes()
    assert manifest.to_json() == {
        "dirs": {
            "sub": {
                "dirs": {"empty": {"dirs": {}, "files": {}}},
                "files": {
                    "none": {"sha1": sha1(b"").hex(), "size": 0},
                    "наука": {"sha1": sha1(b"science").hex(), "size": 7},
                },
            }
        },
        "files": {"a.txt": {"sha1": sha1(b"some text").hex(), "size": 9}},
    }
    assert content.name == "tree"
    for _, entry in DirectoryManifest.from_bytes(store.read(content)).entries():
        assert store.find(entry.sha1).size == entry.size
    assert store.verify() == []


def test_the_same_tree_has_the_same_hash_however_it_is_stored(store, tree, tmp_path):
    _, content = store.add_directory(tree)
    with closing(ContentStore(tmp_path / "other")) as other:
        assert other.add_directory(tree, is_linked=True)[1].sha1 == content.sha1
        assert other.used_bytes == content.size


def test_files_that_did_not_change_are_not_read_again(store, tree):
    assert reads_of(store, tree) == 3
    assert reads_of(store, tree) == 0
    settled(tree / "a.txt", b"SOME TEXT")
    os.utime(tree / "a.txt", ns=(0, LONG_AGO_NS + 1))
    assert reads_of(store, tree) == 1
    (store.directory / "objects" / sha1(b"science").hex()[:2] / sha1(b"science").hex()).unlink()
    assert reads_of(store, tree) == 1  # known, but gone from the store
    assert reads_of(store, tree, is_linked=True) == 0


def test_links_are_followed_and_one_that_leads_back_is_refused(store, tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    settled(outside / "x", b"x")
    (tree / "linked").symlink_to(outside)
    (tree / "twice").symlink_to(tree / "sub")
    (tree / "b.txt").symlink_to("a.txt")
    manifest, _ = store.add_directory(tree)
    assert manifest.at(("linked", "x")).sha1 == sha1(b"x")
    assert manifest.at(("twice", "наука")) == manifest.at(("sub", "наука"))
    assert manifest.at(("b.txt",)).size == 9
    (tree / "sub" / "loop").symlink_to(tree)
    with pytest.raises(UsageError, match="leads back"):
        store.add_directory(tree)


def test_what_is_neither_file_nor_directory_is_passed_over_with_a_warning(store, tree):
    os.mkfifo(tree / "pipe")
    (tree / "nowhere").symlink_to("nothing")
    (tree / "half.bytestag-incomplete").touch()
    (tree / "A.TXT").write_text("other")
    warned = {}
    manifest, _ = store.add_directory(
        tree, warn=lambda path, what: warned.update({path.name: what})
    )
    assert set(manifest.files) == {"a.txt", "A.TXT"}
    assert set(warned) == {"pipe", "nowhere", "half.bytestag-incomplete", "a.txt"}


@pytest.mark.parametrize(("name", "other"), [("\u00e9", "e\u0301"), ("K", "\u212a")])
def test_names_that_are_one_name_in_nfc_are_refused(store, tmp_path, name, other):
    tree = tmp_path / "names"
    tree.mkdir()
    (tree / other).touch()
    manifest, _ = store.add_directory(tree)
    assert set(manifest.files) == {name}
    (tree / name).touch()
    with pytest.raises(UsageError, match="one name in NFC"):
        store.add_directory(tree)


@pytest.mark.parametrize("name", [b"not-utf8-\xff", b"back\\slash", b"line\nbreak", b"con"])
def test_a_name_that_others_could_not_write_is_refused(store, tmp_path, name):
    tree = tmp_path / "names"
    tree.mkdir()
    Path(os.fsdecode(os.path.join(os.fsencode(tree), name))).touch()
    with pytest.raises(UsageError, match="cannot be stored"):
        store.add_directory(tree)


def test_what_is_no_directory_is_refused(store, tree):
    with pytest.raises(UsageError):
        store.add_directory(tree / "a.txt")
    with pytest.raises(NotFound):
        store.add_directory(tree / "nothing")


def test_who_stops_in_the_middle_does_not_start_from_the_beginning(store, tree):
    count = 0

    def stop(_bytes):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_directory(tree, tick=stop)
    assert reads_of(store, tree) == 1
    assert store.verify() == []


def test_a_file_that_was_collected_meanwhile_is_stored_again(store, tree, monkeypatch):
    store.add_directory(tree)
    monkeypatch.setattr(trees, "USED_RESOLUTION_NS", 0)
    sync = store.index.touch

    def collected_first(sha1s, now):
        if list(sha1s):
            monkeypatch.setattr(store.index, "touch", sync)
            store.collect(bytes_max=0)
        return sync(sha1s, now)

    monkeypatch.setattr(store.index, "touch", collected_first)
    manifest, _ = store.add_directory(tree)
    for _, entry in manifest.entries():
        assert entry.sha1 in store


# --- git-annex -----------------------------------------------------------------------------------


def annexed(tree: Path, name: str, value: bytes, *, is_here: bool, key: str = "") -> Path:
    key = key or f"MD5E-s{len(value)}--{md5(value).hex()}{Path(name).suffix}"
    place = tree / ".git" / "annex" / "objects" / "aB" / "cD" / key / key
    if is_here:
        place.parent.mkdir(parents=True)
        settled(place, value)
    (tree / name).symlink_to(os.path.relpath(place, tree))
    return place


def test_an_annexed_directory_is_stored_without_its_git(store, tree):
    annexed(tree, "data.npy", b"numbers", is_here=True)
    (tree / ".datalad").mkdir()
    settled(tree / ".datalad" / "config", b"x")
    manifest, _ = store.add_directory(tree, git_annex=True)
    assert set(manifest.files) == {"a.txt", "data.npy"}
    assert set(manifest.dirs) == {"sub"}
    assert manifest.files["data.npy"].sha1 == sha1(b"numbers")


def test_an_absent_annexed_file_says_how_to_fetch_it(store, tree):
    annexed(tree, "data.npy", b"numbers", is_here=False)
    with pytest.raises(NotFound, match="not here") as caught:
        store.add_directory(tree, git_annex=True)
    assert "git annex get" in str(caught.value.hint)
    assert "data.npy" not in store.add_directory(tree)[0].files  # any other broken link


def test_an_absent_annexed_file_whose_md5_is_known_needs_no_content(store, tree):
    annexed(tree, "data.npy", b"numbers", is_here=False)
    store.add_bytes(b"numbers", algorithms=("sha1", "md5"))
    manifest, _ = store.add_directory(tree, git_annex=True)
    assert manifest.files["data.npy"].sha1 == sha1(b"numbers")


def test_an_absent_annexed_file_with_another_kind_of_key_says_so_too(store, tree):
    annexed(tree, "data", b"", is_here=False, key="SHA256E-s3--" + "ab" * 32)
    with pytest.raises(NotFound, match="not here"):
        store.add_directory(tree, git_annex=True)


# --- Many ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_hundred_thousand_files_are_stored_in_bounded_memory(tmp_path):
    tree = tmp_path / "tree"
    for number in range(100):
        (tree / str(number)).mkdir(parents=True)
        for name in range(1000):
            (tree / str(number) / str(name)).write_bytes(b"%d %d" % (number, name))
    with closing(ContentStore(tmp_path / "store")) as store:
        tracemalloc.start()
        manifest, content = store.add_directory(tree)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert manifest.file_count == 100_000
        assert peak < 200 * 1024 * 1024
        ticks: list[int] = []
        assert store.add_directory(tree, tick=ticks.append)[1] == content
        assert ticks == []  # nothing is read again
