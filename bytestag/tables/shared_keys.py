"""SharedKeys: the keys by which shared files are found, a range at a time (shell around SQL).

Those are the keys of files, of their descriptions and of manifests; who has them knows the parts.
Only one range is ever in memory, however many files are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from bytestag.keys import BIT_SIZE, KeyBytes
from bytestag.tables.database_engine import Database
from bytestag.tables.schema import shared_paths, shared_values

if TYPE_CHECKING:
    from bytestag.tables.shared import SharedFilesKVPTable

KEY_BYTES = BIT_SIZE // 8

_s, _v = shared_paths.c, shared_values.c
_other = shared_values.alias().c

_DESCRIBED = sa.select(sa.func.count(sa.distinct(_v.key))).where(_v.key != _v.sha1)
_SMALL_MANIFESTS = sa.select(sa.func.count(sa.distinct(_s.manifest_sha1))).where(
    _s.manifest_size > 0, _s.info_blake3 == b""
)
_low, _high = sa.bindparam("low", type_=sa.LargeBinary), sa.bindparam("high", type_=sa.LargeBinary)
# A description is what has another key beside its own hash. It is found by its bytes, so that its
# own hash, which says nothing of what it is, is met in the order of keys too.
_is_description = (
    sa.select(_other.id).where(_other.blake3 == _v.blake3, _other.key != _other.sha1).exists()
)
_BETWEEN = sa.union(
    sa.select(_v.key).where(_v.key.between(_low, _high), _is_description),
    sa.select(_s.manifest_sha1).where(_s.manifest_size > 0, _s.manifest_sha1.between(_low, _high)),
).order_by("key")


class SharedKeys:
    """The keys of all that is shared, as a key source of the announcer; made where one may wait."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.read() as connection:
            described = int(connection.execute(_DESCRIBED).scalar_one())
            manifests = int(connection.execute(_SMALL_MANIFESTS).scalar_one())
        self._count = 2 * described + manifests

    def __len__(self) -> int:
        """How many there were when this was made; who shares a manifest as a file has it twice."""
        return self._count

    def between(self, low: int, end: int) -> Sequence[KeyBytes]:
        """Return the keys of a range as it is now, ascending (blocking)."""
        if end <= low:
            return []
        names = {
            "low": low.to_bytes(KEY_BYTES, "big"),
            "high": (end - 1).to_bytes(KEY_BYTES, "big"),
        }
        with self._database.read() as connection:
            return [KeyBytes(key) for key in connection.execute(_BETWEEN, names).scalars()]


class JoinedKeys:
    """The keys of several sources, less some."""

    def __init__(self, sources: Sequence[SharedKeys], without: Iterable[bytes] = ()) -> None:
        self._sources = sources
        self._without = frozenset(without)

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def between(self, low: int, end: int) -> Sequence[KeyBytes]:
        """Return the keys of a range as it is now, ascending (blocking)."""
        found = {key for source in self._sources for key in source.between(low, end)}
        return sorted(found - self._without)


def keys_of_directory(table: SharedFilesKVPTable, path: Path) -> set[bytes]:
    """Return the keys under which the manifest of a shared directory is found."""
    try:
        root = table.root(path)
    except KeyError:  # it was not scanned yet
        return set()
    return {root.sha1, *(record.index for record in table.records_by_key(root.sha1))}
