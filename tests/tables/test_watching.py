"""A change on disk is found without anybody asking."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bytestag.errors import NoSpace
from bytestag.events.runtime import system_runtime
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.scanning import ScanResult
from bytestag.tables.shared import SharedFilesKVPTable
from bytestag.tables.watching import ShareWatcher
from tests.tables.helpers import key_of

FOUND_SECONDS = 5


class Watched:
    """A watcher at work over a table; scans can be awaited."""

    def __init__(self, table: SharedFilesKVPTable, rescan_seconds: float = 3600) -> None:
        self.table = table
        self.scans: asyncio.Queue[ScanResult] = asyncio.Queue()
        self.runtime = system_runtime(2)
        self.watcher = ShareWatcher(table, self.runtime, self.scans.put, rescan_seconds)

    async def __aenter__(self) -> Watched:
        self.task = asyncio.create_task(self.watcher.run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.runtime.close()

    async def begun(self) -> None:
        """Wait for the first scan, and for that which the beginning of the watch brings."""
        await self.scans.get()
        await self.scans.get()

    async def until_found(self, value: bytes) -> None:
        async with asyncio.timeout(FOUND_SECONDS):
            while KVPID(key_of(value), key_of(value)) not in self.table:
                await self.scans.get()


async def _change_is_found(table: SharedFilesKVPTable, root: Path) -> None:
    async with Watched(table) as watched:
        await watched.until_found(b"before")
        # The watch may begin after the first scan; write until an event arrives.
        for number in range(50):
            (root / "new").write_bytes(b"after")
            os.utime(root / "new", (number, number))
            try:
                async with asyncio.timeout(0.5):
                    await watched.scans.get()
                    break
            except TimeoutError:
                continue
        await watched.until_found(b"after")


@pytest.mark.slow
def test_a_change_is_found_by_itself(tmp_path: Path, database: Database) -> None:
    table = SharedFilesKVPTable(database, time.time)
    root = tmp_path / "share"
    root.mkdir()
    (root / "old").write_bytes(b"before")
    table.add_path(root)
    asyncio.run(_change_is_found(table, root))


@pytest.mark.slow
def test_a_new_share_is_scanned_and_watched(tmp_path: Path, database: Database) -> None:
    table = SharedFilesKVPTable(database, time.time)
    path = tmp_path / "file"
    path.write_bytes(b"a file")

    async def scenario() -> None:
        async with Watched(table) as watched:
            await watched.scans.get()
            table.add_path(path)
            watched.watcher.shares_changed()
            await watched.until_found(b"a file")

    asyncio.run(scenario())


@pytest.fixture
def table(database: Database, monkeypatch: pytest.MonkeyPatch) -> SharedFilesKVPTable:
    """A table the watch of which says soon that it has begun."""
    monkeypatch.setattr("bytestag.tables.watching.BEGUN_MILLISECONDS", 200)
    return SharedFilesKVPTable(database, time.time)


@pytest.mark.slow
def test_what_lies_beside_a_shared_file_is_not_watched(
    tmp_path: Path, table: SharedFilesKVPTable
) -> None:
    (tmp_path / "home" / "deep").mkdir(parents=True)
    path = tmp_path / "home" / "file"
    path.write_bytes(b"before")
    table.add_path(path)

    async def scenario() -> None:
        async with Watched(table) as watched:
            await watched.begun()
            (tmp_path / "home" / "deep" / "file").write_bytes(b"deeper")
            (tmp_path / "home" / "other").write_bytes(b"beside")
            await asyncio.sleep(1.5)
            assert watched.scans.empty()
            (tmp_path / "home" / "new").write_bytes(b"after")
            (tmp_path / "home" / "new").replace(path)
            await watched.until_found(b"after")

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_shared_link_is_followed_to_its_file(tmp_path: Path, table: SharedFilesKVPTable) -> None:
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "v1"
    target.write_bytes(b"before")
    (tmp_path / "current").symlink_to(target)
    table.add_path(tmp_path / "current")

    async def scenario() -> None:
        async with Watched(table) as watched:
            await watched.begun()
            target.write_bytes(b"after")
            await watched.until_found(b"after")

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_name_that_is_not_utf8_does_not_end_the_watching(
    tmp_path: Path, table: SharedFilesKVPTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bytestag.tables.watching.REWATCH_SECONDS", 0.1)
    root = tmp_path / "share"
    root.mkdir()
    table.add_path(root)

    async def scenario() -> None:
        async with Watched(table) as watched:
            await watched.begun()
            Path(os.fsdecode(os.fsencode(root) + b"/f\xff")).write_bytes(b"odd")
            (root / "new").write_bytes(b"after")
            await watched.until_found(b"after")
            (root / "newer").write_bytes(b"later")
            await watched.until_found(b"later")

    asyncio.run(scenario())


def test_without_events_a_periodic_scan_finds_the_change(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = SharedFilesKVPTable(database, time.time)
    root = tmp_path / "share"
    root.mkdir()
    table.add_path(root)

    async def no_events(self: ShareWatcher) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ShareWatcher, "_watch", no_events)

    async def scenario() -> None:
        async with Watched(table, rescan_seconds=0.01) as watched:
            await watched.scans.get()
            (root / "new").write_bytes(b"after")
            await watched.until_found(b"after")

    asyncio.run(scenario())


class _Late(SharedFilesKVPTable):
    """A table whose watcher begins after the first scan, and a change comes in between."""

    scanned: threading.Event
    change: Path

    @property
    def shared_directories(self) -> list[Path]:
        self.scanned.wait(FOUND_SECONDS)
        self.change.write_bytes(b"after")
        return super().shared_directories


@pytest.mark.slow
def test_a_change_before_the_watch_begins_is_found(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bytestag.tables.watching.BEGUN_MILLISECONDS", 200)
    table = _Late(database, time.time)
    table.scanned = threading.Event()
    root = tmp_path / "share"
    root.mkdir()
    table.change = root / "new"
    table.add_path(root)

    async def scenario() -> None:
        async with Watched(table) as watched:
            await watched.scans.get()
            table.scanned.set()
            await watched.until_found(b"after")

    asyncio.run(scenario())


@pytest.mark.slow
def test_a_directory_that_was_replaced_is_watched_again(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[list[Path]] = []
    real = ShareWatcher._follow

    async def note(self: ShareWatcher, directories: list[Path], names: Any = None) -> None:
        begun.append(directories)
        await real(self, directories, names)

    monkeypatch.setattr(ShareWatcher, "_follow", note)
    table = SharedFilesKVPTable(database, time.time)
    root = tmp_path / "share"
    root.mkdir()
    table.add_path(root)
    root.rmdir()

    async def scenario() -> None:
        async with Watched(table, rescan_seconds=0.2) as watched:
            await watched.scans.get()
            assert begun == []
            root.mkdir()
            async with asyncio.timeout(FOUND_SECONDS):
                while not begun:
                    await watched.scans.get()

    asyncio.run(scenario())


def test_a_scan_that_fails_is_not_the_last_one(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = SharedFilesKVPTable(database, time.time)
    path = tmp_path / "file"
    path.write_bytes(b"a file")
    table.add_path(path)
    real = table.scan
    outcomes = iter([NoSpace("no space left")])

    def scan(*arguments: Any) -> ScanResult:
        for error in outcomes:
            raise error
        return real(*arguments)

    monkeypatch.setattr(table, "scan", scan)

    async def scenario() -> None:
        async with Watched(table, rescan_seconds=0.01) as watched:
            await watched.until_found(b"a file")

    asyncio.run(scenario())


def test_a_cancelled_watcher_stops_its_scan(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = SharedFilesKVPTable(database, time.time)
    begun, ended = threading.Event(), threading.Event()

    def scan(_progress: object = None, stop: threading.Event | None = None) -> ScanResult:
        begun.set()
        if stop is not None and stop.wait(FOUND_SECONDS):
            ended.set()
        return ScanResult()

    monkeypatch.setattr(table, "scan", scan)

    async def scenario() -> None:
        async with Watched(table):
            await asyncio.to_thread(begun.wait, FOUND_SECONDS)

    asyncio.run(scenario())
    assert ended.is_set()


def test_a_watch_that_fails_leaves_the_periodic_scans(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_paths: Path, **_options: Any) -> AsyncIterator[None]:
        raise RuntimeError("no more watches")  # what watchfiles raises is one
        yield

    monkeypatch.setattr("watchfiles.awatch", fail)
    table = SharedFilesKVPTable(database, time.time)
    root = tmp_path / "share"
    root.mkdir()
    table.add_path(root)

    async def scenario() -> None:
        async with Watched(table, rescan_seconds=0.01) as watched:
            for _scan in range(3):
                await watched.scans.get()
            (root / "new").write_bytes(b"after")
            await watched.until_found(b"after")

    asyncio.run(scenario())


def test_who_asks_for_a_scan_waits_for_one_that_begins_afterwards():
    """One that runs already may have passed the file that came."""

    async def main():
        scans = []
        table = SimpleNamespace(shared_directories=[], scan=lambda *_: ScanResult())
        first_may_end = asyncio.Event()

        async def on_scan(_result):
            scans.append(len(scans))
            await first_may_end.wait()

        watcher = ShareWatcher(table, system_runtime(1), on_scan)
        running = asyncio.create_task(watcher.run())
        while not scans:
            await asyncio.sleep(0.001)
        asked = asyncio.create_task(watcher.scan_now())
        await asyncio.sleep(0)
        first_may_end.set()
        await asked
        running.cancel()
        return len(scans)

    assert asyncio.run(main()) == 2
