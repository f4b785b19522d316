"""TableHoldings: what this node tells of its tables to those who ask in the clear (shell)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from bytestag.config import HOUR, INLINE_VALUE_BYTES_MAX, Config
from bytestag.crypto.identity import SKEW_HOURS, Address, pack_address
from bytestag.crypto.providers import Renewal, read_renewal
from bytestag.dht.comparing import CompareHandler
from bytestag.errors import PacketError
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.network.packets import Held, Provider, Query, Reply
from bytestag.tables.base import KVPRecord, KVPTable
from bytestag.tables.entries import Provider as StoredProvider

HELD_MAX = 4
PROVIDERS_MAX = 8
SKEW_SECONDS = SKEW_HOURS * HOUR


class Providers(Protocol):
    """Provider records held for others."""

    def lookup(
        self, key: KeyBytes, now: float, limit: int = ..., rng: random.Random | None = ...
    ) -> list[StoredProvider]: ...

    def renew(
        self,
        provider_id: bytes,
        records: Sequence[tuple[bytes, bytes]],
        seq: int,
        expires: int,
        addresses: bytes,
    ) -> list[bool]: ...


class Holdings(Protocol):
    """What a node has, for its answers to those who ask in the clear."""

    is_immediate: bool
    """Whether nothing blocks, so that :meth:`describe_now` may be used."""

    async def describe(self, key: KeyBytes, reply: Reply) -> None:
        """Fill ``held``, ``more``, ``value`` and ``providers`` of a reply."""

    def describe_now(self, key: KeyBytes, reply: Reply) -> None:
        """Do the same without a thread's turn."""

    async def renew(self, renewal: bytes, address: Address, reply: Reply) -> None:
        """Renew provider records, and fill ``result`` of a reply.

        Raises:
            PacketError: malformed, for another holder, out of its time, or badly signed.
        """

    async def compare(self, query: Query, asker: bytes, reply: Reply) -> None:
        """Fill ``result`` of a reply to a contact; leave it if that would take much.

        Raises:
            PacketError: malformed.
        """


class TableHoldings:
    """Answers from tables; blocking reads are offloaded."""

    def __init__(
        self,
        table: KVPTable,
        providers: Providers,
        comparing: CompareHandler,
        config: Config,
        runtime: Runtime,
        node_id: bytes,
    ) -> None:
        self.is_immediate = not table.may_block
        self._table = table
        self._config = config
        self._node_id = node_id
        self._providers = providers
        self._comparing = comparing
        self._runtime = runtime

    async def describe(self, key: KeyBytes, reply: Reply) -> None:
        self._fill(reply, *await self._runtime.offload(self._read, key))

    def describe_now(self, key: KeyBytes, reply: Reply) -> None:
        self._fill(reply, *self._read(key))

    def _fill(
        self,
        reply: Reply,
        records: list[KVPRecord],
        value: bytes | None,
        providers: list[StoredProvider],
    ) -> None:
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

    # --- Repairs ---------------------------------------------------------------------------------

    async def compare(self, query: Query, asker: bytes, reply: Reply) -> None:
        offload = self._runtime.offload
        if query.comparison is not None:
            reply.result = await offload(self._comparing.lacking_of_few, query.comparison, asker)
        elif query.sample is not None:
            reply.result = await offload(self._comparing.proof, query.sample)

    # --- Renewals --------------------------------------------------------------------------------

    async def renew(self, renewal: bytes, address: Address, reply: Reply) -> None:
        read = read_renewal(renewal, self._config.network_id)
        if read.holder != self._node_id:
            raise PacketError("renewal for another holder")
        reply.result = bytes(await self._runtime.offload(self._renew, read, address))

    def _renew(self, renewal: Renewal, address: Address) -> list[bool]:
        now = self._runtime.wall()
        latest = int(now) + self._config.provider_seconds
        if not now < renewal.expires <= latest + SKEW_SECONDS:
            raise PacketError("renewal out of its time")
        if not renewal.is_signed():
            raise PacketError("renewal with a bad signature")
        return self._providers.renew(
            renewal.node_id,
            [(bytes([bits]) + prefix, digest) for bits, prefix, digest in renewal.records],
            renewal.seq,
            min(renewal.expires, latest),
            pack_address(address),
        )
