"""What a scan writes: in batches, whole or not at all, whatever fails or ends in between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bytestag.errors import NoSpace
from bytestag.hashing import sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.shared import SharedFilesKVPTable
from tests.tables.helpers import NOW

OLD = 1_000_000_000
BATCH = "bytestag.tables.shared_saving.FILES_PER_BATCH"


def make_files(root: Path, count: int) -> dict[str, bytes]:
    root.mkdir()
    values = {f"{number:03}": b"%d " % number * 100 for number in range(count)}
    for name, value in values.items():
        (root / name).write_bytes(value)
        os.utime(root / name, (OLD, OLD))
    return values


def check_all_served(table: SharedFilesKVPTable, root: Path, values: dict[str, bytes]) -> None:
    key = table.root(root).sha1
    manifest = DirectoryManifest.from_bytes(table.read(KVPID(key, key)))
    assert {path[-1] for path, _entry in manifest.entries()} == set(values)
    for value in values.values():
        part = KeyBytes(sha1(value))
        assert table.read(KVPID(part, part)) == value
        assert len(table.records_by_key(part)) == 2  # the part, and the description


@pytest.mark.parametrize("count", [0, 1, 6, 7, 20])
def test_files_of_many_batches_are_all_served(tmp_path, database, monkeypatch, count) -> None:
    monkeypatch.setattr(BATCH, 3)
    monkeypatch.setattr("bytestag.tables.scanning.FILES_PER_HASHING", 2)
    monkeypatch.setattr("bytestag.tables.many_rows.ROWS_PER_STATEMENT", 2)
    values = make_files(tmp_path / "share", count)
    table = SharedFilesKVPTable(database, wall=lambda: NOW)
    changes: list[tuple[KVPID, bool]] = []
    table.value_changed_observer.register(lambda *change: changes.append(change))
    table.add_path(tmp_path / "share")
    result = table.scan()
    assert result.files == result.hashed == table.num_files == count
    check_all_served(table, tmp_path / "share", values)
    assert len(changes) == len(set(changes)) == 3 * count + 1
    assert all(is_added for _kvpid, is_added in changes)
    assert table.scan().hashed == 0


def test_a_changed_file_is_another_row_in_the_same_transaction(
    tmp_path, database, monkeypatch
) -> None:
    monkeypatch.setattr(BATCH, 3)
    values = make_files(tmp_path / "share", 10)
    table = SharedFilesKVPTable(database, wall=lambda: NOW)
    table.add_path(tmp_path / "share")
    table.scan()
    old = KeyBytes(sha1(values["004"]))
    values["004"] = b"other"
    (tmp_path / "share" / "004").write_bytes(b"other")
    os.utime(tmp_path / "share" / "004", (OLD + 1, OLD + 1))
    assert table.scan().hashed == 1
    check_all_served(table, tmp_path / "share", values)
    assert table.records_by_key(old) == []
    assert table.num_files == 10


def test_a_disk_that_is_full_keeps_the_batches_before(tmp_path, database, monkeypatch) -> None:
    monkeypatch.setattr(BATCH, 3)
    values = make_files(tmp_path / "share", 12)
    table = SharedFilesKVPTable(database, wall=lambda: NOW)
    table.add_path(tmp_path / "share")
    real, calls = database.submit, []

    def submit(work, **options):
        calls.append(work)
        if len(calls) == 3:

            def fail(_connection):
                raise NoSpace("no space left for the database")

            return real(fail, **options)
        return real(work, **options)

    with monkeypatch.context() as patch:
        patch.setattr(database, "submit", submit)
        with pytest.raises(NoSpace):
            table.scan()
    assert table.num_files == 6
    assert table.scan().hashed == 6
    check_all_served(table, tmp_path / "share", values)


_VICTIM = """
import sys, time
from bytestag.tables import shared_saving
from bytestag.tables.shared import SharedFilesKVPTable
shared_saving.FILES_PER_BATCH = 8
table = SharedFilesKVPTable(sys.argv[1], time.time)
table.add_path(sys.argv[2])
print("ready", flush=True)
table.scan()
print("done", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_scan_that_is_killed_at_any_moment_goes_on_where_it_was(tmp_path) -> None:
    rng = random.Random(5)
    values = make_files(tmp_path / "share", 400)
    hashed: list[int] = []
    for _ in range(4):
        arguments = [str(tmp_path / "shared.db"), str(tmp_path / "share")]
        with subprocess.Popen(
            [sys.executable, "-c", _VICTIM, *arguments], stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            try:
                victim.wait(rng.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                victim.send_signal(signal.SIGKILL)
        assert victim.returncode == -signal.SIGKILL
        database = Database(tmp_path / "shared.db")
        assert database.quick_check() == []
        table = SharedFilesKVPTable(database, wall=lambda: NOW)
        hashed.append(table.num_files)
        for record in table.share_records(tmp_path / "share"):
            assert table.read_row(record)
        database.close()
    assert hashed == sorted(hashed)
    database = Database(tmp_path / "shared.db")
    table = SharedFilesKVPTable(database, wall=lambda: NOW)
    assert table.scan().hashed == 400 - hashed[-1]
    check_all_served(table, tmp_path / "share", values)
    database.close()
