"""The manifest of a shared directory, made from the rows of its files (shell around SQL).

Up to 256 KiB it is one value under its own SHA-1; a larger one is itself a file with parts and a
FileInfo. It is written only when it is another than before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import sqlalchemy as sa

from bytestag import config
from bytestag.errors import FormatError
from bytestag.hashing import blake3, sha1
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.tables import shared_rows
from bytestag.tables.base import KVPID
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import CTIME_IGNORED, MTIME_UNKNOWN, HashedFile
from bytestag.tables.schema import shared_files, shared_paths, shared_values
from bytestag.tables.shared_rows import Value
from bytestag.tables.walking import Warn, components

PAGE_FILES = 1000

_f = shared_files.c


def save_manifest(
    database: Database, share: int, root: bytes, empty: list[bytes], warn: Warn, now: float
) -> tuple[list[KVPID], list[KVPID]]:
    """Describe a share as it is in the database; return what is no longer there, and what is new.

    ``empty`` are its directories with nothing in them. A shared file has no manifest. Nothing is
    made where no row and no empty directory has come or gone since the last time.
    """
    of_share = shared_paths.c.id == share
    described = blake3(b"\0".join(sorted(empty)))
    with database.read() as connection:
        row = connection.execute(sa.select(shared_paths).where(of_share)).one()
    if row.described == described:
        return [], []
    manifest = b""
    if os.path.isdir(root):
        try:
            directories = [components(path) for path in empty]
            entries = _entries(database, share)
            manifest = DirectoryManifest.build(entries, directories).to_bytes()
        except FormatError as error:
            warn(root, f"the directory cannot be described: {error.message}")
    names = (sha1(manifest), blake3(manifest)) if manifest else (b"", b"")
    if (row.manifest_sha1, row.manifest_blake3) == names:
        marked = sa.update(shared_paths).where(of_share).values(described=described)
        database.write(lambda connection: connection.execute(marked))
        return [], []
    values, info_blake3 = _values(manifest)

    def work(connection: sa.Connection) -> list[KVPID]:
        of_manifest = sa.and_(shared_values.c.share == share, shared_values.c.file == 0)
        gone = shared_rows.delete_values(connection, of_manifest)
        own = [(0, value) for value in values]
        shared_rows.insert_values(connection, share, own, int(now))
        named = sa.update(shared_paths).where(of_share)
        connection.execute(
            named.values(
                manifest_size=len(manifest),
                manifest_sha1=names[0],
                manifest_blake3=names[1],
                info_blake3=info_blake3,
                described=described,
            )
        )
        return gone

    gone = database.write(work, size=len(manifest))
    return gone, [kvpid for value in values for kvpid in value.kvpids()]


def _values(manifest: bytes) -> tuple[list[Value], bytes]:
    """Return the values of a manifest, and the BLAKE3 of its FileInfo if it has one."""
    if not manifest:
        return [], b""
    if len(manifest) <= config.MANIFEST_INLINE_BYTES_MAX:
        return [Value.make(manifest)], b""
    parts = [
        Value.make(manifest[at : at + config.PART_BYTES])
        for at in range(0, len(manifest), config.PART_BYTES)
    ]
    hashed = HashedFile(
        len(manifest),
        MTIME_UNKNOWN,
        CTIME_IGNORED,
        0,
        sha1(manifest),
        blake3(manifest),
        b"".join(part.sha1 + part.blake3 for part in parts),
    )
    info, lists = shared_rows.describe(hashed)
    return [*parts, info, *lists], info.blake3


def _entries(database: Database, share: int) -> Iterator[tuple[tuple[str, ...], FileEntry]]:
    at = b""
    while True:
        query = sa.select(shared_files).where(_f.share == share, _f.path > at, _f.is_dirty == 0)
        with database.read() as connection:
            page = connection.execute(query.order_by(_f.path).limit(PAGE_FILES)).all()
        if not page:
            return
        at = page[-1].path
        for row in page:
            entry = FileEntry(row.sha1, row.size, row.blake3, row.info_sha1, row.info_blake3)
            yield components(row.path), entry
