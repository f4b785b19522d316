"""Replicator: values held for others: repaired without their publisher, expired in time (shell).

Once a period a holder goes through its rows, region by region, and compares them with the donors
closest to their keys: by digest, by names where that differs, and only what is missing is offered,
with the deposit and proof that it came with. The nearest holder does this for all; the others trust
it seven times in eight, so that nobody can put repairs off for ever. Who says that it holds a row
proves one, sampled. A donor that agreed is left alone for two periods, while it stays and the rows
stay the same: most comparisons would find nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field

from bytestag.config import DAY, HOUR, INLINE_VALUE_BYTES_MAX, OFFER_KEYS_MAX, Config
from bytestag.crypto.deposits import split_proof
from bytestag.dht.claims import (
    PREFIX_BITS_MAX,
    Claims,
    Prefix,
    prefix_of,
    range_of,
    row_name,
    split_names,
)
from bytestag.dht.inquiry import Inquiry
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import offer
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.hashing import blake3_keyed
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import Link
from bytestag.network.packets import NAMES_IN_QUERY_MAX
from bytestag.recent import Recent
from bytestag.tables.base import KVPRecord, KVPTable, Standing, Verdict

_logger = logging.getLogger(__name__)

ROWS_PER_REGION_MAX = m.ROWS_NAMED_MAX // 2
ROWS_PER_OFFER = OFFER_KEYS_MAX // 2  # each brings its deposit and proof along
OWN_TURNS = 1 / 8
AGREED_PERIODS = 2.5
"""So long one comparison with a donor that has all stands for the next ones."""
AGREED_MAX = 2048
CLAIM_PERIODS = AGREED_PERIODS + 1
EXPIRED_AT_ONCE = 1000
LIAR_SECONDS = DAY
FULL_SECONDS = 6 * HOUR
AVOIDED_MAX = 1000
_Named = tuple[bytes, KVPRecord]  # two rows may have one name


@dataclass(slots=True)
class RepairOutcome:
    """What one pass found."""

    rows: int = 0
    left_to_others: int = 0
    """Rows that a nearer holder looks after."""
    compared: int = 0
    """Rows that another donor was asked about, once for each donor."""
    agreed: int = 0
    """Rows that were not compared, because a donor had them lately and was not away since."""
    missing: int = 0
    copied: int = 0
    liars: int = 0
    """Donors that said they hold a row and could not prove it."""
    unreachable: set[bytes] = field(default_factory=set)


class Replicator:
    """Looks after what a donor holds."""

    def __init__(
        self,
        network: DHTNetwork,
        table: KVPTable,
        claims: Claims,
        config: Config,
        runtime: Runtime,
    ) -> None:
        self._network = network
        self._table = table
        self._claims = claims
        self._config = config
        self._runtime = runtime
        self._avoided: OrderedDict[bytes, float] = OrderedDict()
        self._agreed: Recent[tuple[bytes, Prefix], tuple[float, bytes]] = Recent(AGREED_MAX)
        """When a donor was seen to have rows, monotonic seconds, and their names."""
        self.own_turns = OWN_TURNS
        """How often rows are looked after although a nearer holder says that it does."""

    async def expire(self) -> int:
        """Remove what is past its time, and fit the radius to the room that is left."""
        now = self._runtime.wall()
        gone = await self._runtime.offload(self._table.expire, now, EXPIRED_AT_ONCE)
        quota = self._table.max_size
        fill = await self._runtime.offload(lambda: self._table.kept_bytes / quota if quota else 0.0)
        self._network.protocol.radius.update(fill, self._network.size)
        return gone

    async def repair(self) -> RepairOutcome:
        """Go through all rows once."""
        outcome = RepairOutcome()
        near = Neighbours(self._network)
        async for prefix, rows in self._regions():
            outcome.rows += len(rows)
            await self._repair_region(prefix, rows, near, outcome)
        own_id = self._network.protocol.identity.node_id
        if near.covers(own_id):  # so our neighbourhood need not be refreshed
            self._network.protocol.router.touch(own_id, self._runtime.monotonic())
        if outcome.rows:
            _logger.info(
                "repair: %d rows, %d copies made, %d unreachable",
                outcome.rows,
                outcome.copied,
                len(outcome.unreachable),
            )
        return outcome

    async def _regions(self) -> AsyncIterator[tuple[Prefix, list[KVPRecord]]]:
        """Yield the rows by regions of at most so many; the same rows give the same regions."""
        waiting = [prefix_of(bytes(20), 0)]
        while waiting:
            prefix = waiting.pop()
            low, end = range_of(prefix)
            rows = await self._runtime.offload(
                self._table.records_between, low, end, ROWS_PER_REGION_MAX + 1
            )
            bits = prefix[0] + 1
            if len(rows) > ROWS_PER_REGION_MAX and bits <= PREFIX_BITS_MAX:
                middle = ((low + end) // 2).to_bytes(20, "big")
                waiting += [prefix_of(middle, bits), prefix_of(prefix[1] + bytes(12), bits)]
                continue
            now = self._runtime.wall()
            if kept := [row for row in rows if _is_repaired(row) and row.expires - now >= HOUR]:
                yield prefix, kept

    async def _repair_region(
        self,
        prefix: Prefix,
        rows: Sequence[KVPRecord],
        near: Neighbours,
        outcome: RepairOutcome,
    ) -> None:
        by_donor: dict[bytes, tuple[Contact, list[_Named]]] = {}
        named = [(row_name(row), row) for row in rows]
        is_own_turn = self._runtime.rng.random() < self.own_turns
        claimed: dict[bytes, set[bytes]] = {}
        settled: dict[bytes, bool] = {}
        for name, row in named:
            donors = await self._other_holders(near, row.key, settled)
            if not is_own_turn and self._is_looked_after(row.key, name, prefix, donors, claimed):
                outcome.left_to_others += 1
                continue
            for donor in donors:
                by_donor.setdefault(donor.id, (donor, []))[1].append((name, row))
        known = {name for name, _ in named}
        async with asyncio.TaskGroup() as group:  # one that stalls must not hold up the others
            for donor, chosen in by_donor.values():
                group.create_task(self._compare(donor, prefix, chosen, known, outcome))

    async def _other_holders(
        self, near: Neighbours, key: KeyBytes, settled: dict[bytes, bool]
    ) -> list[Contact]:
        """Return the donors that should hold a row beside us: we count if we are close enough."""
        copies = self._config.copies
        found = await near.donors(key, copies)
        now = self._runtime.monotonic()
        donors = [donor for donor in found if self._may_be_handed(donor, settled, now)]
        if len(donors) < copies:  # rather young ones than too few
            donors = [donor for donor in found if not self._is_avoided(donor, now)]
        goal, own = key.integer, self._network.node.long_id ^ key.integer
        closer = sum(donor.long_id ^ goal < own for donor in donors[:copies])
        return donors[: copies - 1 if closer < copies else copies]

    def _may_be_handed(self, donor: Contact, settled: dict[bytes, bool], now: float) -> bool:
        """Whether a donor has been up for a while, and did not refuse or lie lately.

        Most of those who just came leave soon again. ``settled`` is what this pass knows of that.
        """
        is_settled = settled.get(donor.id)
        if is_settled is None:
            known = self._network.protocol.router.contact(donor.id)
            is_settled = known is None or now - known.first_seen >= self._config.settled_seconds
            settled[donor.id] = is_settled
        return is_settled and not self._is_avoided(donor, now)

    def _is_avoided(self, donor: Contact, now: float) -> bool:
        return self._avoided.get(donor.id, 0.0) > now

    def _is_looked_after(
        self,
        key: KeyBytes,
        name: bytes,
        prefix: Prefix,
        donors: Sequence[Contact],
        claimed: dict[bytes, set[bytes]],
    ) -> bool:
        """Whether a nearer donor named this row to us in the last period."""
        goal, own = key.integer, self._network.node.long_id ^ key.integer
        nearer = [donor.id for donor in donors if donor.long_id ^ goal < own]
        if unknown := [id_ for id_ in nearer if id_ not in claimed]:
            since = self._runtime.monotonic() - CLAIM_PERIODS * self._config.repair_seconds
            found = self._claims.names(unknown, prefix, since)
            claimed.update((id_, found.get(id_, set())) for id_ in unknown)
        return any(name in claimed[id_] for id_ in nearer)

    # --- One donor -------------------------------------------------------------------------------

    async def _compare(
        self,
        donor: Contact,
        prefix: Prefix,
        rows: Sequence[_Named],
        known: Collection[bytes],
        outcome: RepairOutcome,
    ) -> None:
        """Ask a donor for ``rows``; others that are ``known`` here are named too, if few are.

        So what it has is known when it should have more of them, because others went.
        """
        if donor.id in outcome.unreachable:
            return
        wanted = dict(rows)
        if wanted.keys() <= self._had(donor, prefix):
            outcome.agreed += len(rows)
            return
        outcome.compared += len(rows)
        inquiry = Inquiry(self._network, donor, self._runtime)
        names = sorted(wanted if len(known) > NAMES_IN_QUERY_MAX else known)[: m.ROWS_NAMED_MAX]
        try:
            flags = await inquiry.lacking(prefix, b"".join(names))
            lacking = set(itertools.compress(names, flags))
            missing = [row for name, row in rows if name in lacking]
            outcome.missing += len(missing)
            refused = await self._bring(donor, missing, outcome) if missing else set()
            gone = (lacking - wanted.keys()) | refused
            held = [row for name, row in wanted.items() if name not in refused]
            if await self._sample(donor, inquiry, held, outcome):
                had = b"".join(name for name in names if name not in gone)
                self._agreed.put((donor.id, prefix), (self._runtime.monotonic(), had))
        except BytestagError as error:
            _logger.debug("! repair at %r: %s", donor, error)
            outcome.unreachable.add(donor.id)

    def _had(self, donor: Contact, prefix: Prefix) -> set[bytes]:
        """Return the names of the rows that a donor had lately; none if it was away since."""
        now = self._runtime.monotonic()
        since, names = self._agreed.get((donor.id, prefix)) or (0.0, b"")
        known = self._network.protocol.router.contact(donor.id)
        if not names or known is None or known.first_seen > since:
            return set()
        is_old = now - since >= AGREED_PERIODS * self._config.repair_seconds
        return set() if is_old else set(split_names(names))

    async def _bring(
        self, donor: Contact, records: Sequence[KVPRecord], outcome: RepairOutcome
    ) -> set[bytes]:
        """Offer what is missing, some at a time; return the names of those that were not taken."""
        link = await self._network.link_to(donor)
        refused: set[bytes] = set()
        for start in range(0, len(records), ROWS_PER_OFFER):
            some = list(records[start : start + ROWS_PER_OFFER])
            refused |= await self._offer(donor, link, some, outcome)
        return refused

    async def _offer(
        self, donor: Contact, link: Link, records: list[KVPRecord], outcome: RepairOutcome
    ) -> set[bytes]:
        """Offer rows; return the names of those that were not taken."""
        refused = set()
        message = await self._runtime.offload(self._make_offer, records)
        async for word in offer(link, message):
            if word.verdict is Verdict.ACCEPTED:
                outcome.copied += 1
            elif word.verdict is not Verdict.HELD:
                refused.add(row_name(records[word.entry]))
            if word.verdict is Verdict.FULL:
                self._avoid(donor, FULL_SECONDS)
        return refused

    async def _sample(
        self,
        donor: Contact,
        inquiry: Inquiry,
        held: Sequence[KVPRecord],
        outcome: RepairOutcome,
    ) -> bool:
        """Return whether a donor proves one of the rows that it should hold, if there are any."""
        if not held:
            return False
        record, nonce = self._runtime.rng.choice(held), self._runtime.token_bytes(32)
        proof = await inquiry.proof(record, nonce)
        try:
            value = await self._runtime.offload(self._table.read_row, record)
        except KeyError:
            return True  # gone here meanwhile, so there is nothing to judge by
        if proof == blake3_keyed(nonce, value):
            return True
        _logger.warning("! %r says that it holds what it cannot prove", donor)
        outcome.liars += 1
        self._avoid(donor, LIAR_SECONDS)
        return False

    def _avoid(self, donor: Contact, seconds: float) -> None:
        """Count on others in its stead for a while."""
        self._avoided[donor.id] = self._runtime.monotonic() + seconds
        while len(self._avoided) > AVOIDED_MAX:
            self._avoided.popitem(last=False)

    def _make_offer(self, records: list[KVPRecord]) -> m.Offer:
        """Offer rows with the deposits and proofs that they are kept under (blocking).

        Small values travel inside: nobody is offered what he did not say he lacks.
        """
        deposits: dict[bytes, int] = {}
        entries = []
        small = [record for record in records if record.size <= INLINE_VALUE_BYTES_MAX]
        values = dict(zip((r.blake3 for r in small), self._table.read_rows(small), strict=True))
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
                    values.get(record.blake3),
                )
            )
        return m.Offer(self._runtime.token_bytes(20), list(deposits), entries)


def _is_repaired(record: KVPRecord) -> bool:
    return record.standing in (Standing.KEPT, Standing.REPLICA)
