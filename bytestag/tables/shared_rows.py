"""The rows behind shared files: what a scan writes and what the table reads (shell around SQL).

A file's row comes with its parts and the values that describe it, and goes with them. A row whose
bytes did not match when they were read is dirty: it serves nothing until it is hashed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa

from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models import fileinfo
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import HashedFile
from bytestag.tables.schema import (
    shared_blobs,
    shared_files,
    shared_parts,
    shared_paths,
    shared_values,
)

T = TypeVar("T")
PARTS_PER_JOB = 4096
HASHES_PER_QUERY = 500

_f, _p, _v = shared_files.c, shared_parts.c, shared_values.c


@dataclass(frozen=True, slots=True)
class Value:
    """A small value made here: its bytes and the keys that it is found by."""

    value: bytes
    sha1: KeyBytes
    blake3: bytes
    keys: tuple[KeyBytes, ...]

    @classmethod
    def make(cls, value: bytes, *keys: KeyBytes) -> Value:
        """Return a value found by its own SHA-1 and by ``keys``."""
        own = KeyBytes(sha1(value))
        return cls(value, own, blake3(value), tuple(dict.fromkeys((*keys, own))))

    def kvpids(self) -> list[KVPID]:
        """Return the names that it answers to."""
        return [KVPID(key, self.sha1) for key in self.keys]


def part_kvpid(sha1_: bytes) -> KVPID:
    """Return the name of a part."""
    return KVPID(KeyBytes(sha1_), KeyBytes(sha1_))


def describe(hashed: HashedFile, filename: Sequence[str] = ()) -> tuple[Value, list[Value]]:
    """Return the FileInfo of a file, and its list values."""
    info, lists = fileinfo.build(
        hashed.sha1, hashed.blake3, hashed.size, hashed.parts(), filename=filename
    )
    made = Value.make(info.to_bytes(), info.hash)
    return made, [Value.make(value) for value in lists]


# --- Files ---------------------------------------------------------------------------------------


def known_files(connection: sa.Connection, share: int, paths: Sequence[bytes]) -> dict[bytes, Any]:
    """Return the rows of files by path."""
    query = sa.select(_f.path, _f.id, _f.size, _f.mtime_ns, _f.inode, _f.is_dirty)
    query = query.where(_f.share == share, _f.path.in_(paths))
    return {row.path: row for row in connection.execute(query)}


def insert_file(
    connection: sa.Connection,
    share: int,
    path: bytes,
    hashed: HashedFile,
    info: Value,
    now: int,
    *,
    is_dirty: bool = False,
) -> int:
    """Insert a file's row; return its id."""
    undescribe(connection)
    row = sa.insert(shared_files).values(
        share=share,
        path=path,
        size=hashed.size,
        mtime_ns=hashed.mtime_ns,
        inode=hashed.inode,
        sha1=hashed.sha1,
        blake3=hashed.blake3,
        info_sha1=info.sha1,
        info_blake3=info.blake3,
        is_dirty=int(is_dirty),
        timestamp=now,
    )
    return int(connection.execute(row.returning(_f.id)).scalar_one())


def insert_parts(
    connection: sa.Connection, parts: Iterable[tuple[int, int, bytes, bytes, int]]
) -> None:
    """Insert parts: (file, number, SHA-1, BLAKE3, size)."""
    names = ("file", "number", "sha1", "blake3", "size")
    rows = [dict(zip(names, part, strict=True)) for part in parts]
    if rows:
        connection.execute(sa.insert(shared_parts), rows)


def insert_values(
    database: Database,
    connection: sa.Connection,
    share: int,
    values: Iterable[tuple[int, Value]],
    now: int,
) -> None:
    """Insert values with the file (0: the share) that each belongs to."""
    rows, bytes_ = [], {}
    for file, value in values:
        bytes_[value.blake3] = value.value
        for key in value.keys:
            rows.append(
                {
                    "share": share,
                    "file": file,
                    "key": key,
                    "sha1": value.sha1,
                    "blake3": value.blake3,
                    "size": len(value.value),
                    "timestamp": now,
                }
            )
    if rows:
        connection.execute(
            database.insert(shared_blobs).on_conflict_do_nothing(),
            [{"blake3": name, "value": value} for name, value in bytes_.items()],
        )
        connection.execute(sa.insert(shared_values), rows)


def delete_files(connection: sa.Connection, ids: Sequence[int]) -> list[KVPID]:
    """Delete files with their parts and values; return what they served."""
    if not ids:
        return []
    undescribe(connection)
    gone = _delete_contents(connection, ids)
    connection.execute(sa.delete(shared_files).where(_f.id.in_(ids)))
    return gone


def mark_dirty(connection: sa.Connection, file: int, sha1_: bytes, blake3_: bytes) -> list[KVPID]:
    """Stop serving a file until it is hashed again; return what it served.

    Without that part it was hashed again meanwhile, and stays.
    """
    is_part = sa.and_(_p.file == file, _p.sha1 == sha1_, _p.blake3 == blake3_)
    if connection.execute(sa.select(_p.file).where(is_part).limit(1)).first() is None:
        return []
    undescribe(connection)
    gone = _delete_contents(connection, [file])
    connection.execute(sa.update(shared_files).where(_f.id == file).values(is_dirty=1))
    return gone


def delete_values(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[KVPID]:
    """Delete values, and bytes that no value needs any more; return which."""
    rows = connection.execute(sa.select(_v.key, _v.sha1, _v.blake3).where(condition)).all()
    connection.execute(sa.delete(shared_values).where(condition))
    for hashes in chunks({row.blake3 for row in rows}, HASHES_PER_QUERY):
        is_used = sa.select(_v.id).where(_v.blake3 == shared_blobs.c.blake3).exists()
        is_unused = sa.and_(shared_blobs.c.blake3.in_(hashes), sa.not_(is_used))
        connection.execute(sa.delete(shared_blobs).where(is_unused))
    return [KVPID(KeyBytes(row.key), KeyBytes(row.sha1)) for row in rows]


def undescribe(connection: sa.Connection) -> None:
    """Files change: manifests may no longer be those of their rows."""
    is_described = shared_paths.c.described != b""
    connection.execute(sa.update(shared_paths).where(is_described).values(described=b""))


def _delete_contents(connection: sa.Connection, ids: Sequence[int]) -> list[KVPID]:
    of_files = _p.file.in_(ids)
    gone = [
        part_kvpid(sha1_)
        for sha1_ in connection.execute(sa.select(_p.sha1).where(of_files)).scalars()
    ]
    connection.execute(sa.delete(shared_parts).where(of_files))
    owners = sa.select(_f.share).where(_f.id.in_(ids))
    return gone + delete_values(connection, sa.and_(_v.share.in_(owners), _v.file.in_(ids)))


# --- Helpers -------------------------------------------------------------------------------------


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` items."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def still_served(database: Database, gone: Iterable[KVPID]) -> Iterator[tuple[KVPID, bool]]:
    """Yield each of ``gone`` once, and whether another file or share serves it."""
    for chunk in chunks(dict.fromkeys(gone), HASHES_PER_QUERY):
        keys = [kvpid.key for kvpid in chunk]
        parts = sa.select(_p.sha1).join(shared_files, _f.id == _p.file)
        values = sa.select(_v.key, _v.sha1).where(_v.key.in_(keys))
        with database.read() as connection:
            served = {
                part_kvpid(found)
                for found in connection.execute(
                    parts.where(_p.sha1.in_(keys), _f.is_dirty == 0)
                ).scalars()
            }
            served |= {KVPID(row.key, row.sha1) for row in connection.execute(values)}
        yield from ((kvpid, kvpid in served) for kvpid in chunk)
