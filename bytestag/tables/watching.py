"""Watching shared paths: a change on disk leads to a scan (shell).

Events from the file system only say *when* to look; what changed is found by the scan, which looks
at each file anyway. Where events do not reach (network file systems, too many directories) a
periodic scan finds it later. The one module that imports watchfiles.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Collection, Iterable
from pathlib import Path

from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.models.safe_names import fold
from bytestag.tables.scanning import ScanResult
from bytestag.tables.shared import SharedFilesKVPTable

RESCAN_SECONDS = 3600.0
DEBOUNCE_MILLISECONDS = 1000  # a burst of changes is one scan, at most this long after it began
STEP_MILLISECONDS = 200
REWATCH_SECONDS = 300.0
"""After a watch broke, it is tried again."""
BEGUN_MILLISECONDS = 5000  # without a change, the watch says so often that it goes on
_logger = logging.getLogger(__name__)


class ShareWatcher:
    """Scans the shares of a table whenever they change, until :meth:`run` is cancelled.

    ``on_scan`` is awaited with the result of each scan.
    """

    def __init__(
        self,
        table: SharedFilesKVPTable,
        runtime: Runtime,
        on_scan: Callable[[ScanResult], Awaitable[object]] | None = None,
        rescan_seconds: float = RESCAN_SECONDS,
    ) -> None:
        self._table = table
        self._runtime = runtime
        self._on_scan = on_scan
        self._rescan_seconds = rescan_seconds
        self._wanted = asyncio.Event()
        self._shares_changed = asyncio.Event()
        self._turns: list[asyncio.Future[None]] = []

    async def scan_now(self) -> None:
        """Have the shares scanned from now on, and wait until that and ``on_scan`` are done."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(turn)
        self._wanted.set()
        await turn

    def shares_changed(self) -> None:
        """Watch the table's present shares, and scan them; call it after adding or removing one."""
        self._shares_changed.set()
        self._wanted.set()

    async def run(self) -> None:
        """Scan once, then after each change."""
        self._wanted.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._scan())

    async def _scan(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._rescan_seconds):
                    await self._wanted.wait()
            except TimeoutError:
                self._shares_changed.set()  # watch anew: a directory may have come or been replaced
            self._wanted.clear()
            turns, self._turns = self._turns, []
            try:
                await self._scan_once()
            except BytestagError as error:  # a full disk, say
                _logger.warning("! scanning the shared files: %s", error)
            for turn in turns:
                if not turn.done():
                    turn.set_result(None)

    async def _scan_once(self) -> None:
        stop = threading.Event()
        try:
            result = await self._runtime.offload(self._table.scan, None, stop)
        finally:
            stop.set()  # if we were cancelled, its thread goes on
        _logger.debug("= scanned: %d files, %d hashed", result.files, result.hashed)
        if self._on_scan is not None:
            await self._on_scan(result)

    async def _watch(self) -> None:
        while True:
            self._shares_changed = asyncio.Event()
            directories, files = await self._runtime.offload(self._find)
            if not directories and not files:
                await self._shares_changed.wait()
            async with asyncio.TaskGroup() as group:
                if directories:
                    group.create_task(self._follow(directories))
                if files:  # their directory, for editors replace files by renaming
                    parents = dict.fromkeys(path.parent for path in files)
                    group.create_task(self._follow(parents, {fold(path.name) for path in files}))

    def _find(self) -> tuple[list[Path], list[Path]]:
        """Return the shared directories and files that there are (any thread)."""
        directories: list[Path] = []
        files: list[Path] = []
        for path in self._table.shared_directories:
            if path.is_dir():
                directories.append(path)
            elif path.exists():
                files += {path, Path(os.path.realpath(path))}
        return directories, files

    async def _follow(
        self, directories: Iterable[Path], names: Collection[str] | None = None
    ) -> None:
        """Have the shares scanned after a change, until the shares change.

        With ``names`` only files of these names count, and what lies deeper is not watched: whoever
        shares one file of his home directory has not shared the rest of it.
        """
        from watchfiles import Change, awatch  # costs 40 ms that only a sharing node should pay

        def counts(_change: Change, path: str) -> bool:
            return fold(os.path.basename(path)) in (names or ())

        changes = awatch(
            *directories,
            stop_event=self._shares_changed,
            debounce=DEBOUNCE_MILLISECONDS,
            step=STEP_MILLISECONDS,
            watch_filter=counts if names is not None else None,
            recursive=names is None,
            ignore_permission_denied=True,
            rust_timeout=BEGUN_MILLISECONDS,
            yield_on_timeout=True,
        )
        has_begun = is_broken = False
        try:
            async for change in changes:
                if change or not has_begun:  # look for what came between the scan and the watch
                    self._wanted.set()
                has_begun = True
        except* (OSError, RuntimeError, UnicodeError) as errors:
            # Too many directories, or a name that is not UTF-8: periodic scans are left.
            _logger.warning("! cannot watch the shared files: %s", errors.exceptions[0])
            is_broken = True
        if is_broken:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REWATCH_SECONDS):
                    await self._shares_changed.wait()
            self._shares_changed.set()
            self._wanted.set()
