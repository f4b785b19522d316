"""Putter: puts single small values, all copies at once (shell).

For programs that use the network as a hash table. Values that are put at the same time and have
a holder in common share an offer to it; what was learnt of a region of the key space serves for
some seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bytestag.config import INLINE_VALUE_BYTES_MAX, OFFER_KEYS_MAX, K
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import COUNTED, offer
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError, UsageError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot, SlotFull
from bytestag.events.tasks import Parent
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.tables.base import KVPID, KVPRecord, Verdict, own_record

LANES_MAX = 256
LANE_VALUES_MAX = 4096
NEAR_SECONDS = 10.0
OFFERED_BYTES_MAX = 40 * 1024


class MakeOffer(Protocol):
    """Turns rows into an offer."""

    def __call__(
        self,
        records: Sequence[KVPRecord],
        keep_seconds: int,
        values: Mapping[bytes, bytes | None] | None = ...,
    ) -> m.Offer: ...


@dataclass(slots=True)
class PutOutcome:
    """What became of the copies of a value."""

    stored: int = 0
    refused: int = 0
    unreachable: int = 0


@dataclass(slots=True)
class _Waiting:
    """A value on its way to one holder."""

    record: KVPRecord
    value: bytes
    keep_seconds: int
    done: asyncio.Future[Verdict | None]
    """Its last word; None where the holder did not answer."""


@dataclass(slots=True)
class _Lane:
    """What waits for one holder."""

    contact: Contact
    waiting: list[_Waiting] = field(default_factory=list)
    offered: list[_Waiting] = field(default_factory=list)


class Putter:
    """Puts values at the donors closest to their keys."""

    def __init__(
        self, network: DHTNetwork, make_offer: MakeOffer, runtime: Runtime, parent: Parent
    ) -> None:
        self._network = network
        self._make_offer = make_offer
        self._runtime = runtime
        self.slot = FnTaskSlot(LANES_MAX, 0, parent)
        self._lanes: dict[bytes, _Lane] = {}
        self._near = Neighbours(network)
        self._near_since = 0.0

    async def put(
        self, key: KeyBytes, value: bytes, *, copies: int, keep_seconds: int = 0
    ) -> PutOutcome:
        """Put a value of at most 1 KiB and hear what became of each copy.

        Raises:
            UsageError: the value is longer.
        """
        if len(value) > INLINE_VALUE_BYTES_MAX:
            raise UsageError(f"at most {INLINE_VALUE_BYTES_MAX} bytes can be put, not {len(value)}")
        kvpid = KVPID(key, KeyBytes.new_hash(value))
        record = replace(own_record(kvpid, value), timestamp=int(self._runtime.wall()))
        outcome = PutOutcome()
        tried: set[bytes] = set()
        tried_max = max(K, 2 * copies)  # readers do not look farther
        while outcome.stored < copies and len(tried) < tried_max:
            found = await self._neighbours().donors(key, copies + len(tried))
            donors = [donor for donor in found if donor.id not in tried]
            donors = donors[: min(copies - outcome.stored, tried_max - len(tried))]
            if not donors:
                break
            tried.update(donor.id for donor in donors)
            waiting = [self._send(donor, record, value, keep_seconds) for donor in donors]
            for verdict in await asyncio.gather(*waiting):
                outcome.stored += verdict in COUNTED
                outcome.refused += verdict is not None and verdict not in COUNTED
                outcome.unreachable += verdict is None
            if outcome.unreachable:
                self._near_since = 0.0
        return outcome

    def _neighbours(self) -> Neighbours:
        now = self._runtime.monotonic()
        if now - self._near_since > NEAR_SECONDS:
            self._near, self._near_since = Neighbours(self._network), now
        return self._near

    def _send(
        self, donor: Contact, record: KVPRecord, value: bytes, keep_seconds: int
    ) -> asyncio.Future[Verdict | None]:
        done: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get(donor.id)
        if lane is None:
            lane = _Lane(donor)
            try:
                task = self.slot.add_no_block(self._empty, lane)
            except SlotFull:
                done.set_result(Verdict.BUSY)
                return done
            self._lanes[donor.id] = lane
            task.observer.register(lambda _: self._close(lane))  # one stopped early never begins
        if len(lane.waiting) >= LANE_VALUES_MAX:
            done.set_result(Verdict.BUSY)
        else:
            lane.waiting.append(_Waiting(record, value, keep_seconds, done))
        return done

    async def _empty(self, lane: _Lane) -> None:
        """Offer what waits, and what came meanwhile, until nothing does."""
        try:
            while lane.waiting:
                lane.offered = _take(lane.waiting)
                await self._offer(lane.contact, lane.offered)
        except BytestagError:
            pass
        finally:
            self._close(lane)

    def _close(self, lane: _Lane) -> None:
        """Take no more into a lane, and tell those in it without a word; idempotent."""
        if self._lanes.get(lane.contact.id) is lane:
            del self._lanes[lane.contact.id]
        for waiting in [*lane.offered, *lane.waiting]:
            if not waiting.done.done():
                waiting.done.set_result(None)

    async def _offer(self, contact: Contact, batch: list[_Waiting]) -> None:
        link = await self._network.link_to(contact)
        values: dict[bytes, bytes | None] = {blake3(w.value): w.value for w in batch}
        message = self._make_offer([w.record for w in batch], batch[0].keep_seconds, values)
        async for word in offer(link, message):
            waiting = batch[word.entry]
            if not waiting.done.done():
                waiting.done.set_result(word.verdict)


def _take(waiting: list[_Waiting]) -> list[_Waiting]:
    """Take what one offer holds, all to be kept for the same time."""
    batch: list[_Waiting] = []
    size = 0
    while waiting and len(batch) < OFFER_KEYS_MAX and size <= OFFERED_BYTES_MAX:
        if batch and waiting[0].keep_seconds != batch[0].keep_seconds:
            break
        batch.append(waiting.pop(0))
        size += len(batch[-1].value) + 160
    return batch
