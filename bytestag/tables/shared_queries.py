"""Queries about the rows of shared files, and how they become records (pure but for ``pages``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, NEVER_SECONDS, KVPRecord, Standing
from bytestag.tables.database_engine import Database
from bytestag.tables.schema import (
    shared_blobs,
    shared_files,
    shared_parts,
    shared_paths,
    shared_values,
)

PAGE_ROWS = 5000  # 3 MB; for each page the rows of a share are sorted
SORTED_PAGES_MAX = 4

_f, _p, _v = shared_files.c, shared_parts.c, shared_values.c


def pages(
    database: Database, query: sa.Select[Any], *columns: sa.ColumnElement[bytes]
) -> Iterator[KVPRecord]:
    """Yield the records of a query in the order of key, SHA-1 and BLAKE3, a page at a time.

    ``columns`` are those three; between pages no connection is held.
    """
    key, index, hash_ = columns
    query = query.order_by(*dict.fromkeys(columns)).limit(PAGE_ROWS)
    page_query = query
    while True:
        with database.read() as connection:
            page = connection.execute(page_query).all()
        if not page:
            return
        yield from map(to_record, page)
        last = page[-1]
        after = sa.or_(
            key > last.key,
            sa.and_(key == last.key, index > last.sha1),
            sa.and_(key == last.key, index == last.sha1, hash_ > last.blake3),
        )
        page_query = query.where(key >= last.key, after)


def is_large(connection: sa.Connection, share: int) -> bool:
    """Return whether the rows of a share should be met in the order of all rows.

    Else all of them are sorted for each page, which is faster for a few pages only.
    """
    rows_max = SORTED_PAGES_MAX * PAGE_ROWS
    parts = sa.select(_p.number).join(shared_files, _f.id == _p.file).where(_f.share == share)
    values = sa.select(_v.id).where(_v.share == share)
    return any(
        connection.execute(rows.offset(rows_max).limit(1)).first() for rows in (parts, values)
    )


def _of_share(
    query: sa.Select[Any], column: sa.ColumnElement[int], share: int | None, is_large: bool
) -> sa.Select[Any]:
    if share is None:
        return query
    return query.where((column + 0 if is_large else column) == share)  # + 0: not by its index


def parts_query(share: int | None, *, is_large: bool = False) -> sa.Select[Any]:
    query = (
        sa.select(
            _p.sha1.label("key"),
            _p.sha1,
            _p.blake3,
            sa.func.min(_p.size).label("size"),
            sa.func.min(_f.timestamp).label("timestamp"),
        )
        .join(shared_files, _f.id == _p.file)
        .where(_f.is_dirty == 0)
        .group_by(_p.sha1, _p.blake3)
    )
    return _of_share(query, _f.share, share, is_large)


def values_query(share: int | None, *, is_large: bool = False) -> sa.Select[Any]:
    query = sa.select(
        _v.key,
        _v.sha1,
        _v.blake3,
        sa.func.min(_v.size).label("size"),
        sa.func.min(_v.timestamp).label("timestamp"),
    ).group_by(_v.key, _v.sha1, _v.blake3)
    return _of_share(query, _v.share, share, is_large)


PARTS_OF_KEY = parts_query(None).where(_p.sha1 == sa.bindparam("key")).order_by("timestamp")
VALUES_OF_KEY = values_query(None).where(_v.key == sa.bindparam("key")).order_by("timestamp")
_keys: sa.BindParameter[bytes] = sa.bindparam("keys", expanding=True)
PARTS_OF_KEYS = parts_query(None).where(_p.sha1.in_(_keys)).order_by("timestamp")
VALUES_OF_KEYS = values_query(None).where(_v.key.in_(_keys)).order_by("timestamp")
BLOBS = sa.select(shared_blobs.c.blake3, shared_blobs.c.value).where(
    shared_blobs.c.blake3.in_(sa.bindparam("hashes", expanding=True))
)
PLACE_OF_PART = (
    sa.select(_f.id, _f.path, _p.number, shared_paths.c.path.label("root"))
    .select_from(shared_parts)
    .join(shared_files, _f.id == _p.file)
    .join(shared_paths, shared_paths.c.id == _f.share)
    .where(_p.sha1 == sa.bindparam("key"), _p.blake3 == sa.bindparam("blake3"), _f.is_dirty == 0)
    .where(_p.file > sa.bindparam("after"))
    .order_by(_p.file)
    .limit(1)
)
PLACES_OF_PARTS = (
    sa.select(_p.sha1, _p.blake3, _f.id, _f.path, _p.number, shared_paths.c.path.label("root"))
    .select_from(shared_parts)
    .join(shared_files, _f.id == _p.file)
    .join(shared_paths, shared_paths.c.id == _f.share)
    .where(_p.sha1.in_(_keys), _f.is_dirty == 0)
    .order_by(_p.sha1, _p.blake3, _p.file)
    .limit(sa.bindparam("limit"))
)
PARTS_AFTER = (
    sa.select(_p.sha1.label("key"), _p.sha1, _p.blake3, _p.size, _f.timestamp, _p.number)
    .join(shared_files, _f.id == _p.file)
    .where(_p.file == sa.bindparam("file"), _p.number > sa.bindparam("number"), _f.is_dirty == 0)
    .order_by(_p.number)
    .limit(sa.bindparam("limit"))
)


def to_record(row: Any) -> KVPRecord:
    """Return the record of a row of ``parts_query`` or ``values_query``."""
    name, sha1, blake3, size, timestamp = row
    index = KeyBytes(sha1)
    key = index if name == sha1 else KeyBytes(name)
    return KVPRecord(
        KVPID(key, index), blake3, size, timestamp, NEVER_SECONDS, 0, Standing.ORIGINAL
    )


def order(record: KVPRecord) -> tuple[KVPID, bytes]:
    return record.kvpid, record.blake3
