"""Replicator: values held for others: repaired without their publisher, expired in time (shell).

When a row is due, its holder offers it to the donors closest to its key, with the deposit and proof
that it came with; who holds it already says so, and proves a sample. A holder that was offered a
row puts its own turn off, so that one of them does the work for all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from bytestag.config import DAY, HOUR, OFFER_KEYS_MAX, Config
from bytestag.crypto.deposits import split_proof
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import ANSWER_SECONDS, offer
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.hashing import blake3_keyed
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import Link
from bytestag.tables.base import KVPRecord, KVPTable, Standing, Verdict
from bytestag.tables.due import Due, DueTable
from bytestag.tables.memory_stores import MemoryDueTable

_logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 256
ROWS_PER_OFFER = OFFER_KEYS_MAX // 2  # each brings its deposit and proof along
JITTER = 0.1
KEPT_TURNS = 1 / 8
EXPIRED_AT_ONCE = 1000
LIAR_SECONDS = DAY


@dataclass(slots=True)
class RepairOutcome:
    """What one pass found."""

    rows: int = 0
    offered: int = 0
    held: int = 0
    copied: int = 0
    failed: int = 0
    gone: int = 0
    liars: int = 0
    """Donors that said HELD and could not prove it."""
    unreachable: set[bytes] = field(default_factory=set)


class Replicator:
    """Looks after what a donor holds."""

    def __init__(
        self,
        network: DHTNetwork,
        table: KVPTable,
        due: DueTable | MemoryDueTable,
        config: Config,
        runtime: Runtime,
    ) -> None:
        self._network = network
        self._table = table
        self._due = due
        self._config = config
        self._runtime = runtime
        self._liars: dict[bytes, float] = {}

    def seen(self, records: list[KVPRecord]) -> None:
        """Rows were offered to us and are held: their turn comes a period from now (blocking).

        One in eight keeps its turn, so that nobody can put our repairs off for ever.
        """
        times = [(r.kvpid, r.blake3, self._next_time()) for r in records if _is_repaired(r)]
        self._due.add_many(times)
        self._due.put_many(time for time in times if self._runtime.rng.random() >= KEPT_TURNS)

    def _next_time(self) -> float:
        jitter = 1 + JITTER * (2 * self._runtime.rng.random() - 1)
        return self._runtime.wall() + self._config.repair_seconds * jitter

    async def expire(self) -> int:
        """Remove what is past its time."""
        now = self._runtime.wall()
        return await self._runtime.offload(self._table.expire, now, EXPIRED_AT_ONCE)

    async def repair(self) -> RepairOutcome:
        """Offer the rows that are due to the donors closest to their keys."""
        outcome = RepairOutcome()
        due = await self._runtime.offload(self._due.take_due, self._runtime.wall(), ROWS_AT_ONCE)
        records = await self._runtime.offload(self._records, due, outcome)
        near = Neighbours(self._network)
        by_donor: dict[Contact, list[KVPRecord]] = {}
        for record in records:
            for donor in await self._other_holders(near, record.key):
                by_donor.setdefault(donor, []).append(record)
        async with asyncio.TaskGroup() as group:  # one that stalls must not hold up the others
            for donor, chosen in by_donor.items():
                group.create_task(self._offer_all(donor, chosen, outcome))
        await self._runtime.offload(
            self._due.put_many, [(r.kvpid, r.blake3, self._next_time()) for r in records]
        )
        return outcome

    async def _other_holders(self, near: Neighbours, key: KeyBytes) -> list[Contact]:
        """Return the donors that should hold a row beside us: we count if we are close enough."""
        copies = self._config.copies
        now = self._runtime.monotonic()
        self._liars = {id_: until for id_, until in self._liars.items() if until > now}
        donors = [d for d in await near.donors(key, copies) if d.id not in self._liars]
        own = self._network.protocol.identity.node_id.distance_int(key)
        closer = sum(donor.node_id.distance_int(key) < own for donor in donors)
        return donors[: copies - 1 if closer < copies else copies]

    def _records(self, due: Iterable[Due], outcome: RepairOutcome) -> list[KVPRecord]:
        """Return the rows that are still here; the others leave the queue."""
        records = []
        now = self._runtime.wall()
        for entry in due:
            outcome.rows += 1
            try:
                record = self._table.record(entry.kvpid, entry.blake3)
            except KeyError:
                record = None
            if record is None or record.expires - now < HOUR or not _is_repaired(record):
                self._due.remove(entry.kvpid, entry.blake3)
                outcome.gone += 1
            else:
                records.append(record)
        return records

    async def _offer_all(
        self, donor: Contact, records: list[KVPRecord], outcome: RepairOutcome
    ) -> None:
        for start in range(0, len(records), ROWS_PER_OFFER):
            await self._offer(donor, records[start : start + ROWS_PER_OFFER], outcome)

    async def _offer(
        self, donor: Contact, records: list[KVPRecord], outcome: RepairOutcome
    ) -> None:
        if donor.id in outcome.unreachable:
            return
        outcome.offered += len(records)
        try:
            await self._offer_and_count(donor, records, outcome)
        except BytestagError as error:
            _logger.debug("! repair at %r: %s", donor, error)
            outcome.unreachable.add(donor.id)
            outcome.failed += len(records)

    async def _offer_and_count(
        self, donor: Contact, records: list[KVPRecord], outcome: RepairOutcome
    ) -> None:
        link = await self._network.link_to(donor)
        held = []
        async for word in offer(link, self._make_offer(records)):
            if word.verdict is Verdict.HELD:
                held.append(records[word.entry])
            elif word.verdict is Verdict.ACCEPTED:
                outcome.copied += 1
        outcome.held += len(held)
        if held and not await self._proves(link, self._runtime.rng.choice(held)):
            _logger.warning("! %r says that it holds what it cannot prove", donor)
            outcome.liars += 1
            self._liars[donor.id] = self._runtime.monotonic() + LIAR_SECONDS

    async def _proves(self, link: Link, record: KVPRecord) -> bool:
        """Let a donor prove one row that it says it holds; we have the bytes to compare with."""
        nonce = self._runtime.token_bytes(32)
        row = m.Row(record.key, record.index, record.blake3)
        answer = await link.ask(
            m.Prove(self._runtime.token_bytes(20), nonce, [row]), ANSWER_SECONDS
        )
        try:
            value = await self._runtime.offload(self._table.read_row, record)
        except KeyError:
            return True  # gone here meanwhile, so there is nothing to judge by
        return isinstance(answer, m.Proof) and answer.proofs == [blake3_keyed(nonce, value)]

    def _make_offer(self, records: list[KVPRecord]) -> m.Offer:
        """Offer rows with the deposits and proofs that they are kept under."""
        deposits: dict[bytes, int] = {}
        entries = []
        now = self._runtime.wall()
        for record in records:
            deposit, proof = split_proof(record.deposit)
            number = deposits.setdefault(deposit, len(deposits)) if deposit else None
            entries.append(
                m.Entry(
                    record.key if record.key != record.index else None,
                    record.index,
                    record.blake3,
                    record.size,
                    number,
                    proof,
                    0 if deposit else max(int(record.expires - now), 1),
                )
            )
        return m.Offer(self._runtime.token_bytes(20), list(deposits), entries)


def _is_repaired(record: KVPRecord) -> bool:
    return record.standing in (Standing.KEPT, Standing.REPLICA)
