"""PartReader: bytes of parts of shared files, searched for by their hashes (shell)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from bytestag.config import PART_BYTES
from bytestag.tables import shared_queries
from bytestag.tables.base import Asked, KVPRecord, ReadRow, still_match
from bytestag.tables.database_engine import Database
from bytestag.tables.file_hashing import open_file
from bytestag.tables.shared_places import PLACES_AHEAD, Place, Places, read_places

PLACES_PER_KEY = 4
"""So many places of a part are read on the average, when many parts are searched for."""
Changed = tuple[int, bytes, bytes, bool]
"""A file's row, SHA-1 and BLAKE3 of a part that it has no longer, and whether there is another."""


class _Where(NamedTuple):
    file: int
    path: bytes
    number: int

    @classmethod
    def of(cls, row: Any) -> _Where:
        path = os.path.join(row.root, row.path) if row.path else row.root
        return cls(row.id, path, row.number)


class PartReader:
    """Reads parts where they lie, and verifies them. Whoever scans clears ``places``."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.places = Places()

    def read_remembered(self, asked: Sequence[Asked]) -> list[ReadRow | None]:
        """Return the rows whose place is known without a search."""
        wanted: dict[bytes, list[tuple[int, Place]]] = {}
        for number, ask in enumerate(asked):
            place = self.places.get(ask.key)
            if place is not None and ask.selector and ask.fits(place.record):
                wanted.setdefault(place.path, []).append((number, place))
        found: list[ReadRow | None] = [None] * len(asked)
        for path, places in wanted.items():
            values = read_places(path, [place for _, place in places])
            for (number, place), value in zip(places, values, strict=True):
                if still_match(place.record, value):
                    found[number] = ReadRow(place.record, value, 0)
        return found

    def read_many(self, records: Sequence[KVPRecord], changed: list[Changed]) -> list[bytes | None]:
        """Read several parts: :meth:`read` with one search for all."""
        first = self._first_of(records)
        return [self.read(r, changed, first.get((r.index, r.blake3))) for r in records]

    def read(
        self, record: KVPRecord, changed: list[Changed], first: _Where | None = None
    ) -> bytes | None:
        """Read a part from the first file that still has it; name those that have not.

        ``first`` is where it lies first, if that is known.
        """
        place = self.places.get(record.index)
        if place is not None and place.record.blake3 == record.blake3:
            (found,) = read_places(place.path, [place])
            if still_match(record, found):
                return bytes(found)
        for where in self._search(record, first):
            try:
                value = _read_at(where.path, where.number * PART_BYTES, record.size)
            except OSError:  # too many open files, a disk that is not there: perhaps next time
                continue
            if still_match(record, value):
                if record.size == PART_BYTES:  # or it is the last
                    self._look_ahead(where)
                return value
            changed.append((where.file, record.index, record.blake3, bool(value)))
        return None

    def _search(self, record: KVPRecord, first: _Where | None) -> Iterator[_Where]:
        """Yield where a part lies, file after file."""
        if first is not None:
            yield first
        after = first.file if first is not None else 0
        while True:
            names = {"key": record.index, "blake3": record.blake3, "after": after}
            with self._database.read() as connection:
                row = connection.execute(shared_queries.PLACE_OF_PART, names).first()
            if row is None:
                return
            yield _Where.of(row)
            after = row.id

    def _first_of(self, records: Sequence[KVPRecord]) -> dict[tuple[bytes, bytes], _Where]:
        """Return where parts lie first that are not remembered, by their hashes.

        Those of which there are very many copies may be missing, and what is behind them.
        """
        keys = [r.index for r in records if self.places.get(r.index) is None]
        if len(keys) < 2:
            return {}
        names = {"keys": keys, "limit": PLACES_PER_KEY * len(keys)}
        found: dict[tuple[bytes, bytes], _Where] = {}
        with self._database.read() as connection:
            for row in connection.execute(shared_queries.PLACES_OF_PARTS, names):
                found.setdefault((row.sha1, row.blake3), _Where.of(row))
        return found

    def _look_ahead(self, where: _Where) -> None:
        """Remember where the parts lie that follow one in its file."""
        changes = self.places.changes
        names = {"file": where.file, "number": where.number, "limit": PLACES_AHEAD}
        with self._database.read() as connection:
            rows = connection.execute(shared_queries.PARTS_AFTER, names).all()
        self.places.learn(
            (
                Place(shared_queries.to_record(row[:5]), where.path, row.number * PART_BYTES)
                for row in rows
            ),
            changes,
        )


def _read_at(path: bytes, offset: int, size: int) -> bytes:
    """Return what is there now; nothing where the file is gone or something else."""
    try:
        with open_file(path) as file:
            return os.pread(file.fileno(), size, offset)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ESPIPE, errno.ENXIO):
            return b""
        raise
