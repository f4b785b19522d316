"""ContentStore: what is stored is found again, and what changed is not."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag import one_pass
from bytestag.errors import Corrupt, NoSpace, NotFound, NotPermitted, StorageError, UsageError
from bytestag.hashing import blake3, md5, sha1
from bytestag.store import copying, reading
from bytestag.store.content import ContentStore
from bytestag.store.values import MTIME_UNKNOWN, Stamp

SOME_TEXT = "37aa63c77398d954473262e1a0057c1e632eda77"
LONG_AGO_NS = 1_000_000_000_123_456_789


@pytest.fixture
def store(tmp_path):
    store = ContentStore(tmp_path / "store")
    yield store
    store.close()


def settled(path: Path, value: bytes) -> Path:
    """Write a file whose time of change lies long ago."""
    path.write_bytes(value)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    return path


def overwrite(path: Path, value: bytes) -> None:
    """Write into a file as its owner can, whatever its mode."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(value)


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


# --- Storing -------------------------------------------------------------------------------------


def test_the_text_of_the_papers_has_its_hash(store):
    content = store.add_bytes(b"some text", name="some/file.txt")
    assert content.sha1.hex() == SOME_TEXT
    assert store.find(bytes.fromhex(SOME_TEXT)) == content
    assert content.name == "file.txt"
    assert store.read(content, 5) == b"text"
    assert store.read(content, 0, 4) == b"some"
    with store.open(content) as file:
        assert file.read() == b"some text"


def test_an_object_lies_where_it_is_documented_and_cannot_be_written(store):
    content = store.add_bytes(b"some text")
    assert content.path == store.directory / "objects" / SOME_TEXT[:2] / SOME_TEXT
    assert stat.S_IMODE(content.path.stat().st_mode) == 0o444
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert files_in(store.directory / "tmp") == []


@given(value=st.binary(max_size=300), start=st.integers(0, 300), length=st.integers(0, 300))
def test_any_bytes_come_back_and_any_range_of_them(tmp_path_factory, value, start, length):
    store = ContentStore(tmp_path_factory.mktemp("store"))
    content = store.add_bytes(value)
    assert (content.size, content.sha1, content.blake3) == (len(value), sha1(value), blake3(value))
    end = start + length
    if end <= len(value):
        assert store.read(content, start, end) == value[start:end]
    else:
        with pytest.raises(UsageError):
            store.read(content, start, end)
    store.close()


@pytest.mark.parametrize("size", [0, 1, copying.SMALL_BYTES, copying.SMALL_BYTES + 1, 9_000_001])
@pytest.mark.parametrize("processors", [1, 2])
def test_a_file_of_any_size_is_hashed_as_it_is_copied(
    store, tmp_path, monkeypatch, size, processors
):
    monkeypatch.setattr(one_pass, "processors", lambda: processors)
    value = os.urandom(1000) * (size // 1000) + b"x" * (size % 1000)
    path = settled(tmp_path / "file", value)
    ticks = []
    content = store.add_file(path, algorithms=("sha1", "md5"), tick=ticks.append)
    assert content.sha1 == hashlib.sha1(value).digest()
    assert content.blake3 == blake3(value)
    assert content.md5 == md5(value)
    assert content.path.read_bytes() == value
    assert sum(ticks) == size
    assert store.find(content.md5, "md5") == content


def test_a_file_that_did_not_change_is_not_read_again(store, tmp_path):
    path = settled(tmp_path / "file", b"some text")
    content = store.add_file(path)
    ticks = []
    assert store.add_file(path, tick=ticks.append) == content
    assert ticks == []
    settled(path, b"same size")
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))
    assert store.add_file(path, tick=ticks.append).sha1 == sha1(b"same size")
    assert ticks == [9]


def test_a_file_written_a_moment_ago_is_read_again_even_if_its_time_is_the_same(tmp_path):
    path = settled(tmp_path / "file", b"some text")
    now = [LONG_AGO_NS / 1e9 + 0.001]
    store = ContentStore(tmp_path / "store", wall=lambda: now[0])
    linked = store.add_file(path, is_linked=True)
    settled(path, b"SOME TEXT")  # in the same tick of the clock
    with pytest.raises(NotFound):
        store.find(linked.sha1)
    # Without the defence it is believed: a second later the same stamp counts as settled.
    settled(path, b"some text")
    now[0] += 1
    linked = store.add_file(path, is_linked=True)
    settled(path, b"SOME TEXT")
    assert store.find(linked.sha1) == linked
    store.close()


def test_a_stamp_is_settled_once_the_clock_has_gone_on():
    stamp = Stamp(1, 5_000_000_001, 2)
    assert stamp.settled(5_010_000_000).mtime_ns == MTIME_UNKNOWN
    assert stamp.settled(5_100_000_000) == stamp
    whole_seconds = Stamp(1, 5_000_000_000, 2)
    assert whole_seconds.settled(6_900_000_000).mtime_ns == MTIME_UNKNOWN
    assert whole_seconds.settled(7_100_000_000) == whole_seconds


def test_content_stored_twice_is_one_object(store, tmp_path):
    first = store.add_bytes(b"some text", name="a")
    inode = first.path.stat().st_ino
    second = store.add_file(settled(tmp_path / "b", b"some text"))
    assert second.path == first.path
    assert second.path.stat().st_ino == inode
    assert store.used_bytes == 9


@pytest.mark.parametrize("size", [9, copying.SMALL_BYTES + 1])
def test_storing_again_heals_a_damaged_object(store, tmp_path, size):
    path = settled(tmp_path / "file", b"x" * size)
    content = store.add_file(path)
    overwrite(content.path, b"Y")
    assert store.add_file(path).path.read_bytes() == path.read_bytes()
    assert store.verify() == []


def test_a_hard_link_takes_no_space_and_is_lost_when_the_file_is_written_to(store, tmp_path):
    path = settled(tmp_path / "file", b"some text")
    path.chmod(0o640)
    content = store.add_file(path, use_hard_links=True)
    assert content.path.stat().st_ino == path.stat().st_ino
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert store.read(store.find(content.sha1)) == b"some text"
    overwrite(path, b"SOME")
    with pytest.raises(NotFound):
        store.find(content.sha1)
    assert files_in(store.directory / "tmp") == []
    assert path.read_bytes() == b"SOME text"


def test_where_a_hard_link_cannot_be_made_the_file_is_copied(store, tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = settled(tmp_path / "file", b"some text")
    content = store.add_file(path, use_hard_links=True)
    assert content.path.stat().st_ino != path.stat().st_ino
    assert content.path.read_bytes() == b"some text"


# --- What is refused -----------------------------------------------------------------------------


def test_what_is_no_file_is_refused_at_once(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ".", "store-not"):
        with pytest.raises(NotFound if name == "store-not" else UsageError):
            store.add_file(tmp_path / name)
        with pytest.raises(NotFound if name == "store-not" else UsageError):
            store.add_file(tmp_path / name, is_linked=True)


def test_a_digest_of_another_length_and_an_unknown_algorithm_are_refused(store):
    for digest, algorithm in ((b"x", "sha1"), (b"x" * 20, "md5"), (b"x" * 20, "sha3")):
        with pytest.raises(UsageError):
            store.find(digest, algorithm)
    with pytest.raises(UsageError):
        store.add_bytes(b"", algorithms=("sha3",))
    assert b"x" not in store
    assert "text" not in store


def test_what_is_not_there_is_not_found(store):
    with pytest.raises(NotFound):
        store.find(b"x" * 20)
    with pytest.raises(NotFound):
        store.find(b"x" * 16, "md5")
    assert b"x" * 20 not in store


def test_a_store_that_cannot_be_made_says_where_to_put_it(tmp_path):
    (tmp_path / "file").write_text("in the way")
    store = ContentStore(tmp_path / "file" / "store")
    with pytest.raises(StorageError) as caught:
        store.add_bytes(b"some text")
    assert "BYTESTAG_STORE_DIR" in str(caught.value.hint)
    with pytest.raises(StorageError):
        store.add_file(settled(tmp_path / "x", b"x"), is_linked=True)
    with pytest.raises(NotFound):
        store.find(b"x" * 20)


def test_a_full_disk_leaves_nothing_half_written(store, tmp_path):
    path = settled(tmp_path / "file", bytes(3_000_000))
    store.add_bytes(b"first, so that the index is there")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))
    try:
        with pytest.raises(NoSpace):
            store.add_file(path)
        with pytest.raises(NoSpace):
            store.add_bytes(bytes(2_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_in(store.directory / "tmp") == []
    assert len(list(store.list())) == 1
    assert store.verify() == []


def test_who_stops_in_the_middle_leaves_nothing(store, tmp_path):
    def stop(_count):
        raise KeyboardInterrupt

    for size in (10, 3_000_000, 9_000_000):
        path = settled(tmp_path / str(size), bytes(size))
        with pytest.raises(KeyboardInterrupt):
            store.add_file(path, tick=stop)
    assert files_in(store.directory / "tmp") == []
    assert list(store.list()) == []


# --- Belief --------------------------------------------------------------------------------------


def test_a_damaged_object_is_moved_aside_and_never_served(store):
    content = store.add_bytes(b"some text")
    overwrite(content.path, b"SOME")
    with pytest.raises(NotFound):
        store.find(content.sha1)
    (bad,) = files_in(store.directory / "bad")
    assert bad.startswith(SOME_TEXT)
    assert store.used_bytes == 0


def test_a_write_in_the_same_tick_as_the_storing_shows(store, monkeypatch):
    """The time of an object's change is set back; a stamp of the moment would hide the write."""
    content = store.add_bytes(b"some text")
    before = content.path.stat()
    overwrite(content.path, b"SOME")
    after = content.path.stat()
    assert after.st_mtime_ns > before.st_mtime_ns
    assert content.sha1 not in store


def test_an_object_is_found_by_its_name_when_the_index_is_lost(tmp_path):
    store = ContentStore(tmp_path / "store")
    content = store.add_bytes(b"some text", name="a")
    store.close()
    for path in store.directory.glob("index.sqlite*"):
        path.unlink()
    store = ContentStore(tmp_path / "store")
    assert store.used_bytes == 9
    found = store.find(content.sha1)
    assert (found.blake3, found.name) == (content.blake3, "")
    overwrite(found.path, b"SOME")
    store.close()
    for path in store.directory.glob("index.sqlite*"):
        path.unlink()
    with pytest.raises(NotFound):  # without a row it is hashed first
        store.find(content.sha1)
    store.close()


@pytest.mark.parametrize("damage", ["nothing in it", "no database", "torn pages"])
def test_a_torn_index_is_begun_anew(tmp_path, damage):
    store = ContentStore(tmp_path / "store")
    contents = [store.add_bytes(b"%d" % number) for number in range(300)]
    store.close()
    index = store.directory / "index.sqlite"
    if damage == "nothing in it":
        index.write_bytes(b"")
    elif damage == "no database":
        index.write_bytes(b"hello" * 1000)
    else:
        value = index.read_bytes()
        index.write_bytes(value[:4096] + b"\xff" * (len(value) - 4096))
    for content in contents:
        assert store.read(store.find(content.sha1)) == store.read(content)
    assert len(list(store.list())) == 300
    store.close()


def test_an_index_of_a_later_version_is_left_alone(tmp_path):
    store = ContentStore(tmp_path / "store")
    store.add_bytes(b"some text")
    with store.index.writing() as connection:
        connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StorageError, match="later version"):
        store.find(b"x" * 20)


def test_content_is_read_while_the_index_cannot_be_written(store, monkeypatch):
    content = store.add_bytes(b"some text")
    os.utime(content.path)  # the stamp does not fit, so a row would be written

    def fail(*_arguments, **_named):
        raise NoSpace("full")

    monkeypatch.setattr(store.index, "put", fail)
    assert store.read(store.find(content.sha1)) == b"some text"


def test_a_store_that_is_only_read_serves_from_memory(tmp_path, monkeypatch):
    store = ContentStore(tmp_path / "store")
    content = store.add_bytes(b"some text")
    store.close()
    for path in store.directory.glob("index.sqlite*"):
        path.unlink()
    (store.directory / "index.sqlite").mkdir()  # cannot be opened, not even by root
    assert store.read(store.find(content.sha1)) == b"some text"
    with pytest.raises(StorageError):
        store.pin(content.sha1)
    store.close()


# --- Links ---------------------------------------------------------------------------------------


def test_a_linked_file_is_served_where_it_lies(store, tmp_path):
    path = settled(tmp_path / "file", b"some text")
    content = store.add_file(path, is_linked=True)
    assert (content.origin, content.path, content.name) == ("link", path, "file")
    assert store.find(content.sha1) == content
    assert store.used_bytes == 0
    assert list(store.list()) == [content]


def test_a_changed_link_is_forgotten_and_the_next_one_tried(store, tmp_path):
    first = settled(tmp_path / "a", b"some text")
    second = settled(tmp_path / "b", b"some text")
    third = settled(tmp_path / "c", b"some text")
    for path in (first, second, third):
        digest = store.add_file(path, is_linked=True).sha1
    settled(first, b"SOME TEXT")
    os.utime(first, ns=(0, LONG_AGO_NS + 1))
    assert store.find(digest).path == second
    second.unlink()
    assert store.find(digest).path == third
    assert [content.path for content in store.list()] == [third]
    os.utime(first, ns=(0, LONG_AGO_NS))  # what was forgotten does not come back
    third.unlink()
    assert digest not in store
    assert sha1(b"SOME TEXT") not in store  # and was never offered under the new name


def test_a_link_that_was_only_touched_is_hashed_and_kept(store, tmp_path):
    path = settled(tmp_path / "a", b"some text")
    content = store.add_file(path, is_linked=True)
    os.utime(path, ns=(0, LONG_AGO_NS + 5))
    assert store.find(content.sha1) == content
    assert list(store.list()) == [content]


def test_an_object_is_preferred_to_a_link(store, tmp_path):
    path = settled(tmp_path / "a", b"some text")
    store.add_file(path, is_linked=True)
    assert store.add_file(path).origin == "object"
    assert store.find(sha1(b"some text")).origin == "object"
    assert [content.origin for content in store.list()] == ["object", "link"]


def test_a_file_that_changes_while_it_is_read_is_not_handed_out(store, tmp_path):
    path = settled(tmp_path / "a", os.urandom(3_000_000))
    content = store.add_file(path, is_linked=True)
    with store.open(content) as file:
        assert len(file.read(10)) == 10
        overwrite(path, b"other")
        file.seek(2_500_000)
        with pytest.raises(NotFound, match="has changed"):
            file.read(10)
    with pytest.raises(NotFound):
        store.read(content)


def test_without_a_look_after_reading_a_changed_file_would_be_served(store, tmp_path, monkeypatch):
    path = settled(tmp_path / "a", bytes(3_000_000))
    monkeypatch.setattr(reading.Watched, "_look", lambda self: None)
    with store.open(store.add_file(path, is_linked=True)) as file:
        overwrite(path, b"other")
        assert file.read(5) == b"other"


def test_a_content_that_moved_is_opened_where_it_is_now(store, tmp_path):
    path = settled(tmp_path / "a", b"some text")
    content = store.add_file(path, is_linked=True)
    store.add_file(path)
    path.unlink()
    assert store.read(content) == b"some text"


def test_an_open_file_is_a_whole_file_object(store):
    content = store.add_bytes(b"one\ntwo\nthree")
    with store.open(content) as file:
        assert file.readline() == b"one\n"
        assert file.tell() == 4
        assert list(file) == [b"two\n", b"three"]
        file.seek(-5, os.SEEK_END)
        assert file.read(2) == b"th"
        buffer = bytearray(3)
        assert file.readinto(buffer) == 3
        assert (bytes(buffer), file.seekable(), file.writable()) == (b"ree", True, False)


# --- Receiving -----------------------------------------------------------------------------------


def test_what_is_received_is_adopted_once_it_is_right(store):
    with store.receive(bytes.fromhex(SOME_TEXT), 9, "file.txt") as incoming:
        assert incoming.path.parent == store.directory / "tmp"
        incoming.path.write_bytes(b"some text")
        content = incoming.commit()
    assert store.find(content.sha1) == content
    assert (content.name, stat.S_IMODE(content.path.stat().st_mode)) == ("file.txt", 0o444)
    assert files_in(store.directory / "tmp") == []


@pytest.mark.parametrize(("value", "size"), [(b"SOME TEXT", 9), (b"some text", 8), (b"", None)])
def test_what_is_received_wrong_is_removed(store, value, size):
    with store.receive(bytes.fromhex(SOME_TEXT), size) as incoming:
        incoming.path.write_bytes(value)
        with pytest.raises(Corrupt):
            incoming.commit()
    assert files_in(store.directory / "tmp") == []
    assert bytes.fromhex(SOME_TEXT) not in store


def test_what_is_not_committed_is_removed(store):
    with store.receive(bytes.fromhex(SOME_TEXT)) as incoming:
        incoming.path.write_bytes(b"some text")
    assert files_in(store.directory / "tmp") == []
    assert bytes.fromhex(SOME_TEXT) not in store


def test_a_received_file_with_another_name_is_refused(store, tmp_path):
    with store.receive(bytes.fromhex(SOME_TEXT)) as incoming:
        incoming.path.write_bytes(b"some text")
        os.link(incoming.path, tmp_path / "other")  # who holds it could write to the object
        with pytest.raises(UsageError):
            incoming.commit()


# --- Together ------------------------------------------------------------------------------------


def test_threads_share_a_store(store):
    failures = []

    def work(number):
        try:
            for turn in range(30):
                value = b"%d" % (turn * (number % 2))
                content = store.add_bytes(value)
                assert store.read(store.find(content.sha1)) == value
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.list())) == 30


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_reads_and_writes_and_so_does_its_parent(store):
    content = store.add_bytes(b"some text")
    for turn in range(3):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                store.add_bytes(b"child %d" % turn)
                code = 0 if store.read(content) == b"some text" else 2
            finally:
                os._exit(code)
        store.add_bytes(b"parent %d" % turn)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(store.list())) == 7


def test_removing_needs_that_it_is_there_and_not_pinned(store, tmp_path):
    content = store.add_bytes(b"some text")
    store.pin(content.sha1)
    assert store.find(content.sha1).is_pinned
    with pytest.raises(NotPermitted):
        store.remove(content.sha1)
    store.unpin(content.sha1)
    store.remove(content.sha1)
    assert content.sha1 not in store
    with pytest.raises(NotFound):
        store.remove(content.sha1)
    with pytest.raises(NotFound):
        store.pin(content.sha1)


def test_removing_a_link_leaves_the_file(store, tmp_path):
    path = settled(tmp_path / "a", b"some text")
    content = store.add_file(path, is_linked=True)
    store.remove(content.sha1)
    assert content.sha1 not in store
    assert path.read_bytes() == b"some text"


def test_md5_finds_a_link_beside_an_object_whose_md5_is_not_known(tmp_path):
    store = ContentStore(tmp_path / "store")
    store.add_bytes(b"some text")
    path = tmp_path / "x"
    path.write_bytes(b"some text")
    link = store.add_file(path, algorithms=["md5"], is_linked=True)
    assert store.find(link.md5, "md5").path == path


def test_an_md5_that_the_object_lost_is_computed_again(tmp_path):
    store = ContentStore(tmp_path / "store")
    path = tmp_path / "x"
    path.write_bytes(b"some text")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    md5 = store.add_file(path, algorithms=["md5"]).md5
    store.remove(store.find(md5, "md5").sha1)
    store.add_bytes(b"some text")
    assert store.add_file(path, algorithms=["md5"]).md5 == md5
