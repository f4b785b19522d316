"""SharedFilesKVPTable: files shared in place as a table of values (shell).

Each part of a file is a value under its own SHA-1, read from the file where it lies and verified
each time; a FileInfo is a value under the file's SHA-1 and under its own; a directory's manifest
is a value too. Bytes that changed since they were hashed are never served: the file is put aside
until the next scan hashes it again.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bytestag.errors import StorageError, UsageError
from bytestag.keys import KeyBytes
from bytestag.tables import shared_queries, shared_rows
from bytestag.tables.base import KVPID, Asked, KVPRecord, ReadOnlyKVPTable, ReadRow, still_match
from bytestag.tables.database_engine import Database
from bytestag.tables.part_reader import Changed, PartReader
from bytestag.tables.scanning import Progress, Scanner, ScanResult
from bytestag.tables.schema import (
    shared_blobs,
    shared_files,
    shared_parts,
    shared_paths,
    shared_values,
)

FILES_PER_JOB = 256

_f, _p, _v = shared_files.c, shared_parts.c, shared_values.c


@dataclass(frozen=True, slots=True)
class SharedRoot:
    """What a share is, as a link names it."""

    path: Path
    is_directory: bool
    sha1: KeyBytes
    """Of the file, or of the directory's manifest."""
    size: int
    """Of the file, or of the directory's manifest."""
    blake3: bytes
    """Of the file, or of the directory's manifest."""
    info_blake3: bytes
    """Of the FileInfo; empty for a manifest that is one value."""


class SharedFilesKVPTable(ReadOnlyKVPTable):
    """A read-only KVPTable of shared files and directories."""

    def __init__(self, database: Database | str | Path, wall: Callable[[], float]) -> None:
        super().__init__()
        self._is_owner = not isinstance(database, Database)
        self.database = database if isinstance(database, Database) else Database(database)
        self._wall = wall
        self._scan_locks: dict[int, threading.Lock] = {}
        self._leaving: set[int] = set()
        self._parts = PartReader(self.database)

    # --- Shares ----------------------------------------------------------------------------------

    @property
    def shared_directories(self) -> list[Path]:
        """The shared paths, files among them, in the order they were added."""
        return [Path(os.fsdecode(path)) for _share, path in self._shares()]

    def add_path(self, path: str | Path) -> None:
        """Share a file or directory; what it holds is found after a scan."""
        path = Path(path).absolute()
        if not os.path.exists(path):  # Path.exists would raise for some
            raise UsageError(f"there is no {str(path)!r} to share")
        statement = self.database.insert(shared_paths).on_conflict_do_nothing()
        row = {"path": _encode(path), "manifest_size": 0}
        hashes = ("manifest_sha1", "manifest_blake3", "info_blake3", "described")
        row |= dict.fromkeys(hashes, b"")
        self.database.write(lambda connection: connection.execute(statement, [row]))

    def remove_path(self, path: str | Path) -> bool:
        """Share a path no longer, and stop its scan; return whether it was shared."""
        share = self._share(path)
        if share is None:
            return False
        self._leaving.add(share)
        try:
            with self._scan_lock(share):
                self._remove(share)
        finally:
            self._leaving.discard(share)
        return True

    def root(self, path: str | Path) -> SharedRoot:
        """Return what a shared path is. Raises KeyError before its first complete scan."""
        name = _encode(Path(path).absolute())
        with self.database.read() as connection:
            query = sa.select(shared_paths).where(shared_paths.c.path == name)
            share = connection.execute(query).first()
            if share is None:
                raise KeyError(path)
            query = sa.select(shared_files).where(
                _f.share == share.id, _f.path == b"", _f.is_dirty == 0
            )
            file = connection.execute(query).first()
        found = Path(os.fsdecode(name))
        if file is not None:
            key = KeyBytes(file.sha1)
            return SharedRoot(found, False, key, file.size, file.blake3, file.info_blake3)
        if not share.manifest_size:
            raise KeyError(path)
        return SharedRoot(
            found,
            True,
            KeyBytes(share.manifest_sha1),
            share.manifest_size,
            share.manifest_blake3,
            share.info_blake3,
        )

    def scan(
        self,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        path: str | Path | None = None,
    ) -> ScanResult:
        """Bring all shares (or that of ``path``) up to date; each has one scan at a time."""
        result = ScanResult()
        only = None if path is None else _encode(Path(path).absolute())
        for share, root in self._shares():
            if only in (None, root) and result.is_complete:
                self._scan(share, root, result, progress, stop)
        return result

    hash_directories = scan
    """The 2012 name."""

    def share_records(self, path: str | Path) -> Iterator[KVPRecord]:
        """Yield the rows of a share in key order: parts, descriptions and manifest."""
        share = self._share(path)
        if share is None:
            raise KeyError(path)
        return self._records(share)

    # --- Figures ---------------------------------------------------------------------------------

    @property
    def num_files(self) -> int:
        """How many files are shared."""
        return int(self._scalar(sa.select(sa.func.count()).where(_f.is_dirty == 0)))

    @property
    def num_collections(self) -> int:
        """How many directories are shared."""
        is_directory = shared_paths.c.manifest_size > 0
        return int(self._scalar(sa.select(sa.func.count()).where(is_directory)))

    @property
    def total_disk_size(self) -> int:
        """Bytes of all shared files."""
        total = sa.func.coalesce(sa.func.sum(_f.size), 0)
        return int(self._scalar(sa.select(total).where(_f.is_dirty == 0)))

    def __len__(self) -> int:
        parts = sa.select(_p.sha1, _p.blake3).distinct().subquery()
        values = sa.select(_v.key, _v.sha1, _v.blake3).distinct().subquery()
        return sum(
            int(self._scalar(sa.select(sa.func.count()).select_from(rows)))
            for rows in (parts, values)
        )

    # --- Reading ---------------------------------------------------------------------------------

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        with self.database.read() as connection:
            rows = connection.execute(shared_queries.PARTS_OF_KEY, {"key": key}).all()
            rows = [*rows, *connection.execute(shared_queries.VALUES_OF_KEY, {"key": key}).all()]
        return list(dict.fromkeys(shared_queries.to_record(row) for row in rows))

    def records_by_keys(self, keys: Iterable[KeyBytes]) -> dict[KeyBytes, list[KVPRecord]]:
        found: dict[KeyBytes, dict[KVPRecord, None]] = {key: {} for key in keys}
        names = {"keys": list(found)}
        with self.database.read() as connection:
            for query in (shared_queries.PARTS_OF_KEYS, shared_queries.VALUES_OF_KEYS):
                for row in connection.execute(query, names):
                    found[KeyBytes(row.key)][shared_queries.to_record(row)] = None
        return {key: list(records) for key, records in found.items()}

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        for record in self.records_by_key(kvpid.key):
            if record.index == kvpid.index and record.blake3.startswith(selector):
                try:
                    return self.read_row(record)
                except KeyError:
                    continue
        raise KeyError(kvpid)

    def read_row(self, record: KVPRecord) -> bytes:
        changed: list[Changed] = []
        is_part = record.key == record.index
        value = self._parts.read(record, changed) if is_part else None
        self._put_aside(changed)
        if value is None:
            value = self._value(record)
        if value is None:
            raise KeyError(record.kvpid)
        return value

    def read_rows(self, records: Sequence[KVPRecord]) -> list[bytes | None]:
        hashes = {"hashes": list({record.blake3 for record in records})}
        with self.database.read() as connection:
            rows = connection.execute(shared_queries.BLOBS, hashes).all()
        blobs = {row.blake3: row.value for row in rows}
        values: list[bytes | None] = [blobs.get(record.blake3) for record in records]
        parts: list[int] = []
        for number, (record, value) in enumerate(zip(records, values, strict=True)):
            if value is not None and not still_match(record, value):
                values[number] = value = None
            if value is None and record.key == record.index:
                parts.append(number)
        changed: list[Changed] = []
        found = self._parts.read_many([records[number] for number in parts], changed)
        for number, part in zip(parts, found, strict=True):
            values[number] = part
        self._put_aside(changed)
        return values

    def read_remembered(self, asked: Sequence[Asked]) -> list[ReadRow | None]:
        return self._parts.read_remembered(asked)

    def keys(self) -> Iterator[KVPID]:
        return (kvpid for kvpid, _same in itertools.groupby(r.kvpid for r in self._records(None)))

    def close(self) -> None:
        if self._is_owner:
            self.database.close()

    # --- Helpers ---------------------------------------------------------------------------------

    def _scan(
        self,
        share: int,
        root: bytes,
        result: ScanResult,
        progress: Progress | None,
        stop: threading.Event | None,
    ) -> None:
        def is_stopped() -> bool:
            return share in self._leaving or (stop is not None and stop.is_set())

        with self._scan_lock(share):
            if (share, root) in self._shares():  # it may have gone while we waited
                Scanner(
                    self.database,
                    share,
                    root,
                    result,
                    self._changed,
                    progress,
                    is_stopped,
                    self._wall,
                ).run()

    def _remove(self, share: int) -> None:
        query = sa.select(_f.id).where(_f.share == share).limit(FILES_PER_JOB)
        while True:
            with self.database.read() as connection:
                ids = list(connection.execute(query).scalars())
            if not ids:
                break
            self._changed(self.database.write(partial(shared_rows.delete_files, ids=ids)), [])

        def work(connection: sa.Connection) -> list[KVPID]:
            connection.execute(sa.delete(shared_paths).where(shared_paths.c.id == share))
            return shared_rows.delete_values(connection, _v.share == share)

        self._changed(self.database.write(work), [])

    def _scan_lock(self, share: int) -> threading.Lock:
        return self._scan_locks.setdefault(share, threading.Lock())

    def _value(self, record: KVPRecord) -> bytes | None:
        query = sa.select(shared_blobs.c.value).where(shared_blobs.c.blake3 == record.blake3)
        with self.database.read() as connection:
            value: bytes | None = connection.execute(query).scalar()
        return value if value is not None and still_match(record, value) else None

    def _put_aside(self, changed: Iterable[Changed]) -> None:
        """Serve no more of files that changed, until they are scanned."""
        for file, sha1_, blake3_, is_there in changed:
            mark = partial(
                shared_rows.mark_dirty, file=file, sha1_=sha1_, blake3_=blake3_, is_wrong=is_there
            )
            with contextlib.suppress(StorageError):
                self._changed(self.database.write(mark), [])

    def _records(self, share: int | None) -> Iterator[KVPRecord]:
        with self.database.read() as connection:
            is_large = share is not None and shared_queries.is_large(connection, share)
        parts = shared_queries.parts_query(share, is_large=is_large)
        values = shared_queries.values_query(share, is_large=is_large)
        merged = heapq.merge(
            shared_queries.pages(self.database, parts, _p.sha1, _p.sha1, _p.blake3),
            shared_queries.pages(self.database, values, _v.key, _v.sha1, _v.blake3),
            key=shared_queries.order,
        )
        return (next(same) for _name, same in itertools.groupby(merged, key=shared_queries.order))

    def _shares(self) -> list[tuple[int, bytes]]:
        with self.database.read() as connection:
            query = sa.select(shared_paths.c.id, shared_paths.c.path).order_by(shared_paths.c.id)
            return [(share, path) for share, path in connection.execute(query)]

    def _share(self, path: str | Path) -> int | None:
        name = _encode(Path(path).absolute())
        return next((share for share, root in self._shares() if root == name), None)

    def _scalar(self, query: sa.Select[Any]) -> Any:
        with self.database.read() as connection:
            return connection.execute(query).scalar_one()

    def _changed(self, gone: list[KVPID], added: list[KVPID]) -> None:
        self._parts.places.clear()
        for kvpid, is_served in shared_rows.still_served(self.database, gone):
            if not is_served:
                self.value_changed_observer(kvpid, False)
        for kvpid in added:
            self.value_changed_observer(kvpid, True)


def _encode(path: Path) -> bytes:
    return os.fsencode(path)
