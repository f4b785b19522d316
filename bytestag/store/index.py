"""The store's index: a memo in SQLite, which may be lost (shell).

It remembers stamps and hashes, so that nothing is read twice, and holds what only the user knows:
which of his own files are offered by link, and what is pinned. The standard library's ``sqlite3``
is used as it is, because commands must start in 150 ms and SQLAlchemy alone takes longer to import.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from bytestag.store.index_file import IndexFile
from bytestag.store.values import Stamp

MEMO, LINK = range(2)
"""Why a place is remembered. Links are offered as content; of memos only the hash is of use."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    sha1 BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, blake3 BLOB NOT NULL, md5 BLOB NOT NULL, name TEXT NOT NULL,
    used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (
    path BLOB PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL, sha1 BLOB NOT NULL, blake3 BLOB NOT NULL, md5 BLOB NOT NULL,
    kind INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pins (sha1 BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_md5 ON objects (md5) WHERE md5 <> x'';
CREATE INDEX IF NOT EXISTS places_md5 ON places (md5) WHERE md5 <> x'';
CREATE INDEX IF NOT EXISTS links ON places (sha1) WHERE kind = 1;
"""
_OBJECT = "sha1, size, mtime_ns, inode, blake3, md5, name, used"
_PLACE = "path, size, mtime_ns, inode, sha1, blake3, md5, kind"
_PUT_OBJECT = f"""INSERT INTO objects ({_OBJECT}) VALUES (?,?,?,?,?,?,?,?)
    ON CONFLICT (sha1) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns,
    inode = excluded.inode, blake3 = excluded.blake3, used = max(used, excluded.used),
    md5 = CASE excluded.md5 WHEN x'' THEN md5 ELSE excluded.md5 END,
    name = CASE excluded.name WHEN '' THEN name ELSE excluded.name END"""  # noqa: S608
_PUT_MISSING = f"INSERT OR IGNORE INTO objects ({_OBJECT}) VALUES (?,?,?,?,?,?,?,?)"  # noqa: S608
_PUT_PLACE = f"""INSERT INTO places ({_PLACE}) VALUES (?,?,?,?,?,?,?,?)
    ON CONFLICT (path) DO UPDATE SET
    md5 = CASE WHEN excluded.md5 = x'' AND sha1 = excluded.sha1 THEN md5 ELSE excluded.md5 END,
    kind = max(kind * (sha1 = excluded.sha1), excluded.kind), size = excluded.size,
    mtime_ns = excluded.mtime_ns, inode = excluded.inode, sha1 = excluded.sha1,
    blake3 = excluded.blake3"""  # noqa: S608

_Rows = list[tuple[Any, ...]]


class ObjectRow(NamedTuple):
    """What is known of an object of our own."""

    sha1: bytes
    size: int
    mtime_ns: int
    inode: int
    blake3: bytes
    md5: bytes
    name: str
    used: int
    """Nanoseconds since 1970 when it was last asked for or stored."""

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.size, self.mtime_ns, self.inode)


class PlaceRow(NamedTuple):
    """What is known of a file that is not ours."""

    path: bytes
    size: int
    mtime_ns: int
    inode: int
    sha1: bytes
    blake3: bytes
    md5: bytes
    kind: int

    @property
    def stamp(self) -> Stamp:
        return Stamp(self.size, self.mtime_ns, self.inode)


class Index:
    """The rows. Every method may be called from any thread."""

    def __init__(self, path: Path, on_begun: Callable[[], Iterable[ObjectRow]]) -> None:
        """``on_begun`` yields the rows of a new index: what lies in the store already."""
        self._on_begun = on_begun
        self._file = IndexFile(path, self._make)

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        self._file.close()

    def writing(self) -> AbstractContextManager[sqlite3.Connection]:
        """Hold a transaction that writes: no other process writes meanwhile."""
        return self._file.writing()

    def _make(self, connection: sqlite3.Connection) -> None:
        for statement in filter(str.strip, _SCHEMA.split(";")):
            connection.execute(statement)
        connection.executemany(_PUT_MISSING, self._on_begun())

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> _Rows:
        return self._file.run(lambda connection: connection.execute(query, values).fetchall())

    # --- Objects ---------------------------------------------------------------------------------

    def object_row(self, sha1: bytes) -> ObjectRow | None:
        """Return the row of an object."""
        query = f"SELECT {_OBJECT} FROM objects WHERE sha1 = ?"  # noqa: S608
        rows = self._rows(query, (sha1,))
        return ObjectRow(*rows[0]) if rows else None

    def objects(self) -> Iterator[ObjectRow]:
        """Yield all objects by hash, some at a time, so that nothing is locked meanwhile."""
        query = f"SELECT {_OBJECT} FROM objects WHERE sha1 > ? ORDER BY sha1 LIMIT 1000"  # noqa: S608
        after = b""
        while rows := self._rows(query, (after,)):
            yield from (ObjectRow(*row) for row in rows)
            after = rows[-1][0]

    def with_md5(self, md5: bytes) -> list[bytes]:
        """Return the SHA-1 of what has this MD5."""
        query = """SELECT sha1 FROM objects WHERE md5 = ?1 AND md5 <> x''
            UNION SELECT sha1 FROM places WHERE md5 = ?1 AND md5 <> x''"""
        return [row[0] for row in self._rows(query, (md5,))]

    def put(self, objects: Iterable[ObjectRow] = (), places: Iterable[PlaceRow] = ()) -> None:
        """Write rows in one transaction."""
        object_rows, place_rows = list(objects), list(places)
        if any(row.kind == LINK for row in place_rows):
            self._file.check_lasts()
        with self.writing() as connection:
            connection.executemany(_PUT_OBJECT, object_rows)
            connection.executemany(_PUT_PLACE, place_rows)

    def put_missing(self, objects: Iterable[ObjectRow]) -> None:
        """Write the rows of objects that have none."""
        with self.writing() as connection:
            connection.executemany(_PUT_MISSING, objects)

    def touch(self, sha1s: Iterable[bytes], now: int) -> list[bytes]:
        """Say that objects were used; return those that are not there any more."""
        gone = []
        with self.writing() as connection:
            for sha1 in sha1s:
                query = "UPDATE objects SET used = max(used, ?) WHERE sha1 = ?"
                if not connection.execute(query, (now, sha1)).rowcount:
                    gone.append(sha1)
        return gone

    def used_bytes(self) -> int:
        """Return the sum of all objects' sizes."""
        total: int = self._rows("SELECT coalesce(sum(size), 0) FROM objects")[0][0]
        return total

    def forget_object(self, sha1: bytes) -> None:
        """Take an object's row out."""
        with self.writing() as connection:
            connection.execute("DELETE FROM objects WHERE sha1 = ?", (sha1,))

    # --- Places ----------------------------------------------------------------------------------

    def place(self, path: bytes) -> PlaceRow | None:
        """Return what is known of a file."""
        query = f"SELECT {_PLACE} FROM places WHERE path = ?"  # noqa: S608
        rows = self._rows(query, (path,))
        return PlaceRow(*rows[0]) if rows else None

    def knows_of(self, directory: bytes) -> bool:
        """Return whether any file in a directory, or below it, is known."""
        query = "SELECT 1 FROM places WHERE path > ? AND path < ? LIMIT 1"
        return bool(self._rows(query, (directory + b"/", directory + b"0")))  # "0" follows "/"

    def links(self, sha1: bytes) -> list[PlaceRow]:
        """Return the user's files that have this content."""
        query = f"SELECT {_PLACE} FROM places WHERE sha1 = ? AND kind = 1 ORDER BY path"  # noqa: S608
        return [PlaceRow(*row) for row in self._rows(query, (sha1,))]

    def all_links(self) -> Iterator[PlaceRow]:
        """Yield all links by path, some at a time."""
        query = f"""SELECT {_PLACE} FROM places WHERE path > ? AND kind = 1
            ORDER BY path LIMIT 1000"""  # noqa: S608
        after = b""
        while rows := self._rows(query, (after,)):
            yield from (PlaceRow(*row) for row in rows)
            after = rows[-1][0]

    def forget_place(self, path: bytes) -> None:
        """Take a file's row out."""
        with self.writing() as connection:
            connection.execute("DELETE FROM places WHERE path = ?", (path,))

    # --- Pins ------------------------------------------------------------------------------------

    def pins(self) -> set[bytes]:
        """Return what is pinned."""
        return {row[0] for row in self._rows("SELECT sha1 FROM pins")}

    def is_pinned(self, sha1: bytes) -> bool:
        """Return whether a content is pinned."""
        return bool(self._rows("SELECT 1 FROM pins WHERE sha1 = ?", (sha1,)))

    def set_pin(self, sha1: bytes, *, is_pinned: bool) -> None:
        """Pin a content or not."""
        self._file.check_lasts()
        with self.writing() as connection:
            if is_pinned:
                connection.execute("INSERT OR IGNORE INTO pins VALUES (?)", (sha1,))
            else:
                connection.execute("DELETE FROM pins WHERE sha1 = ?", (sha1,))
