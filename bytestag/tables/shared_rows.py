"""The rows behind shared files: what a scan writes and what the table reads (shell around SQL).

A file's row comes with its parts and the values that describe it, and goes with them. A row whose
bytes did not match when they were read is dirty: it serves nothing until it is hashed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from bytestag.config import PART_BYTES
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models import fileinfo
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import CTIME_IGNORED, HashedFile
from bytestag.tables.many_rows import chunks, insert_many, marks
from bytestag.tables.schema import (
    shared_blobs,
    shared_files,
    shared_parts,
    shared_paths,
    shared_values,
)
from bytestag.tables.walking import Found

PARTS_PER_JOB = 4096
HASHES_PER_QUERY = 500
WRONG = 2
"""``is_dirty`` of a file in which there were wrong bytes."""

_f, _p, _v = shared_files.c, shared_parts.c, shared_values.c


class Value(NamedTuple):
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


class DescribedFile(NamedTuple):
    """A file of a share: its path below it, its hashes, and its FileInfo and list values."""

    path: bytes
    hashed: HashedFile
    values: tuple[Value, ...]


class KnownFile(NamedTuple):
    """What the row of a file says of when it was hashed."""

    path: bytes
    id: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    is_dirty: int

    def is_still(self, found: Found) -> bool:
        """Return whether a file seems to be what was hashed."""
        return (
            not self.is_dirty
            and self._has_stamp_of(found)
            and self.ctime_ns in (found.ctime_ns, CTIME_IGNORED)
        )

    def is_doubted(self, found: Found) -> bool:
        """Whether it changed, now or once before, and its time did not."""
        return self.ctime_ns != CTIME_IGNORED or (
            self.is_dirty == WRONG and self._has_stamp_of(found)
        )

    def _has_stamp_of(self, found: Found) -> bool:
        stamp = found.size, found.mtime_ns, found.inode
        return (self.size, self.mtime_ns, self.inode) == stamp


def part_kvpid(sha1_: bytes) -> KVPID:
    """Return the name of a part."""
    return KVPID(KeyBytes(sha1_), KeyBytes(sha1_))


def describe(hashed: HashedFile, filename: Sequence[str] = ()) -> tuple[Value, list[Value]]:
    """Return the FileInfo of a file, and its list values."""
    if 0 < hashed.size <= PART_BYTES and not filename:
        value = fileinfo.one_part_bytes(hashed.sha1, hashed.blake3, hashed.size)
        return Value.make(value, KeyBytes(hashed.sha1)), []
    info, lists = fileinfo.build(
        hashed.sha1, hashed.blake3, hashed.size, hashed.parts(), filename=filename
    )
    made = Value.make(info.to_bytes(), info.hash)
    return made, [Value.make(value) for value in lists]


# --- Files ---------------------------------------------------------------------------------------


def known_files(
    connection: sa.Connection, share: int, paths: Sequence[bytes]
) -> dict[bytes, KnownFile]:
    """Return the rows of files by path."""
    statement = (
        "SELECT path, id, size, mtime_ns, ctime_ns, inode, is_dirty FROM shared_files"  # noqa: S608
        f" WHERE share = {marks(connection, 1)} AND path IN {marks(connection, len(paths))}"
    )
    found = connection.exec_driver_sql(statement, (share, *paths))
    return {row[0]: KnownFile(*row) for row in found}


def insert_files(
    connection: sa.Connection,
    share: int,
    files: Sequence[DescribedFile],
    now: int,
    *,
    is_dirty: bool = False,
) -> list[int]:
    """Insert the rows of files; return their ids, in the same order."""
    undescribe(connection)
    columns = (
        _f.share,
        _f.path,
        *(_f.size, _f.mtime_ns, _f.ctime_ns, _f.inode, _f.sha1, _f.blake3),
        *(_f.info_sha1, _f.info_blake3),
        _f.is_dirty,
        _f.timestamp,
    )
    rows = [
        (share, path, *hashed[:6], values[0].sha1, values[0].blake3, int(is_dirty), now)
        for path, hashed, values in files
    ]
    ids = dict(insert_many(connection, columns, rows, " RETURNING path, id"))
    return [ids[file.path] for file in files]


def mark_clean(connection: sa.Connection, ids: Sequence[int]) -> None:
    """Serve files from now on."""
    connection.execute(sa.update(shared_files).where(_f.id.in_(ids)).values(is_dirty=0))


def insert_parts(
    connection: sa.Connection, parts: Iterable[tuple[int, int, bytes, bytes, int]]
) -> None:
    """Insert parts: (file, number, SHA-1, BLAKE3, size)."""
    insert_many(connection, (_p.file, _p.number, _p.sha1, _p.blake3, _p.size), parts)


def insert_values(
    connection: sa.Connection, share: int, values: Sequence[tuple[int, Value]], now: int
) -> None:
    """Insert values with the file (0: the share) that each belongs to."""
    blobs = {value.blake3: value.value for _file, value in values}
    columns = shared_blobs.c.blake3, shared_blobs.c.value
    insert_many(connection, columns, blobs.items(), " ON CONFLICT DO NOTHING")
    rows = (
        (share, file, key, value.sha1, value.blake3, len(value.value), now)
        for file, value in values
        for key in value.keys
    )
    columns_ = (_v.share, _v.file, _v.key, _v.sha1, _v.blake3, _v.size, _v.timestamp)
    insert_many(connection, columns_, rows)


def delete_files(connection: sa.Connection, ids: Sequence[int]) -> list[KVPID]:
    """Delete files with their parts and values; return what they served."""
    if not ids:
        return []
    undescribe(connection)
    gone = _delete_contents(connection, ids)
    connection.execute(sa.delete(shared_files).where(_f.id.in_(ids)))
    return gone


def mark_dirty(
    connection: sa.Connection, file: int, sha1_: bytes, blake3_: bytes, *, is_wrong: bool
) -> list[KVPID]:
    """Stop serving a file until it is hashed again; return what it served.

    Without that part it was hashed again meanwhile, and stays. ``is_wrong``: there are other bytes
    now, so its time should be another too.
    """
    is_part = sa.and_(_p.file == file, _p.sha1 == sha1_, _p.blake3 == blake3_)
    if connection.execute(sa.select(_p.file).where(is_part).limit(1)).first() is None:
        return []
    undescribe(connection)
    gone = _delete_contents(connection, [file])
    connection.execute(
        sa.update(shared_files).where(_f.id == file).values(is_dirty=WRONG if is_wrong else 1)
    )
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
