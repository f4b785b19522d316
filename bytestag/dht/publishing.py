"""Publisher: pushes values to the donors near their keys (shell).

One copy of everything first, then the second. A copy counts when its holder said STORED (or that it
held the row already), never before. Work is grouped by key region and by donor.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bytestag.config import HOUR, INLINE_VALUE_BYTES_MAX, OFFER_KEYS_MAX, Config
from bytestag.crypto import deposits as d
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import COUNTED, offer
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.tasks import Parent, Task
from bytestag.network import messages as m
from bytestag.tables.base import KVPRecord, KVPTable, Verdict

_logger = logging.getLogger(__name__)
T = TypeVar("T")

ROWS_AT_ONCE = 512
OFFER_BYTES_MAX = 56_000
ENTRY_BYTES = 160
OFFERS_AT_ONCE = 16
BAD_DONOR_SECONDS = 60.0
IDLE_ROUNDS_MAX = 5
ROUND_PAUSE_SECONDS = 2.0
RETRIED = (Verdict.BUSY, Verdict.NOT_SENT)


@dataclass(slots=True)
class PublishOutcome:
    """What is known of the copies of some rows; it is updated while the work goes on."""

    rows: int = 0
    copies_wanted: int = 0
    donors: int = 0
    copies: list[int] = field(default_factory=list)
    """How many rows have 0, 1, 2 … copies."""
    bytes_pushed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    granted_hours_min: int | None = None

    @property
    def copies_min(self) -> int:
        """Copies of the least-copied row."""
        return next((n for n, rows in enumerate(self.copies) if rows), 0)

    def rows_with(self, copies: int) -> int:
        """How many rows have at least that many copies."""
        return sum(self.copies[copies:])


@dataclass(slots=True)
class _Row:
    """A row, and the IDs of its holders and of those who refused it: few, so no sets."""

    record: KVPRecord
    holders: tuple[bytes, ...] = ()
    refusals: tuple[bytes, ...] = ()


class Publisher:
    """Publishes rows of a table."""

    def __init__(
        self,
        network: DHTNetwork,
        table: KVPTable,
        config: Config,
        runtime: Runtime,
        parent: Parent,
        next_seq: Callable[[], int],
    ) -> None:
        self._network = network
        self._table = table
        self._config = config
        self._runtime = runtime
        self._next_seq = next_seq
        self._identity = network.protocol.identity
        self.slot = FnTaskSlot(OFFERS_AT_ONCE, OFFERS_AT_ONCE, parent)
        self._bad_donors: dict[bytes, float] = {}

    async def publish(
        self,
        records: Iterable[KVPRecord],
        *,
        copies: int,
        keep_seconds: int,
        on_progress: Callable[[PublishOutcome], None] = lambda outcome: None,
    ) -> PublishOutcome:
        """Bring rows to ``copies`` holders each, or as many as there are donors.

        With ``keep_seconds`` a deposit backs each row; with 0 the 2012 time to live governs. Ends
        when all have what they can have, or when several rounds brought nothing new.
        """
        near = Neighbours(self._network)
        rows = await self._runtime.offload(  # in order of keys: one walk over the key space
            lambda: [_Row(record) for record in sorted(records, key=lambda record: record.key)]
        )
        outcome = PublishOutcome(len(rows), copies, copies=[len(rows)] + [0] * copies)
        idle_rounds = 0
        for wanted in range(1, copies + 1):
            while True:
                before = outcome.rows_with(wanted)
                tried = await self._round(rows, near, wanted, keep_seconds, outcome, on_progress)
                missing = outcome.rows - outcome.rows_with(wanted)
                if not tried and not outcome.rows_with(wanted):
                    return outcome  # nobody takes more: those who lack further copies are the same
                if not missing or not tried:
                    break
                idle_rounds = 0 if outcome.rows_with(wanted) > before else idle_rounds + 1
                if idle_rounds > IDLE_ROUNDS_MAX:
                    return outcome
                await asyncio.sleep(ROUND_PAUSE_SECONDS)
        return outcome

    async def _round(
        self,
        rows: list[_Row],
        near: Neighbours,
        wanted: int,
        keep_seconds: int,
        outcome: PublishOutcome,
        on_progress: Callable[[PublishOutcome], None],
    ) -> bool:
        """Offer once every row that lacks its ``wanted``-th copy; return whether there were any."""
        offers: list[Task[None]] = []
        for chunk in _chunks((row for row in rows if len(row.holders) < wanted), ROWS_AT_ONCE):
            for donor, chosen in (await self._by_donor(chunk, near, outcome)).items():
                for batch in _batches(chosen):
                    offers.append(
                        await self.slot.add(
                            self._offer_batch, donor, batch, keep_seconds, outcome, on_progress
                        )
                    )
        for made in offers:
            await made
        return bool(offers)

    async def _by_donor(
        self, rows: Sequence[_Row], near: Neighbours, outcome: PublishOutcome
    ) -> dict[Contact, list[_Row]]:
        """Choose for each row the closest donor that has not got it and did not refuse it."""
        chosen: dict[Contact, list[_Row]] = {}
        now = self._runtime.monotonic()
        self._bad_donors = {id_: t for id_, t in self._bad_donors.items() if t > now}
        for row in rows:
            donors = await near.donors(row.record.key, outcome.copies_wanted)
            outcome.donors = max(outcome.donors, len(donors))
            for donor in donors:
                if donor.id in row.holders + row.refusals or donor.id in self._bad_donors:
                    continue
                chosen.setdefault(donor, []).append(row)
                break
        return chosen

    async def _offer_batch(
        self,
        donor: Contact,
        rows: list[_Row],
        keep_seconds: int,
        outcome: PublishOutcome,
        on_progress: Callable[[PublishOutcome], None],
    ) -> None:
        def on_final(row: _Row, verdict: Verdict, granted_hours: int) -> None:
            self._count(row, donor, verdict, granted_hours, outcome, keep_seconds)
            on_progress(outcome)

        try:
            await self._offer(donor, rows, keep_seconds, on_final)
        except BytestagError as error:
            _logger.debug("! offer to %r: %s", donor, error)
            self._bad_donors[donor.id] = self._runtime.monotonic() + BAD_DONOR_SECONDS
            outcome.refused["unreachable"] += 1

    def _count(
        self,
        row: _Row,
        donor: Contact,
        verdict: Verdict,
        granted_hours: int,
        outcome: PublishOutcome,
        keep_seconds: int,
    ) -> None:
        if verdict in COUNTED:
            if donor.id not in row.holders:
                outcome.copies[len(row.holders)] -= 1
                row.holders += (donor.id,)
                outcome.copies[len(row.holders)] += 1
            if verdict is Verdict.ACCEPTED:
                outcome.bytes_pushed += row.record.size
            if keep_seconds and granted_hours:
                known = outcome.granted_hours_min
                outcome.granted_hours_min = min(granted_hours, known or granted_hours)
        else:
            outcome.refused[verdict.name.lower()] += 1
            if verdict not in RETRIED:
                row.refusals += (donor.id,)

    async def _offer(
        self,
        donor: Contact,
        rows: list[_Row],
        keep_seconds: int,
        on_final: Callable[[_Row, Verdict, int], None],
    ) -> None:
        """Make one offer and hand each row's last word to ``on_final``."""
        link = await self._network.link_to(donor)
        records = [row.record for row in rows]
        message = await self._runtime.offload(self.make_offer, records, keep_seconds)
        async for word in offer(link, message):
            on_final(rows[word.entry], word.verdict, word.granted_hours)

    def make_offer(
        self,
        records: Sequence[KVPRecord],
        keep_seconds: int,
        values: Mapping[bytes, bytes | None] | None = None,
    ) -> m.Offer:
        """Return an offer of at most 64 rows, under a deposit if they are to be kept (blocking).

        Small values travel inside; they are read from the table, unless given by BLAKE3.
        """
        packed: list[bytes] = []
        if keep_seconds:
            leaves = [d.leaf_hash(r.key, r.index, r.blake3, r.size) for r in records]
            until = self._runtime.wall() + keep_seconds + HOUR
            packed = [
                d.make_deposit(
                    self._identity.signing,
                    self._config.network_id,
                    self._next_seq(),
                    until,
                    leaves,
                ).packed
            ]
        if values is None:
            small = [r for r in records if r.size <= INLINE_VALUE_BYTES_MAX]
            # One that is gone since has no value; the holder will be told so when it asks.
            values = dict(zip((r.blake3 for r in small), self._table.read_rows(small), strict=True))
        entries = [self._entry(r, bool(packed), values.get(r.blake3)) for r in records]
        return m.Offer(self._runtime.token_bytes(20), packed, entries)

    def _entry(self, record: KVPRecord, has_deposit: bool, value: bytes | None) -> m.Entry:
        return m.Entry(
            record.key if record.key != record.index else None,
            record.index,
            record.blake3,
            record.size,
            0 if has_deposit else None,
            b"",
            0 if has_deposit else self._config.value_seconds,
            value,
        )


def availability(copies: int, node_availability: float = 0.7) -> float:
    """Return the chance that at least one of ``copies`` holders is up."""
    return float(1 - (1 - node_availability) ** copies)


def is_safe_to_leave(outcome: PublishOutcome) -> bool:
    """Whether the least-copied row is up with 0.999 and has all the copies it can have."""
    reachable = min(outcome.copies_wanted, outcome.donors)
    return outcome.copies_min >= reachable and availability(outcome.copies_min) >= 0.999


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _batches(rows: list[_Row]) -> Iterator[list[_Row]]:
    """Cut rows into offers of at most 64 entries that fit a message."""
    batch: list[_Row] = []
    size = 0
    for row in rows:
        inline = row.record.size if row.record.size <= INLINE_VALUE_BYTES_MAX else 0
        if batch and (len(batch) == OFFER_KEYS_MAX or size + inline > OFFER_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += ENTRY_BYTES + inline
    if batch:
        yield batch
