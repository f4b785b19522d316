"""Opens the tables of a node that survives restarts (composition)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bytestag.keys import KeyBytes
from bytestag.tables.aggregated import AggregatedKVPTable
from bytestag.tables.base import KVPTable
from bytestag.tables.built_in import BuiltInTable
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.database_engine import Database
from bytestag.tables.due import DueTable
from bytestag.tables.providers import ProviderTable
from bytestag.tables.shared import SharedFilesKVPTable
from bytestag.tables.state import StateTable
from bytestag.tables.stores import Stores


def open_stores(
    state_directory: Path,
    cache: str | Path,
    cache_bytes: int,
    node_key: KeyBytes,
    wall: Callable[[], float],
    *,
    serves_store: bool = False,
) -> Stores:
    """Open the tables of a node that survives restarts.

    ``cache`` is a directory or a ``postgresql://`` URL. With ``serves_store`` there is a table for
    the objects of the user's content store. Raises StorageError.
    """
    state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(state_directory / "state.db")
    try:
        table = DatabaseKVPTable(_cache_url(cache), cache_bytes, wall, node_key=node_key)
    except BaseException:
        database.close()
        raise
    shared = SharedFilesKVPTable(database, wall)
    stored = SharedFilesKVPTable(state_directory / "stored.db", wall) if serves_store else None
    served: list[KVPTable] = [shared, BuiltInTable()]
    if stored is not None:
        served.append(stored)
    return Stores(
        table,
        shared,
        AggregatedKVPTable(table, served),
        DueTable(database, "publish"),
        ProviderTable(database),
        StateTable(database),
        stored,
        (database,),
    )


def _cache_url(cache: str | Path) -> str | Path:
    if isinstance(cache, str) and cache.startswith("postgresql"):
        return cache
    directory = Path(cache)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return directory / "cache.db"
