"""Scanner: brings the rows of one share up to what lies on disk (shell).

A file whose size, time and inode are those of its row is only looked at; others are hashed by a
small pool of threads. What is hashed is committed in batches, so a crash or a stop loses little
and keeps the rest. Files are few rows at a time in memory, whatever their number.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from bytestag.config import MIB
from bytestag.models.fileinfo import FILE_BYTES_MAX
from bytestag.one_pass import processors
from bytestag.tables import shared_rows
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import CTIME_IGNORED, FileChanged, HashedFile, Stopped, hash_file
from bytestag.tables.many_rows import chunks
from bytestag.tables.schema import shared_files
from bytestag.tables.shared_manifest import save_manifest
from bytestag.tables.shared_saving import Changed, Saver
from bytestag.tables.walking import Found, walk

LOOK_UP_FILES = 500
FILES_PER_HASHING = 64
BYTES_PER_HASHING = 4 * MIB
FILES_PER_JOB = 256
FILES_PER_SWEEP = 20_000
"""Ids read at one time: each such query goes through the rows of the share."""
THREADS_MAX = 4
WAITING_PER_THREAD = 4
WARNINGS_MAX = 1000

_f = shared_files.c
_Hashed = tuple[bytes, HashedFile | str]
"""A path, and what is in the file or why that cannot be said."""

Progress = Callable[[str, int, int], object]
"""Called with the path and the bytes hashed and found to be hashed so far, in this scan."""


@dataclass(slots=True)
class ScanResult:
    """What a scan found and did."""

    files: int = 0
    hashed: int = 0
    removed: int = 0
    bytes_hashed: int = 0
    is_complete: bool = True
    """False after a stop: nothing was taken out, and manifests are as before."""
    warnings: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of what is not shared, the first thousand."""
    warning_count: int = 0


class Scanner:
    """One scan of one share."""

    def __init__(
        self,
        database: Database,
        share: int,
        root: bytes,
        result: ScanResult,
        changed: Changed,
        progress: Progress | None,
        is_stopped: Callable[[], bool],
        wall: Callable[[], float],
    ) -> None:
        self._database = database
        self._share = share
        self._root = root
        self._result = result
        self._changed = changed
        self._progress = progress
        self._is_stopped = is_stopped
        self._is_over = False
        self._wall = wall
        self._lock = threading.Lock()
        self._bytes_found = 0
        self._seen = _IdSet()
        self._empty: list[bytes] = []
        self._doubted: set[bytes] = set()
        """Files whose time of change was found wrong: from now on that of the inode counts too."""
        self._saver = Saver(database, share, root, changed, self._seen.add, self._warn, wall)

    def run(self) -> None:
        """Scan; the result is filled and the rows are committed when this returns."""
        last_id = self._last_id()
        threads = min(THREADS_MAX, processors())
        try:
            with ThreadPoolExecutor(threads) as pool:
                self._hash_files(pool, threads * WAITING_PER_THREAD)
        except Stopped:
            self._result.is_complete = False
        self._saver.finish()
        if self._result.is_complete:
            self._sweep(last_id)
            self._changed(
                *save_manifest(
                    self._database, self._share, self._root, self._empty, self._warn, self._wall()
                )
            )

    # --- Hashing ---------------------------------------------------------------------------------

    def _hash_files(self, pool: ThreadPoolExecutor, waiting_max: int) -> None:
        waiting: deque[Future[list[_Hashed]]] = deque()
        try:
            for batch in _batches(self._new_or_changed()):
                waiting.append(pool.submit(self._hash, batch))
                if len(waiting) >= waiting_max:
                    self._collect(waiting.popleft().result())
            while waiting:
                self._collect(waiting.popleft().result())
        finally:
            self._is_over = True
            for future in waiting:
                future.cancel()

    def _new_or_changed(self) -> Iterator[Found]:
        found_files = walk(self._root, self._warn, self._empty)
        for batch in chunks(found_files, LOOK_UP_FILES):
            with self._database.read() as connection:
                paths = [found.path for found in batch]
                known = shared_rows.known_files(connection, self._share, paths)
            for found in batch:
                self._check_stop()
                row = known.get(found.path)
                if row is not None and row.is_still(found):
                    self._seen.add(row.id)
                    self._result.files += 1
                elif found.size > FILE_BYTES_MAX:
                    self._warn(self._full(found.path), "too large to be described")
                else:
                    self._bytes_found += found.size
                    if row is not None and row.is_doubted(found):
                        self._doubted.add(found.path)
                    yield found

    def _hash(self, batch: list[Found]) -> list[_Hashed]:
        return [(found.path, self._hash_file(self._full(found.path))) for found in batch]

    def _hash_file(self, path: bytes) -> HashedFile | str:
        """Return what is in a file, or why that cannot be said."""

        def tick(count: int) -> None:
            self._check_stop()
            with self._lock:
                self._result.bytes_hashed += count
                if self._progress is not None:
                    done = self._result.bytes_hashed
                    self._progress(os.fsdecode(path), done, max(done, self._bytes_found))

        try:
            return hash_file(path, lambda: int(self._wall() * 1e9), tick)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except FileChanged as error:
            return error.message

    def _collect(self, files: list[_Hashed]) -> None:
        for path, hashed in files:
            if isinstance(hashed, str):
                self._warn(self._full(path), hashed)
            else:
                self._result.files += 1
                self._result.hashed += 1
                if path not in self._doubted:
                    hashed = hashed._replace(ctime_ns=CTIME_IGNORED)
                self._saver.add(path, hashed)

    # --- Helpers ---------------------------------------------------------------------------------

    def _sweep(self, last_id: int) -> None:
        """Take out the files that were not met: vanished, unreadable, or changing all the time."""
        at = 0
        while True:
            query = sa.select(_f.id).where(_f.share == self._share, _f.id > at, _f.id <= last_id)
            with self._database.read() as connection:
                ids = connection.execute(query.order_by(_f.id).limit(FILES_PER_SWEEP)).scalars()
                met = list(ids)
            if not met:
                return
            at = met[-1]
            lost = (file for file in met if file not in self._seen)
            for doomed in chunks(lost, FILES_PER_JOB):
                gone = self._database.write(partial(shared_rows.delete_files, ids=doomed))
                self._result.removed += len(doomed)
                self._changed(gone, [])

    def _full(self, path: bytes) -> bytes:
        return os.path.join(self._root, path) if path else self._root

    def _last_id(self) -> int:
        with self._database.read() as connection:
            return int(connection.execute(sa.select(sa.func.max(_f.id))).scalar() or 0)

    def _check_stop(self) -> None:
        if self._is_over or self._is_stopped():
            raise Stopped

    def _warn(self, path: bytes, reason: str) -> None:
        self._result.warning_count += 1
        if len(self._result.warnings) < WARNINGS_MAX:
            text = path.decode("utf-8", "backslashreplace")
            self._result.warnings.append((text, reason))


def _batches(files: Iterable[Found]) -> Iterator[list[Found]]:
    """Put small files together, for what a thread costs is more than to hash one."""
    batch: list[Found] = []
    size = 0
    for found in files:
        if batch and size + found.size > BYTES_PER_HASHING:
            yield batch
            batch, size = [], 0
        batch.append(found)
        size += found.size
        if len(batch) == FILES_PER_HASHING:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class _IdSet:
    """A set of row ids at one bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, row_id: int) -> None:
        at = row_id >> 3
        if at >= len(self._bits):
            self._bits.extend(bytes(at + 1024 - len(self._bits)))
        self._bits[at] |= 1 << (row_id & 7)

    def __contains__(self, row_id: int) -> bool:
        at = row_id >> 3
        return at < len(self._bits) and bool(self._bits[at] & 1 << (row_id & 7))
