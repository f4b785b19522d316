"""Second stores and the caches of kachery and its relatives: read in place, never written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bytestag.errors import NotFound
from bytestag.hashing import md5, sha1
from bytestag.store import belief, places
from bytestag.store.content import ContentStore
from tests.store.test_content import LONG_AGO_NS, settled

VALUE = b"some text"
SHA1 = sha1(VALUE)
HEX = SHA1.hex()
DEEP = f"{HEX[:2]}/{HEX[2:4]}/{HEX[4:6]}/{HEX}"
MD5 = md5(VALUE)
MD5_DEEP = f"{MD5.hex()[:2]}/{MD5.hex()[2:4]}/{MD5.hex()[4:6]}/{MD5.hex()}"


@pytest.fixture
def cache(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    return cache


@pytest.fixture
def store(tmp_path, cache):
    store = ContentStore(tmp_path / "store", kachery=[cache])
    yield store
    store.close()


def put(cache: Path, name: str, value: bytes) -> Path:
    path = cache / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return settled(path, value)


def everything(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        os.fspath(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


@pytest.mark.parametrize("layout", [f"sha1/{DEEP}", DEEP, f"{HEX[0]}/{HEX[1:3]}/{HEX}"])
def test_every_layout_is_read_in_place(store, cache, layout):
    path = put(cache, layout, VALUE)
    before = everything(cache)
    content = store.find(SHA1)
    assert (content.path, content.origin, content.size) == (path, "kachery", 9)
    assert store.read(content, 5) == b"text"
    assert everything(cache) == before
    assert list(store.list()) == []


@pytest.mark.parametrize("layout", [f"md5/{MD5_DEEP}", MD5_DEEP])
def test_md5_names_are_read_too(store, cache, layout):
    put(cache, layout, VALUE)
    content = store.find(MD5, "md5")
    assert (content.sha1, content.md5, content.origin) == (SHA1, MD5, "kachery")
    assert store.read(content) == VALUE
    assert store.find(MD5, "md5") == content


def records(target: Path) -> dict[str, object]:
    status = target.stat()
    told = {"path": str(target), "size": status.st_size, "mtime": status.st_mtime}
    return {
        f"sha1/{DEEP}.link": {
            "path": str(target),
            "manifestSha1": None,
            "stat": {"size": status.st_size, "mtime": status.st_mtime * 1000},
        },
        f"sha1/{DEEP}.hints.json": {
            "files": [
                {"stat": {**told, "path": "/nowhere", "ino": 1, "ctime": 1.5}, "sha1": HEX},
                {"stat": {**told, "ino": status.st_ino, "ctime": 1.5}, "sha1": HEX},
            ]
        },
        f"linked_files/sha1/{DEEP}": {**told, "sha1": HEX},
    }


@pytest.mark.parametrize("number", range(3))
def test_records_of_links_are_followed(store, cache, tmp_path, number):
    target = settled(tmp_path / "original", VALUE)
    name, record = list(records(target).items())[number]
    put(cache, name, json.dumps(record).encode())
    before = everything(cache)
    content = store.find(SHA1)
    assert (content.path, content.origin) == (target, "kachery")
    settled(target, b"SOME TEXT")
    os.utime(target, ns=(0, LONG_AGO_NS + 1))
    with pytest.raises(NotFound):
        store.find(SHA1)
    assert everything(cache) == before


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"[[",
        b'{"files": 3}',
        b'{"files": [3, {}, {"stat": 3}, {"stat": {"path": 3, "size": 9}}]}',
        b'{"path": "relative", "size": 9}',
        b'{"path": "/\\u0000", "size": 9}',
        b'{"path": "/dev/zero", "size": 9}',
        b'{"path": "/", "size": 4096}',
        b'{"path": "/etc/hostname", "size": true}',
        b"[" * 100_000,
    ],
)
def test_a_record_that_is_none_is_passed_over(store, cache, record):
    for name in (f"sha1/{DEEP}.link", f"sha1/{DEEP}.hints.json", f"linked_files/sha1/{DEEP}"):
        put(cache, name, record)
    with pytest.raises(NotFound):
        store.find(SHA1)


def test_what_a_cache_has_wrong_is_not_served(store, cache):
    put(cache, f"sha1/{DEEP}", b"SOME TEXT")
    right = put(cache, f"{HEX[0]}/{HEX[1:3]}/{HEX}", VALUE)
    assert store.find(SHA1).path == right
    right.unlink()
    with pytest.raises(NotFound):
        store.find(SHA1)


def test_without_hashing_what_a_cache_has_wrong_would_be_served(store, cache, monkeypatch):
    path = put(cache, f"sha1/{DEEP}", b"SOME TEXT")
    hashed = belief.Believer.hashed

    def believed(self, place, *, wants_md5=False):
        hashes, stamp = hashed(self, place, wants_md5=wants_md5)
        return hashes._replace(sha1=SHA1), stamp

    monkeypatch.setattr(belief.Believer, "hashed", believed)
    assert store.find(SHA1).path == path


def test_a_cache_is_hashed_once(store, cache, monkeypatch):
    put(cache, f"sha1/{DEEP}", VALUE)
    count = 0
    hashed = belief.Believer.hashed

    def counted(self, place, *, wants_md5=False):
        nonlocal count
        count += 1
        return hashed(self, place, wants_md5=wants_md5)

    monkeypatch.setattr(belief.Believer, "hashed", counted)
    for _ in range(3):
        store.find(SHA1)
    assert count == 1


def test_a_second_store_is_read_and_not_written(tmp_path):
    other = ContentStore(tmp_path / "other")
    content = other.add_bytes(VALUE)
    other.close()
    before = everything(tmp_path / "other")
    store = ContentStore(tmp_path / "store", seconds=[tmp_path / "other"])
    found = store.find(SHA1)
    assert (found.origin, found.path) == ("second", content.path)
    assert store.read(found) == VALUE
    assert everything(tmp_path / "other") == before
    content.path.chmod(0o644)
    content.path.write_bytes(b"SOME TEXT")
    assert SHA1 not in store
    assert content.path.exists()  # it is not ours to move aside
    store.close()


def test_the_users_store_is_where_the_environment_says(tmp_path, monkeypatch):
    for name in [*places.KACHERY_VARIABLES, places.STORE_VARIABLE, places.SECONDS_VARIABLE]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "bytestag"))
    assert ContentStore.of_user().directory == tmp_path / "bytestag" / "data" / "store"
    monkeypatch.setenv("BYTESTAG_STORE_DIR", str(tmp_path / "given"))
    assert ContentStore.of_user().directory == tmp_path / "given"
    for name in ("a", "b", "k", "home/kachery-storage"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("BYTESTAG_STORE_DIR_ALT", f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}")
    monkeypatch.setenv("KACHERY_STORAGE_DIR", str(tmp_path / "k"))
    monkeypatch.setenv("MD5_CACHE_DIR", str(tmp_path / "missing"))
    assert places.seconds() == [tmp_path / "a", tmp_path / "b"]
    assert places.kachery() == [tmp_path / "k", tmp_path / "home" / "kachery-storage"]
    put(tmp_path / "home" / "kachery-storage", f"sha1/{DEEP}", VALUE)
    store = ContentStore.of_user()
    assert store.find(SHA1).origin == "kachery"
    store.close()
