"""TableHoldings: what this node has under a key, from its tables (shell)."""

from __future__ import annotations

import random
from typing import Protocol

from bytestag.config import INLINE_VALUE_BYTES_MAX
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.network.packets import Held, Provider, Reply
from bytestag.tables.base import KVPRecord, KVPTable
from bytestag.tables.providers import Provider as StoredProvider

HELD_MAX = 4
PROVIDERS_MAX = 8


class Providers(Protocol):
    """Provider records held for others."""

    def lookup(
        self, key: KeyBytes, now: float, limit: int = ..., rng: random.Random | None = ...
    ) -> list[StoredProvider]: ...


class TableHoldings:
    """Fills answers to a find value; blocking reads are offloaded."""

    def __init__(self, table: KVPTable, providers: Providers, runtime: Runtime) -> None:
        self._table = table
        self._providers = providers
        self._runtime = runtime

    async def describe(self, key: KeyBytes, reply: Reply) -> None:
        """Fill ``held``, ``more``, ``value`` and ``providers`` of a reply."""
        records, value, providers = await self._runtime.offload(self._read, key)
        reply.held = [Held(r.index, r.size, r.blake3) for r in records[:HELD_MAX]]
        reply.more = max(len(records) - HELD_MAX, 0)
        reply.value = value
        now = int(self._runtime.wall())
        reply.providers = [
            Provider(p.provider_id, max(p.expires - now, 0), p.addresses) for p in providers
        ]

    def _read(self, key: KeyBytes) -> tuple[list[KVPRecord], bytes | None, list[StoredProvider]]:
        now = self._runtime.wall()
        records = [r for r in self._table.records_by_key(key) if r.expires > now]
        value = None
        if records and records[0].size <= INLINE_VALUE_BYTES_MAX:
            try:
                value = self._table.read_row(records[0])
            except KeyError:
                records = records[1:]
        providers = self._providers.lookup(key, now, PROVIDERS_MAX, self._runtime.rng)
        return records, value, providers
