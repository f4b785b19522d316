"""Scanner: brings the rows of one share up to what lies on disk (shell).

A file whose size, time and inode are those of its row is only looked at; others are hashed by a
small pool of threads. What is hashed is committed in batches, so a crash or a stop loses little
and keeps the rest. Files are few rows at a time in memory, whatever their number.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import sqlalchemy as sa

from bytestag.errors import FormatError
from bytestag.models.fileinfo import FILE_BYTES_MAX
from bytestag.one_pass import processors
from bytestag.tables import file_hashing, shared_rows
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import FileChanged, HashedFile, Stopped, hash_file
from bytestag.tables.schema import shared_files
from bytestag.tables.shared_manifest import save_manifest
from bytestag.tables.shared_rows import PARTS_PER_JOB, Value, part_kvpid
from bytestag.tables.walking import Found, components, walk

LOOK_UP_FILES = 500
LARGE_ENTRIES_BYTES = PARTS_PER_JOB * file_hashing.ENTRY_BYTES
FILES_PER_JOB = 256
FILES_PER_SWEEP = 20_000
"""Ids read at one time: each such query goes through the rows of the share."""
THREADS_MAX = 4
WAITING_PER_THREAD = 8
WARNINGS_MAX = 1000

_f = shared_files.c
_Described = tuple[bytes, HashedFile, Value, list[Value]]

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
        changed: Callable[[list[KVPID], list[KVPID]], None],
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
        self._unsaved: list[tuple[bytes, HashedFile]] = []
        self._unsaved_parts = 0
        self._empty: list[bytes] = []

    def run(self) -> None:
        """Scan; the result is filled and the rows are committed when this returns."""
        last_id = self._last_id()
        threads = min(THREADS_MAX, processors())
        try:
            with ThreadPoolExecutor(threads) as pool:
                self._hash_files(pool, threads * WAITING_PER_THREAD)
        except Stopped:
            self._result.is_complete = False
        self._save()
        if self._result.is_complete:
            self._sweep(last_id)
            self._changed(
                *save_manifest(
                    self._database, self._share, self._root, self._empty, self._warn, self._wall()
                )
            )

    # --- Hashing ---------------------------------------------------------------------------------

    def _hash_files(self, pool: ThreadPoolExecutor, waiting_max: int) -> None:
        waiting: deque[tuple[bytes, Future[HashedFile]]] = deque()
        try:
            for found in self._new_or_changed():
                self._bytes_found += found.size
                future = pool.submit(self._hash, found.path)
                waiting.append((found.path, future))
                if len(waiting) >= waiting_max:
                    self._collect(*waiting.popleft())
            while waiting:
                self._collect(*waiting.popleft())
        finally:
            self._is_over = True
            for _path, future in waiting:
                future.cancel()

    def _new_or_changed(self) -> Iterator[Found]:
        found_files = walk(self._root, self._warn, self._empty)
        for batch in shared_rows.chunks(found_files, LOOK_UP_FILES):
            with self._database.read() as connection:
                paths = [found.path for found in batch]
                known = shared_rows.known_files(connection, self._share, paths)
            for found in batch:
                self._check_stop()
                row = known.get(found.path)
                if (
                    row is not None
                    and not row.is_dirty
                    and (row.size, row.mtime_ns, row.inode)
                    == (found.size, found.mtime_ns, found.inode)
                ):
                    self._seen.add(row.id)
                    self._result.files += 1
                elif found.size > FILE_BYTES_MAX:
                    self._warn(self._full(found.path), "too large to be described")
                else:
                    yield found

    def _hash(self, path: bytes) -> HashedFile:
        full = self._full(path)

        def tick(count: int) -> None:
            self._check_stop()
            with self._lock:
                self._result.bytes_hashed += count
                if self._progress is not None:
                    done = self._result.bytes_hashed
                    self._progress(os.fsdecode(full), done, max(done, self._bytes_found))

        return hash_file(full, lambda: int(self._wall() * 1e9), tick)

    def _collect(self, path: bytes, future: Future[HashedFile]) -> None:
        try:
            hashed = future.result()
        except OSError as error:
            self._warn(self._full(path), f"cannot be read: {error.strerror}")
            return
        except FileChanged as error:
            self._warn(self._full(path), error.message)
            return
        self._result.files += 1
        self._result.hashed += 1
        self._unsaved.append((path, hashed))
        self._unsaved_parts += len(hashed.entries) // file_hashing.ENTRY_BYTES
        if len(self._unsaved) >= FILES_PER_JOB or self._unsaved_parts >= PARTS_PER_JOB:
            self._save()

    # --- Saving ----------------------------------------------------------------------------------

    def _save(self) -> None:
        unsaved, self._unsaved, self._unsaved_parts = self._unsaved, [], 0
        large = [item for item in unsaved if len(item[1].entries) > LARGE_ENTRIES_BYTES]
        small = [item for item in unsaved if len(item[1].entries) <= LARGE_ENTRIES_BYTES]
        for items in ([small] if small else []) + [[item] for item in large]:
            described = [(path, hashed, *self._describe(path, hashed)) for path, hashed in items]
            self._save_files(described, is_large=items is not small)

    def _save_files(self, files: list[_Described], *, is_large: bool) -> None:
        """Write files in one transaction; a large one in many, and it serves nothing before."""
        now = int(self._wall())

        def begin(connection: sa.Connection) -> tuple[list[KVPID], list[int]]:
            paths = [path for path, *_rest in files]
            known = shared_rows.known_files(connection, self._share, paths)
            gone = shared_rows.delete_files(connection, [row.id for row in known.values()])
            ids = [
                shared_rows.insert_file(
                    connection, self._share, path, hashed, info, now, is_dirty=True
                )
                for path, hashed, info, _lists in files
            ]
            if not is_large:
                shared_rows.insert_parts(connection, _parts(ids, files))
                finish(connection, ids)
            return gone, ids

        def finish(connection: sa.Connection, ids: list[int]) -> None:
            values = [
                (file, value)
                for file, (_path, _hashed, info, lists) in zip(ids, files, strict=True)
                for value in (info, *lists)
            ]
            shared_rows.insert_values(self._database, connection, self._share, values, now)
            connection.execute(sa.update(shared_files).where(_f.id.in_(ids)).values(is_dirty=0))

        gone, ids = self._database.write(begin, values=len(files))
        if is_large:
            for chunk in shared_rows.chunks(_parts(ids, files), PARTS_PER_JOB):
                self._database.write(partial(shared_rows.insert_parts, parts=chunk))
            self._database.write(partial(finish, ids=ids))
        for file in ids:
            self._seen.add(file)
        added = [part_kvpid(part[2]) for part in _parts(ids, files)]
        for _path, _hashed, info, lists in files:
            added += [kvpid for value in (info, *lists) for kvpid in value.kvpids()]
        self._changed(gone, added)

    def _describe(self, path: bytes, hashed: HashedFile) -> tuple[Value, list[Value]]:
        """Describe a file; its name is told only where no manifest tells it."""
        filename: tuple[str, ...] = ()
        if not path:
            try:
                filename = components(os.path.basename(self._root))
            except FormatError as error:
                self._warn(self._root, error.message)
        return shared_rows.describe(hashed, filename)

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
            for doomed in shared_rows.chunks(lost, FILES_PER_JOB):
                gone = self._database.write(partial(shared_rows.delete_files, ids=doomed))
                self._result.removed += len(doomed)
                self._changed(gone, [])

    # --- Helpers ---------------------------------------------------------------------------------

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


def _parts(ids: list[int], files: list[_Described]) -> Iterator[tuple[int, int, bytes, bytes, int]]:
    """Yield the parts of files, of equal neighbours (a hole, say) the first."""
    for file, (_path, hashed, _info, _lists) in zip(ids, files, strict=True):
        last = None
        for number, part in enumerate(hashed.parts()):
            if part != last:
                yield file, number, *part
            last = part


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
