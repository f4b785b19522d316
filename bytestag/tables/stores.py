"""Stores: all tables of one node (composition); ``opening`` makes those that survive restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPTable
from bytestag.tables.memory import MemoryKVPTable
from bytestag.tables.memory_stores import MemoryDueTable, MemoryProviderTable, MemoryStateTable

if TYPE_CHECKING:  # SQL takes longer to load than all else that a fetch needs
    from bytestag.tables.database_engine import Database
    from bytestag.tables.due import DueTable
    from bytestag.tables.providers import ProviderTable
    from bytestag.tables.shared import SharedFilesKVPTable
    from bytestag.tables.state import StateTable


@dataclass(slots=True)
class Stores:
    """What a node keeps."""

    cache: KVPTable
    """Values held for others."""
    shared: SharedFilesKVPTable | None
    """The user's files, read in place."""
    table: KVPTable
    """Both, as one."""
    publish_due: DueTable | MemoryDueTable
    providers: ProviderTable | MemoryProviderTable
    state: StateTable | MemoryStateTable | None
    stored: SharedFilesKVPTable | None = None
    """The objects of the user's content store, if they are served."""
    _databases: tuple[Database, ...] = ()

    def close(self) -> None:
        """Commit and release everything; idempotent."""
        self.table.close()
        self.cache.close()
        if self.shared is not None:
            self.shared.close()
        if self.stored is not None:
            self.stored.close()
        for database in self._databases:
            database.close()


def memory_stores(cache_bytes: int, node_key: KeyBytes, wall: Callable[[], float]) -> Stores:
    """Return tables that are gone with the process."""
    cache = MemoryKVPTable(cache_bytes, wall, node_key=node_key)
    return Stores(cache, None, cache, MemoryDueTable(), MemoryProviderTable(), MemoryStateTable())
