"""OfferHandler: what a donor does with offers (shell; :func:`rows_of_offer` is pure).

A store is an offer that the holder chooses to fetch: it judges each row, answers, asks for the
bytes of those it accepted, checks, commits, and only then says STORED.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from bytestag.config import HOUR, Config
from bytestag.crypto import deposits as d
from bytestag.dht import lifetimes
from bytestag.dht.routing import address_group
from bytestag.errors import BytestagError, LocalError, PacketError, StorageError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.tasks import Parent, Task
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import Busy, Link
from bytestag.tables import admission
from bytestag.tables.base import KVPID, KVPRecord, KVPTable, Standing, Verdict

_logger = logging.getLogger(__name__)

BUSY_RETRIES_MAX = 8
BUSY_SECONDS = 0.2
FINALS_DELAY = 0.02
COMMIT_ROWS_MAX = 64


@dataclass(frozen=True, slots=True)
class OfferedRow:
    """One entry of an offer as a row, or why it cannot be one."""

    record: KVPRecord
    verdict: Verdict
    """ACCEPTED if its deposit holds (or it has none)."""
    remaining: int | None = None
    """Seconds that are left to the row that is held here already; None for a new one."""

    @property
    def granted_hours(self) -> int:
        """How long a kept row was granted, from now."""
        seconds = self.record.time_to_live if self.remaining is None else self.remaining
        return seconds // HOUR if self.record.deposit else 0


def rows_of_offer(
    offer: m.Offer,
    network_id: bytes,
    now: float,
    fill: float,
    group: str,
    time_to_live: Callable[[KeyBytes], int],
) -> list[OfferedRow]:
    """Turn entries into rows, with their deposits checked and their times granted (pure).

    ``fill`` is the share of the quota in use; ``time_to_live`` gives the 2012 life of a key.
    """
    deposits = [_read_deposit(packed, network_id) for packed in offer.deposits]
    proofs = _implied_proofs(offer)
    rows = []
    for number, entry in enumerate(offer.entries):
        key, index = KeyBytes(entry.key or entry.index), KeyBytes(entry.index)
        record = KVPRecord(KVPID(key, index), entry.blake3, entry.size, int(now), 0, group=group)
        if entry.deposit is None:
            life = min(entry.time_to_live or lifetimes.TTL_BASE_SECONDS, time_to_live(key))
            standing = Standing.REPLICA if entry.time_to_live else Standing.CACHED
            rows.append(OfferedRow(_with(record, life, standing), Verdict.ACCEPTED))
            continue
        deposit = deposits[entry.deposit] if entry.deposit < len(deposits) else None
        proof = entry.proof or proofs[number]
        if deposit is None or not d.covers(deposit, proof, _leaf(entry)):
            rows.append(OfferedRow(record, Verdict.BAD_DEPOSIT))
            continue
        life = lifetimes.granted_seconds(deposit.keep_until - now, fill)
        if life < HOUR:
            verdict = Verdict.EXPIRED if deposit.keep_until - now < HOUR else Verdict.FULL
            rows.append(OfferedRow(record, verdict))
            continue
        kept = _with(record, life, Standing.KEPT, deposit.packed + proof, deposit.depositor)
        rows.append(OfferedRow(kept, Verdict.ACCEPTED))
    return rows


def _with(
    record: KVPRecord, life: int, standing: Standing, deposit: bytes = b"", depositor: bytes = b""
) -> KVPRecord:
    return KVPRecord(
        record.kvpid,
        record.blake3,
        record.size,
        record.timestamp,
        life,
        standing=standing,
        deposit=deposit,
        depositor=depositor,
        group=record.group,
    )


def _read_deposit(packed: bytes, network_id: bytes) -> d.Deposit | None:
    try:
        return d.read_deposit(packed, network_id)
    except PacketError:
        return None


def _leaf(entry: m.Entry) -> bytes:
    return d.leaf_hash(entry.key or entry.index, entry.index, entry.blake3, entry.size)


def _implied_proofs(offer: m.Offer) -> dict[int, bytes]:
    """Return the proofs of entries without one: together they are their deposit's leaves."""
    whole: dict[int, list[int]] = {}
    for number, entry in enumerate(offer.entries):
        if entry.deposit is not None and not entry.proof:
            whole.setdefault(entry.deposit, []).append(number)
    proofs: dict[int, bytes] = {}
    for numbers in whole.values():
        made = d.merkle_proofs([_leaf(offer.entries[number]) for number in numbers])
        proofs.update(zip(numbers, made, strict=True))
    return proofs


def _remaining(held: KVPRecord | None, offered: KVPRecord, now: float) -> int:
    """Return for how long a held row is promised: not at all if no deposit keeps it here."""
    if held is None or not held.deposit:
        return 0
    remaining = max(held.expires - int(now), 0)
    return min(remaining, offered.time_to_live) if held.is_original else remaining


class OfferHandler:
    """Takes offers into a table."""

    def __init__(
        self,
        table: KVPTable,
        config: Config,
        runtime: Runtime,
        parent: Parent,
        *,
        is_donor: bool,
        placement: Callable[[], lifetimes.Placement],
        takes: Callable[[KeyBytes], bool],
    ) -> None:
        self._table = table
        self._config = config
        self._runtime = runtime
        self._is_donor = is_donor
        self._placement = placement
        self._takes = takes
        self._commits = _Commits(table, runtime)
        self._offer_slot = FnTaskSlot(config.incoming_slots, config.waiting_slots, parent)
        self.incoming_slot = FnTaskSlot(config.incoming_slots, config.waiting_slots, parent)
        """Values being fetched because a stranger offered them."""

    @property
    def slots(self) -> tuple[FnTaskSlot, ...]:
        """All slots, to be stopped with the node."""
        return self._offer_slot, self.incoming_slot

    def handle(self, link: Link, offer: m.Offer) -> None:
        """Take an offer; called in the loop, returns at once."""
        if not self._is_donor:
            self._answer_all(link, offer, Verdict.READ_ONLY)
            return
        try:
            self._offer_slot.add_no_block(self._take, link, offer)
        except LocalError:  # full, or the node is closing
            self._answer_all(link, offer, Verdict.BUSY)

    def _answer_all(self, link: Link, offer: m.Offer, verdict: Verdict) -> None:
        count = len(offer.entries)
        link.send(m.Answer(offer.id, bytes([verdict]) * count, [0] * count))

    async def _take(self, link: Link, offer: m.Offer) -> None:
        rows = await self._runtime.offload(
            self._judge_and_renew, link, offer, self._placement().time_to_live
        )
        verdicts = bytes(row.verdict for row in rows)
        link.send(m.Answer(offer.id, verdicts, [row.granted_hours for row in rows]))
        finals = _Finals(link, offer.id)
        wanted = [i for i, row in enumerate(rows) if row.verdict is Verdict.ACCEPTED]
        inline = [i for i in wanted if offer.entries[i].value is not None]
        fetches: list[Task[None]] = []
        try:
            await self._store_inline(offer, rows, inline, finals)
            for i in wanted:
                if offer.entries[i].value is None:
                    fetches.append(await self._begin_fetch(link, i, rows[i], finals))
            for fetch in fetches:
                await fetch
        finally:
            finals.close()

    async def _begin_fetch(
        self, link: Link, number: int, row: OfferedRow, finals: _Finals
    ) -> Task[None]:
        """Wait for one of this peer's places, then for one in the slot."""
        await link.gets.acquire()
        try:
            task = await self.incoming_slot.add(self._fetch, link, number, row, finals)
        except BaseException:
            link.gets.release()
            raise
        task.observer.register(lambda _: link.gets.release())
        return task

    def _judge_and_renew(
        self, link: Link, offer: m.Offer, time_to_live: Callable[[KeyBytes], int]
    ) -> list[OfferedRow]:
        now = self._runtime.wall()
        quota = self._table.max_size
        fill = self._table.kept_bytes / quota if quota else 0.0
        rows = rows_of_offer(
            offer,
            self._config.network_id,
            now,
            fill,
            address_group(link.address[0]),
            time_to_live,
        )
        fit = [row.record for row in rows if row.verdict is Verdict.ACCEPTED]
        judged = iter(self._table.judge_many(fit, now))
        rows = [
            OfferedRow(row.record, next(judged)) if row.verdict is Verdict.ACCEPTED else row
            for row in rows
        ]
        rows = [
            OfferedRow(row.record, Verdict.OUTSIDE)
            if row.verdict is Verdict.ACCEPTED and not self._takes(row.record.key)
            else row
            for row in rows
        ]
        held = [row.record for row in rows if row.verdict is Verdict.HELD]
        renewed = iter(self._renew(held, now)) if held else iter(())
        return [next(renewed) if row.verdict is Verdict.HELD else row for row in rows]

    def _renew(self, records: list[KVPRecord], now: float) -> list[OfferedRow]:
        """Give held rows the later times of the offer; promise what is committed, no more."""
        try:
            verdicts = self._table.renew_many(records, now)
        except BytestagError as error:
            _logger.warning("x cannot renew: %s", error)
            return [OfferedRow(record, Verdict.FULL) for record in records]
        stored = self._table.records_by_keys({record.key for record in records})
        rows = []
        for record, verdict in zip(records, verdicts, strict=True):
            if verdict is Verdict.NOT_SENT:  # it went meanwhile: ask for the bytes
                rows.append(OfferedRow(record, Verdict.ACCEPTED))
                continue
            held = admission.find(stored[record.key], record)
            rows.append(OfferedRow(record, verdict, _remaining(held, record, now)))
        return rows

    async def _store_inline(
        self, offer: m.Offer, rows: list[OfferedRow], inline: list[int], finals: _Finals
    ) -> None:
        pairs = [(rows[i].record, offer.entries[i].value or b"") for i in inline]
        if not pairs:
            return
        try:
            verdicts = await self._runtime.offload(
                self._table.store_many, pairs, self._runtime.wall()
            )
        except BytestagError as error:
            _logger.warning("x cannot store: %s", error)
            verdicts = [Verdict.FULL] * len(pairs)
        for i, verdict in zip(inline, verdicts, strict=True):
            finals.add(i, verdict, rows[i])

    async def _fetch(self, link: Link, number: int, row: OfferedRow, finals: _Finals) -> None:
        verdict = Verdict.NOT_SENT
        try:
            value = await self._get(link, row.record)
            verdict = await self._commits.store(row.record, value)
        except BytestagError as error:
            _logger.debug("! offered value: %s", error)
            if not isinstance(error, Busy) and error.code in ("storage", "no_space"):
                verdict = Verdict.FULL
        finals.add(number, verdict, row)

    async def _get(self, link: Link, record: KVPRecord) -> bytes:
        for attempt in range(BUSY_RETRIES_MAX):
            try:
                fetched = await link.get(
                    record.key,
                    record.index,
                    record.blake3,
                    length=record.size,
                    idle_seconds=self._config.transfer_idle_seconds,
                )
                return bytes(fetched.value)
            except Busy:
                await asyncio.sleep(BUSY_SECONDS * (attempt + 1))
        raise Busy("the publisher stayed busy")


class _Commits:
    """Stores values that arrive while others are being committed together with each other."""

    def __init__(self, table: KVPTable, runtime: Runtime) -> None:
        self._table = table
        self._runtime = runtime
        self._waiting: list[tuple[KVPRecord, bytes, asyncio.Future[Verdict]]] = []
        self._is_committing = False

    async def store(self, record: KVPRecord, value: bytes) -> Verdict:
        """Return the verdict after the commit; raises what the table raises."""
        done: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((record, value, done))
        if not self._is_committing:
            self._is_committing = True
            try:
                while self._waiting:
                    await self._commit()
            finally:
                self._is_committing = False
        return await done

    async def _commit(self) -> None:
        batch, self._waiting = self._waiting[:COMMIT_ROWS_MAX], self._waiting[COMMIT_ROWS_MAX:]
        rows = [(record, value) for record, value, _ in batch]
        try:
            verdicts = await self._runtime.offload(
                self._table.store_many, rows, self._runtime.wall()
            )
        except BaseException as error:
            failure = error if isinstance(error, BytestagError) else StorageError(repr(error))
            for _, _, done in batch:
                if not done.done():
                    done.set_exception(failure)
                    done.exception()  # whoever waited may be gone
            if not isinstance(error, BytestagError):
                raise
            return
        for (_, _, done), verdict in zip(batch, verdicts, strict=True):
            if not done.done():
                done.set_result(verdict)


class _Finals:
    """Collects verdicts for a moment, so that one STORED carries many."""

    def __init__(self, link: Link, offer_id: bytes) -> None:
        self._link = link
        self._offer_id = offer_id
        self._finals: list[m.Final] = []
        self.stored: list[KVPRecord] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, number: int, verdict: Verdict, row: OfferedRow) -> None:
        is_here = verdict in (Verdict.ACCEPTED, Verdict.HELD)
        self._finals.append(m.Final(number, verdict, row.granted_hours if is_here else 0))
        if is_here:
            self.stored.append(row.record)
        if self._is_closed:
            self.flush()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(FINALS_DELAY, self.flush)

    def close(self) -> None:
        """Send what was collected, and wait for no more before what still comes is sent."""
        self._is_closed = True
        self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._finals:
            self._link.send(m.Stored(self._offer_id, self._finals))
            self._finals = []
