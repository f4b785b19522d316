"""Saver: writes what a scan hashed, a batch at a time, while the next batch is hashed (shell).

A batch is one transaction of few statements, so a crash loses little and keeps the rest. At most
one batch is being written while another is filled, whatever the number of files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial

import sqlalchemy as sa

from bytestag.errors import FormatError
from bytestag.tables import shared_rows
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import ENTRY_BYTES, HashedFile
from bytestag.tables.many_rows import chunks
from bytestag.tables.shared_rows import PARTS_PER_JOB, DescribedFile, part_kvpid
from bytestag.tables.walking import Warn, components

FILES_PER_BATCH = 1024
FILES_PER_BATCH_MAX = 4096  # 15 MiB; 5 pages each of a very large database's log: 160 MiB
GROWTH = 8
"""A batch is that part of what was written before: each writes nearly all pages of the indexes."""
LARGE_ENTRIES_BYTES = PARTS_PER_JOB * ENTRY_BYTES

Changed = Callable[[list[KVPID], list[KVPID]], None]
_Saved = tuple[list[KVPID], list[int]]


class Saver:
    """Writes the rows of files of one share."""

    def __init__(
        self,
        database: Database,
        share: int,
        root: bytes,
        changed: Changed,
        saved: Callable[[int], None],
        warn: Warn,
        wall: Callable[[], float],
    ) -> None:
        self._database = database
        self._share = share
        self._root = root
        self._changed = changed
        self._saved = saved
        self._warn = warn
        self._wall = wall
        self._files: list[DescribedFile] = []
        self._parts = 0
        self._written = 0
        self._writing: tuple[Future[_Saved], list[DescribedFile]] | None = None

    def add(self, path: bytes, hashed: HashedFile) -> None:
        """Take a file; it is written when there are enough, or at the end."""
        file = self._describe(path, hashed)
        if len(hashed.entries) > LARGE_ENTRIES_BYTES:
            self.finish()
            self._write_large(file)
            return
        self._files.append(file)
        self._parts += len(hashed.entries) // ENTRY_BYTES
        enough = min(FILES_PER_BATCH_MAX, max(FILES_PER_BATCH, self._written // GROWTH))
        if len(self._files) >= enough or self._parts >= PARTS_PER_JOB:
            self._flush()

    def finish(self) -> None:
        """Write what is left; return when everything is committed."""
        self._flush()
        self._wait()

    # --- Inside ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        files, self._files, self._parts = self._files, [], 0
        if not files:
            return
        self._wait()
        work = partial(self._save, files=files, now=int(self._wall()))
        self._writing = self._database.submit(work, values=len(files)), files
        self._written += len(files)

    def _wait(self) -> None:
        if self._writing is not None:
            (future, files), self._writing = self._writing, None
            self._tell(files, *future.result())

    def _save(self, connection: sa.Connection, files: list[DescribedFile], now: int) -> _Saved:
        gone, ids = self._replace(connection, files, now, is_dirty=False)
        shared_rows.insert_parts(connection, _parts(ids, files))
        self._insert_values(connection, files, ids, now)
        return gone, ids

    def _write_large(self, file: DescribedFile) -> None:
        """Write one file in many transactions; it serves nothing before the last."""
        files, now = [file], int(self._wall())
        begin = partial(self._replace, files=files, now=now, is_dirty=True)
        gone, ids = self._database.write(begin)
        for chunk in chunks(_parts(ids, files), PARTS_PER_JOB):
            self._database.write(partial(shared_rows.insert_parts, parts=chunk))

        def end(connection: sa.Connection) -> None:
            self._insert_values(connection, files, ids, now)
            shared_rows.mark_clean(connection, ids)

        self._database.write(end)
        self._tell(files, gone, ids)

    def _replace(
        self, connection: sa.Connection, files: list[DescribedFile], now: int, *, is_dirty: bool
    ) -> _Saved:
        """Insert rows of files where there may be older ones; return what these served, and ids."""
        paths = [file.path for file in files]
        known = shared_rows.known_files(connection, self._share, paths)
        gone = shared_rows.delete_files(connection, [row.id for row in known.values()])
        ids = shared_rows.insert_files(connection, self._share, files, now, is_dirty=is_dirty)
        return gone, ids

    def _insert_values(
        self, connection: sa.Connection, files: list[DescribedFile], ids: list[int], now: int
    ) -> None:
        files_ids = zip(ids, files, strict=True)
        owned = [(id_, value) for id_, file in files_ids for value in file.values]
        shared_rows.insert_values(connection, self._share, owned, now)

    def _tell(self, files: list[DescribedFile], gone: list[KVPID], ids: list[int]) -> None:
        for id_ in ids:
            self._saved(id_)
        added = [part_kvpid(part[2]) for part in _parts(ids, files)]
        for file in files:
            for value in file.values:
                added += value.kvpids()
        self._changed(gone, added)

    def _describe(self, path: bytes, hashed: HashedFile) -> DescribedFile:
        """Describe a file; its name is told only where no manifest tells it."""
        filename: tuple[str, ...] = ()
        if not path:
            try:
                filename = components(os.path.basename(self._root))
            except FormatError as error:
                self._warn(self._root, error.message)
        info, lists = shared_rows.describe(hashed, filename)
        return DescribedFile(path, hashed, (info, *lists))


def _parts(
    ids: list[int], files: list[DescribedFile]
) -> Iterator[tuple[int, int, bytes, bytes, int]]:
    """Yield the parts of files, of equal neighbours (a hole, say) the first."""
    for id_, file in zip(ids, files, strict=True):
        last = None
        for number, part in enumerate(file.hashed.parts()):
            if part != last:
                yield id_, number, *part
            last = part
