"""Files shared in place: every value can be read, and never under a name that is not its own."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from bytestag import config
from bytestag.errors import UsageError
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest
from bytestag.models.fileinfo import FileInfo
from bytestag.models.safe_names import check_tree
from bytestag.tables import file_hashing, schema, shared_queries
from bytestag.tables.base import KVPID, Asked, KVPTable, Verdict, bytes_match
from bytestag.tables.database_engine import Database
from bytestag.tables.shared import SharedFilesKVPTable
from tests.tables.helpers import COLLISIONS, NOW, key_of, row

PART = config.PART_BYTES
OLD = 1_000_000_000


class Share:
    """A directory with files that were last written long ago, and the table that shares it."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root
        root.mkdir()
        self.table = SharedFilesKVPTable(database, wall=lambda: NOW)
        self.table.add_path(root)

    def write(self, name: str, value: bytes, mtime: int = OLD) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value)
        os.utime(path, (mtime, mtime))
        return path

    def manifest(self) -> DirectoryManifest:
        key = self.table.root(self.root).sha1
        return DirectoryManifest.from_bytes(self.table.read(KVPID(key, key)))


@pytest.fixture
def share(tmp_path: Path, database: Database) -> Share:
    return Share(tmp_path / "share", database)


def pattern(size: int, seed: int = 1) -> bytes:
    return b"".join((seed * 10**9 + at).to_bytes(8, "big") for at in range(size // 8 + 1))[:size]


def name_of(value: bytes) -> KVPID:
    return KVPID(key_of(value), key_of(value))


def info_of(table: KVPTable, file: bytes) -> FileInfo:
    (index,) = table.indices(key_of(file))[-1:]
    return FileInfo.from_bytes(table.read(KVPID(key_of(file), index)))


# --- What a share serves -------------------------------------------------------------------------


def test_each_part_is_read_from_the_file_where_it_lies(share: Share) -> None:
    value = pattern(2 * PART + 100)
    share.write("large.bin", value)
    assert share.table.scan().hashed == 1
    for at in range(0, len(value), PART):
        part = value[at : at + PART]
        assert share.table.read(name_of(part)) == part
        assert share.table.record(name_of(part)).is_original


def test_a_file_info_answers_to_the_file_s_hash_and_to_its_own(share: Share) -> None:
    value = pattern(PART + 1)
    share.write("a.bin", value)
    share.table.scan()
    info = info_of(share.table, value)
    assert (info.hash, info.size, info.blake3) == (key_of(value), len(value), blake3(value))
    assert [part.sha1 for part in info.parts] == [sha1(value[:PART]), sha1(value[PART:])]
    assert share.table.read(KVPID(info.id, info.id)) == info.to_bytes()


def test_a_file_of_one_part_serves_its_bytes_and_its_info_under_one_key(share: Share) -> None:
    share.write("a.txt", b"hello")
    share.table.scan()
    assert len(share.table.records_by_key(key_of(b"hello"))) == 2
    assert share.table[name_of(b"hello")] == b"hello"
    assert info_of(share.table, b"hello").size == 5


def test_an_empty_file_has_an_info_and_no_parts(share: Share) -> None:
    share.write("empty", b"")
    share.table.scan()
    assert info_of(share.table, b"").part_count == 0
    with pytest.raises(KeyError):
        share.table.read(name_of(b""))


def test_the_manifest_names_every_file_and_empty_directory(share: Share) -> None:
    share.write("b.txt", b"b")
    share.write("sub/deep/a.txt", b"a")
    (share.root / "empty").mkdir()
    share.table.scan()
    manifest = share.manifest()
    assert [path for path, _entry in manifest.entries()] == [("b.txt",), ("sub", "deep", "a.txt")]
    assert list(manifest.empty_directories()) == [("empty",)]
    entry = manifest.at(["sub", "deep", "a.txt"])
    assert (entry.sha1, entry.b3, entry.size) == (sha1(b"a"), blake3(b"a"), 1)
    info = share.table.read(KVPID(key_of(b"a"), KeyBytes(entry.info)), entry.info_b3)
    assert FileInfo.from_bytes(info).filename == ()


def test_a_manifest_larger_than_a_part_is_itself_a_file(share: Share, monkeypatch) -> None:
    monkeypatch.setattr(config, "MANIFEST_INLINE_BYTES_MAX", 100)
    share.write("a.txt", b"a")
    share.table.scan()
    root = share.table.root(share.root)
    (record,) = [r for r in share.table.records_by_key(root.sha1) if r.index != root.sha1]
    info = FileInfo.from_bytes(share.table.read(record.kvpid))
    assert (info.hash, info.size, info.id) == (root.sha1, root.size, record.index)
    assert record.blake3 == root.info_blake3
    whole = b"".join(
        share.table.read(KVPID(KeyBytes(part.sha1), KeyBytes(part.sha1))) for part in info.parts
    )
    assert blake3(whole) == root.blake3


def test_a_shared_file_is_a_root_with_the_name_it_has(share: Share) -> None:
    path = share.write("../data.csv", b"1,2,3")
    share.table.add_path(path)
    share.table.scan()
    root = share.table.root(path)
    assert not root.is_directory
    assert (root.sha1, root.size) == (key_of(b"1,2,3"), 5)
    info = info_of(share.table, b"1,2,3")
    assert info.filename == ("data.csv",)
    assert blake3(info.to_bytes()) == root.info_blake3


def test_the_records_of_a_share_are_all_its_values_in_key_order(share: Share) -> None:
    for number in range(20):
        share.write(f"{number}", pattern(50 * number, number))
    other = share.write("../other", b"other")
    share.table.add_path(other)
    share.table.scan()
    records = list(share.table.share_records(share.root))
    assert records == sorted(records, key=lambda record: (record.kvpid, record.blake3))
    assert len(set(records)) == len(records) == 19 + 2 * 20 + 1
    for record in records:
        assert bytes_match(record, share.table.read(record.kvpid, record.blake3))
    assert name_of(b"other") not in [record.kvpid for record in records]
    assert len(share.table) == len(records) + 3
    with pytest.raises(KeyError):
        share.table.share_records("/never/shared")


def test_keys_come_in_order_and_once_across_pages(share: Share, monkeypatch) -> None:
    monkeypatch.setattr("bytestag.tables.shared_queries.PAGE_ROWS", 7)
    for number in range(30):
        share.write(f"{number}", b"%d" % (number // 2))
    share.table.scan()
    keys = list(share.table)
    assert keys == sorted(set(keys))
    assert set(keys) >= {name_of(b"%d" % number) for number in range(15)}


def test_two_files_with_one_sha1_are_both_shared(share: Share) -> None:
    values = [(COLLISIONS / f"sha-mbles-{number}.bin").read_bytes() for number in (1, 2)]
    for number, value in enumerate(values):
        share.write(f"{number}", value)
    share.table.scan()
    for value in values:
        assert share.table.read(name_of(value), blake3(value)) == value


# --- Scanning again ------------------------------------------------------------------------------


def test_an_unchanged_file_is_only_looked_at(share: Share, monkeypatch) -> None:
    share.write("a", b"a")
    share.table.scan()
    monkeypatch.setattr("bytestag.tables.scanning.hash_file", None)
    result = share.table.scan()
    assert (result.files, result.hashed, result.removed) == (1, 0, 0)


def test_a_manifest_is_made_only_when_something_changed(share: Share, monkeypatch) -> None:
    made = []
    build = DirectoryManifest.build.__func__

    def watched(cls, entries, directories):
        made.append(list(directories))
        return build(cls, entries, made[-1])

    monkeypatch.setattr(DirectoryManifest, "build", classmethod(watched))

    def scanned() -> int:
        before = len(made)
        share.table.scan()
        return len(made) - before

    share.write("a", b"a")
    assert [scanned(), scanned(), scanned()] == [1, 0, 0]
    share.write("a", b"b", OLD + 1)
    assert [scanned(), scanned()] == [1, 0]
    (share.root / "hollow").mkdir()
    assert [scanned(), scanned()] == [1, 0]
    assert list(share.manifest().empty_directories()) == [("hollow",)]
    (share.root / "hollow").rmdir()
    (share.root / "a").unlink()
    assert [scanned(), scanned()] == [1, 0]
    share.write("b", b"b")
    monkeypatch.setattr("bytestag.tables.scanning.save_manifest", lambda *_: ([], []))
    share.table.scan()  # as if it ended between its last row and the manifest
    monkeypatch.undo()
    share.table.scan()
    assert list(share.manifest().files) == ["b"]


def test_a_restart_keeps_the_hashes(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.db")
    share = Share(tmp_path / "share", database)
    share.write("a", b"a")
    share.table.scan()
    database.close()
    table = SharedFilesKVPTable(tmp_path / "a.db", wall=time.time)
    assert table.shared_directories == [share.root]
    assert table.read(name_of(b"a")) == b"a"
    assert table.scan().hashed == 0
    table.close()


def test_a_changed_file_is_found_under_its_new_name_only(share: Share) -> None:
    share.write("a", b"before")
    share.write("same", b"same")
    share.table.scan()
    old_root = share.table.root(share.root)
    heard = []
    share.table.value_changed_observer.register(lambda *change: heard.append(change))
    share.write("a", b"after!", OLD + 1)
    result = share.table.scan()
    assert (result.files, result.hashed) == (2, 1)
    assert share.table[name_of(b"after!")] == b"after!"
    assert name_of(b"before") not in share.table
    assert share.table.indices(key_of(b"before")) == []
    assert share.table.root(share.root).sha1 != old_root.sha1
    assert KVPID(old_root.sha1, old_root.sha1) not in share.table
    assert (name_of(b"before"), False) in heard
    assert (name_of(b"after!"), True) in heard
    assert not [kvpid for kvpid, _is_added in heard if kvpid == name_of(b"same")]


def test_a_vanished_file_takes_its_values_with_it(share: Share) -> None:
    path = share.write("a", b"a")
    share.write("b", b"b")
    share.table.scan()
    path.unlink()
    assert share.table.scan().removed == 1
    assert share.table.indices(key_of(b"a")) == []
    assert share.table.num_files == 1
    assert share.manifest().file_count == 1


def test_a_new_file_is_added_and_nothing_else_is_touched(share: Share) -> None:
    share.write("a", b"a")
    share.table.scan()
    share.write("b", b"b")
    result = share.table.scan()
    assert (result.files, result.hashed, result.removed) == (2, 1, 0)
    assert share.table[name_of(b"b")] == b"b"


def test_equal_parts_survive_the_loss_of_one_file(share: Share) -> None:
    value = pattern(PART + 10)
    first = share.write("1", value)
    share.write("2", value)
    share.table.scan()
    assert len(share.table.records_by_key(key_of(value[:PART]))) == 1
    heard = []
    share.table.value_changed_observer.register(lambda *change: heard.append(change))
    first.unlink()
    assert share.table.read(name_of(value[:PART])) == value[:PART]
    share.table.scan()
    assert share.table.read(name_of(value[:PART])) == value[:PART]
    assert info_of(share.table, value).size == len(value)
    assert (name_of(value[:PART]), False) not in heard


def test_a_file_that_changed_behind_our_back_is_never_served_under_its_old_name(
    share: Share,
) -> None:
    path = share.write("a", b"before")
    share.table.scan()
    path.write_bytes(b"after!")
    os.utime(path, (OLD, OLD))  # even with the size and time that it had
    with pytest.raises(KeyError):
        share.table.read(name_of(b"before"))
    assert name_of(b"before") not in share.table
    assert share.table.num_files == 0
    assert share.table.scan().hashed == 1
    assert share.table[name_of(b"after!")] == b"after!"


def test_a_file_put_right_again_is_served_again(share: Share) -> None:
    """Whoever restores a spoilt file restores its time too: size, time and inode stay equal."""
    path = share.write("a", b"before")
    share.table.scan()
    path.write_bytes(b"spoilt")
    os.utime(path, (OLD, OLD))
    with pytest.raises(KeyError):
        share.table.read(name_of(b"before"))
    assert share.table.scan().hashed == 1
    for value in (b"before", b"spoilt", b"before"):
        before = path.stat().st_ctime_ns
        while path.stat().st_ctime_ns == before:  # until the kernel's clock ticks
            path.write_bytes(value)
            os.utime(path, (OLD, OLD))
        assert share.table.scan().hashed == 1
        assert share.table[name_of(value)] == value
        assert share.table.scan().hashed == 0


@pytest.mark.parametrize("how", ["edited", "away for a moment"])
def test_a_file_whose_time_was_right_is_not_doubted(share: Share, how: str) -> None:
    path = share.write("a", b"before")
    share.table.scan()
    if how == "edited":
        share.write("a", b"after", OLD + 1)
    else:
        path.rename(share.root.parent / "away")
    with pytest.raises(KeyError):
        share.table.read(name_of(b"before"))
    if how != "edited":
        (share.root.parent / "away").rename(path)
    assert share.table.scan().hashed == 1
    path.chmod(0o600)
    assert share.table.scan().hashed == 0


def test_who_links_a_file_or_changes_who_may_read_it_has_nothing_hashed(share: Share) -> None:
    path = share.write("a", b"a")
    share.table.scan()
    os.link(path, share.root.parent / "elsewhere")
    path.chmod(0o600)
    assert share.table.scan().hashed == 0


def test_a_truncated_or_vanished_file_is_a_key_error(share: Share) -> None:
    path = share.write("a", pattern(2 * PART))
    other = share.write("b", b"b")
    share.table.scan()
    os.truncate(path, PART)
    other.unlink()
    for value in (pattern(2 * PART)[PART:], b"b"):
        with pytest.raises(KeyError):
            share.table.read(name_of(value))


def test_a_path_shared_no_longer_leaves_nothing_behind(share: Share) -> None:
    share.write("a", pattern(3 * PART))
    share.table.scan()
    assert share.table.remove_path(share.root)
    assert not share.table.remove_path(share.root)
    assert len(share.table) == share.table.num_files == 0
    assert share.table.shared_directories == []
    with share.table.database.read() as connection:
        for name in ("shared_files", "shared_parts", "shared_values", "shared_blobs"):
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() == 0


def test_a_directory_that_went_away_is_a_warning_and_serves_nothing(share: Share) -> None:
    share.write("a", b"a")
    share.table.scan()
    share.root.rename(share.root.with_name("elsewhere"))
    result = share.table.scan()
    assert result.removed == 1
    assert result.warnings == [(str(share.root), "not found: No such file or directory")]
    with pytest.raises(KeyError):
        share.table.root(share.root)


def test_a_file_of_many_parts_is_served_once_all_of_it_is_written(share: Share, monkeypatch):
    monkeypatch.setattr("bytestag.tables.shared_saving.LARGE_ENTRIES_BYTES", 52)
    monkeypatch.setattr("bytestag.tables.shared_saving.PARTS_PER_JOB", 2)
    value = pattern(5 * PART)
    share.write("a", value)
    share.table.scan()
    assert share.table.read(name_of(value[4 * PART :])) == value[4 * PART :]
    assert info_of(share.table, value).part_count == 5
    assert share.table.num_files == 1


# --- What cannot be shared -----------------------------------------------------------------------


def test_loops_and_links_that_leave_the_share_are_not_followed(share: Share) -> None:
    share.write("sub/a", b"a")
    share.write("../outside", b"secret")
    os.symlink(share.root, share.root / "sub/loop")
    os.symlink(share.root.parent / "outside", share.root / "leak")
    os.symlink("/etc", share.root / "etc")
    os.symlink("nowhere", share.root / "broken")
    os.symlink("sub/a", share.root / "alias")
    os.symlink("sub", share.root / "twin")
    result = share.table.scan()
    paths = ["/".join(path) for path, _entry in share.manifest().entries()]
    assert paths == ["alias", "sub/a", "twin/a"]
    assert share.table.indices(key_of(b"secret")) == []
    reasons = {Path(path).relative_to(share.root).as_posix(): why for path, why in result.warnings}
    assert reasons.pop("broken").startswith("cannot be read")
    assert reasons == {
        "leak": "a link that leaves the share",
        "etc": "a link that leaves the share",
        "sub/loop": "a link that leads back",
        "twin/loop": "a link that leads back",
    }


def test_names_that_are_not_utf8_or_not_safe_are_reported(share: Share) -> None:
    share.write("good", b"good")
    for name in (b"bad\xff", b"new\nline", b"nul", b"dot."):
        (Path(os.fsdecode(os.fsencode(share.root) + b"/" + name))).write_bytes(b"x")
    result = share.table.scan()
    assert share.manifest().file_count == 1
    assert result.warning_count == len(result.warnings) == 4
    assert str(share.root / "bad\\xff") in [path for path, _why in result.warnings]


def test_a_file_being_downloaded_is_not_shared(share: Share) -> None:
    share.write("film.mkv.bytestag-incomplete", b"half")
    assert share.table.scan().files == 0


def test_an_unreadable_file_is_a_warning_and_the_rest_is_shared(share: Share, monkeypatch) -> None:
    share.write("a", b"a")
    locked = share.write("locked", b"locked")
    real_open = file_hashing._open

    def guarded(path):
        if path == os.fsencode(locked):  # root reads anything, so permissions prove nothing
            raise PermissionError(13, "Permission denied")
        return real_open(path)

    monkeypatch.setattr(file_hashing, "_open", guarded)
    result = share.table.scan()
    assert result.files == 1
    assert result.warnings == [(str(locked), "cannot be read: Permission denied")]


@pytest.mark.parametrize("size", [10, PART + 10])
def test_a_file_written_to_while_it_is_hashed_is_left_for_later(share: Share, size: int) -> None:
    path = share.write("busy", pattern(size))

    def write_more(_path: str, _done: int, _total: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    result = share.table.scan(progress=write_more)
    assert result.warnings == [(str(path), "changed while it was read")]
    assert share.table.num_files == 0
    assert share.table.scan().hashed == 1


def test_a_file_written_to_just_now_is_hashed_again(share: Share) -> None:
    share.write("fresh", b"fresh", mtime=NOW)
    assert share.table.scan().hashed == 1
    assert share.table.scan().hashed == 1


def test_a_stopped_scan_keeps_what_it_hashed_and_removes_nothing(share: Share) -> None:
    gone = share.write("gone", b"gone")
    share.table.scan()
    gone.unlink()
    for number in range(50):
        share.write(f"{number:02}", pattern(10, number))
    stop = threading.Event()
    result = share.table.scan(progress=lambda *_: stop.set(), stop=stop)
    assert not result.is_complete
    assert result.removed == 0
    assert share.table.num_files == 1 + result.hashed
    assert result.hashed < 50
    assert share.table.scan().hashed == 50 - result.hashed


def test_progress_tells_paths_and_growing_bytes(share: Share) -> None:
    share.write("a", pattern(3 * 1024 * 1024))
    share.write("b", b"b")
    told = []
    share.table.scan(progress=lambda *progress: told.append(progress))
    assert {path for path, _done, _total in told} == {str(share.root / "a"), str(share.root / "b")}
    done = [bytes_done for _path, bytes_done, _total in told]
    assert done == sorted(done)
    assert told[-1][1:] == (3 * 1024 * 1024 + 1,) * 2


def test_nothing_can_be_stored_in_shared_files(share: Share) -> None:
    record, value = row(b"123")
    assert share.table.store(record, value, NOW) is Verdict.READ_ONLY
    assert not share.table.is_acceptable(record.kvpid, 3, NOW)
    assert share.table.remove(record.kvpid) == 0


def test_the_figures_count_files_directories_and_bytes(share: Share) -> None:
    share.write("a", bytes(1000))
    share.write("b", bytes(500))
    share.table.scan()
    figures = share.table.num_files, share.table.num_collections, share.table.total_disk_size
    assert figures == (2, 1, 1500)


def test_a_path_that_is_not_there_cannot_be_shared(share: Share) -> None:
    with pytest.raises(ValueError, match="there is no"):
        share.table.add_path(share.root / "nothing")


def test_reading_rows_together_gives_what_reading_each_gives(tmp_path):
    (tmp_path / "files").mkdir()
    for number in range(3):
        (tmp_path / "files" / str(number)).write_bytes(bytes([number]) * (300_000 * number + 1))
    table = SharedFilesKVPTable(tmp_path / "index.db", wall=time.time)
    try:
        table.add_path(tmp_path / "files")
        table.scan()
        records = list(table.share_records(tmp_path / "files"))
        assert table.read_rows(records) == [table.read_row(record) for record in records]
        assert table.records_by_keys([r.key for r in records]) == {
            r.key: table.records_by_key(r.key) for r in records
        }
        (tmp_path / "files" / "0").write_bytes(b"changed")
        assert table.read_rows(records).count(None) == 1
    finally:
        table.close()


def test_two_names_that_differ_only_in_case_or_form_cannot_both_be_fetched(share: Share) -> None:
    share.write("Makefile", b"1")
    share.write("makefile", b"2")
    share.write("cafe\u0301/a", b"3")
    share.write("caf\u00e9", b"4")
    result = share.table.scan()
    paths = [path for path, _entry in share.manifest().entries()]
    assert paths == [("Makefile",), ("caf\u00e9", "a")]
    check_tree(paths)
    assert [why for _path, why in result.warnings] == ["differs from another name only in case"] * 2


def test_a_time_that_no_database_can_hold_is_a_time(share: Share) -> None:
    path = share.write("a", b"a", mtime=10**10)
    if path.stat().st_mtime < 10**10:
        pytest.skip("this file system cannot hold it either")
    assert share.table.scan().hashed == 1
    assert share.table.scan().hashed == 0


def test_a_file_too_large_to_be_described_is_a_warning(share: Share, monkeypatch) -> None:
    monkeypatch.setattr("bytestag.tables.scanning.FILE_BYTES_MAX", 10)
    share.write("large", bytes(11))
    share.write("small", bytes(10))
    result = share.table.scan()
    assert [why for _path, why in result.warnings] == ["too large to be described"]
    assert share.manifest().file_count == 1


def test_a_hole_is_one_part(share: Share) -> None:
    value = bytes(5 * PART) + b"end"
    share.write("a", value)
    share.table.scan()
    with share.table.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM shared_parts").scalar() == 2
    assert share.table.read(name_of(bytes(PART))) == bytes(PART)
    assert info_of(share.table, value).part_count == 6


def test_a_pipe_in_the_place_of_a_file_stops_nobody(share: Share) -> None:
    path = share.write("a", b"a")
    share.table.scan()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(file_hashing.FileChanged):
        file_hashing.hash_file(os.fsencode(path), lambda: 0)
    with pytest.raises(KeyError):
        share.table.read(name_of(b"a"))


def test_a_file_that_cannot_be_opened_now_is_served_later(share: Share, monkeypatch) -> None:
    share.write("a", b"a")
    share.write("b", b"b")
    share.table.scan()

    def no_descriptor_left(_path: bytes) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("bytestag.tables.part_reader.open_file", no_descriptor_left)
        with pytest.raises(KeyError):
            share.table.read(name_of(b"a"))
    assert share.table.read(name_of(b"a")) == b"a"


def test_a_file_hashed_again_meanwhile_is_not_put_aside(share: Share, monkeypatch) -> None:
    path = share.write("a", b"before")
    share.table.scan()

    def scan_and_read(path_: bytes, _offset: int, _size: int) -> bytes:
        monkeypatch.undo()
        path.write_bytes(b"after")
        os.utime(path, (OLD, OLD))
        share.table.scan()
        return path.read_bytes()

    monkeypatch.setattr("bytestag.tables.part_reader._read_at", scan_and_read)
    with pytest.raises(KeyError):
        share.table.read(name_of(b"before"))
    assert share.table.read(name_of(b"after")) == b"after"


def test_a_new_share_does_not_wait_for_the_scan_of_another(share: Share, tmp_path: Path) -> None:
    share.write("a", b"a")
    other = tmp_path / "other"
    other.write_bytes(b"other")
    found: list[int] = []

    def share_another(_path: str, _done: int, _total: int) -> None:
        share.table.add_path(other)
        scan = threading.Thread(
            target=lambda: found.append(share.table.scan(path=other).files), daemon=True
        )
        scan.start()
        scan.join(5)

    share.table.scan(path=share.root, progress=share_another)
    assert found == [1]
    assert share.table.root(other).size == 5


def test_a_share_that_is_removed_is_hashed_no_further(share: Share, monkeypatch) -> None:
    for number in range(50):
        share.write(f"{number:02}", pattern(10, number))
    removers: list[threading.Thread] = []
    is_waiting = threading.Event()
    real = share.table._scan_lock

    def tell(number: int) -> threading.Lock:
        is_waiting.set()
        return real(number)

    def remove(_path: str, _done: int, _total: int) -> None:
        if not removers:
            removers.append(threading.Thread(target=share.table.remove_path, args=(share.root,)))
            monkeypatch.setattr(share.table, "_scan_lock", tell)
            removers[0].start()
            is_waiting.wait(10)

    result = share.table.scan(progress=remove)
    removers[0].join(10)
    assert not result.is_complete
    assert result.hashed < 50
    assert share.table.shared_directories == []
    assert len(share.table) == 0


def test_a_large_share_is_read_in_the_order_of_all_rows(share: Share, monkeypatch) -> None:
    for number in range(10):
        share.write(f"{number}", pattern(10, number))
    share.table.scan()
    sorted_for_each_page = list(share.table.share_records(share.root))
    monkeypatch.setattr("bytestag.tables.shared_queries.SORTED_PAGES_MAX", 0)
    assert list(share.table.share_records(share.root)) == sorted_for_each_page
    p, v = schema.shared_parts.c, schema.shared_values.c
    with share.table.database.read() as connection:
        assert shared_queries.is_large(connection, 1)
        for query, order in (
            (shared_queries.parts_query(1, is_large=True), (p.sha1, p.blake3)),
            (shared_queries.values_query(1, is_large=True), (v.key, v.sha1, v.blake3)),
        ):
            text = query.order_by(*order).compile(compile_kwargs={"literal_binds": True})
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all()
            assert not [step for step in plan if "TEMP B-TREE" in step[3]]


def test_a_path_that_no_system_takes_cannot_be_shared(share: Share) -> None:
    with pytest.raises(UsageError):
        share.table.add_path(share.root / ("x" * 300))


def test_many_small_files_are_searched_for_with_one_statement(share: Share) -> None:
    values = [pattern(100, number) for number in range(20)]
    for number, value in enumerate(values):
        share.write(f"{number:02}", value)
    share.table.scan()
    records = [share.table.records_by_key(key_of(value))[0] for value in values]
    statements = []

    def count(_connection, _cursor, statement, *_) -> None:
        statements.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", count)
    try:
        assert share.table.read_rows(records) == values
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", count)
    assert len([s for s in statements if s.startswith("SELECT")]) == 2  # blobs, places


def test_parts_of_many_copies_hide_no_others(share: Share) -> None:
    same, *others = sorted((pattern(50, number) for number in range(6)), key=sha1)
    for number in range(40):
        share.write(f"copy {number:02}", same)
    for number, value in enumerate(others):
        share.write(f"{number}", value)
    share.table.scan()
    (share.root / "copy 00").write_bytes(b"gone")
    records = [share.table.records_by_key(key_of(value))[0] for value in [same, *others]]
    assert len(share.table._parts._first_of(records)) == 1  # the copies take all the room
    assert share.table.read_rows(records) == [same, *others]


def test_parts_that_follow_each_other_are_read_at_one_go_and_verified_each(share, monkeypatch):
    value = pattern(18 * PART + 100)
    path = share.write("large", value)
    share.table.scan()
    parts = [value[at : at + PART] for at in range(0, len(value), PART)]
    asked = [Asked(key_of(part), key_of(part), blake3(part)[:8]) for part in parts]
    share.table.read(name_of(parts[0]))  # the places of those that follow are known now
    sizes = []
    read = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)

    def read_all() -> list[bytes | None]:
        return [row and bytes(row.value) for row in share.table.read_remembered(asked[1:])]

    assert read_all() == parts[1:]
    assert sizes == [16 * PART, PART + 100]
    changed = bytearray(value)
    changed[3 * PART] ^= 1
    del changed[5 * PART + 10 :]
    path.write_bytes(changed)
    assert read_all() == [parts[1], parts[2], None, parts[4], *[None] * 14]
