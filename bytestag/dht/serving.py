"""Serving: what peers ask of us inside sessions: GET, OFFER, PROVIDE, PROVE (shell).

Each kind of work has a bounded slot of its own, so that strangers who offer cannot starve readers,
nor either of them our own fetches. A slot counts values, never files.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bytestag.config import HOUR, PART_BYTES, RUN_BYTES_MAX, VALUE_BYTES_MAX, Config
from bytestag.crypto.identity import LONG_RUNS, MANY, pack_address
from bytestag.crypto.providers import keys_digest, read_provider_record
from bytestag.dht.caching import PathCache
from bytestag.dht.comparing import CompareHandler
from bytestag.dht.offers import OfferHandler
from bytestag.errors import BytestagError, LocalError, PacketError, StorageError
from bytestag.events.batcher import Batcher
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot, SlotFull
from bytestag.events.tasks import Parent, Task
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import RATE_MIN, Link, Request
from bytestag.tables.base import Asked, KVPTable, ReadRow, Verdict

if TYPE_CHECKING:
    from bytestag.tables.memory_stores import MemoryProviderTable
    from bytestag.tables.providers import ProviderTable

_logger = logging.getLogger(__name__)

SKEW_SECONDS = 2 * HOUR
PLACES_MAX = RUN_BYTES_MAX // PART_BYTES
PLACES_SURE = VALUE_BYTES_MAX // PART_BYTES
"""What each peer may have while there is room, however many others there are: a value's most."""
READ_AT_ONCE = 2 * PLACES_MAX
"""Places of the GETs that are answered from the tables at one go: 8 MiB."""
GIVES = MANY | LONG_RUNS
"""Capabilities of who serves."""
_Sized = tuple[m.Get | m.GetMany, int]
"""What is asked for, and the bytes of a unit that it is sent in."""


class _Found(NamedTuple):
    answer: m.Found | m.FoundMany
    pieces: list[memoryview]


class Serving:
    """The handler of a node's sessions."""

    def __init__(
        self,
        table: KVPTable,
        providers: ProviderTable | MemoryProviderTable,
        offers: OfferHandler,
        comparing: CompareHandler,
        path_cache: PathCache,
        config: Config,
        runtime: Runtime,
        parent: Parent,
    ) -> None:
        self._table = table
        self._providers = providers
        self._offers = offers
        self._comparing = comparing
        self._path_cache = path_cache
        self._config = config
        self._runtime = runtime
        self.upload_slot = FnTaskSlot(config.upload_slots, config.waiting_slots, parent)
        self._record_slot = FnTaskSlot(4, config.waiting_slots, parent)
        self._reader = Batcher(
            self._read, runtime.offload, parent, READ_AT_ONCE, lambda sized: _cost(sized[0])
        )
        self._shares: dict[FnTaskSlot, Counter[KeyBytes]] = {
            self.upload_slot: Counter(),
            self._record_slot: Counter(),
        }
        """How many places each peer has, running and waiting; a large value takes several."""
        self._gets: dict[tuple[Link, bytes], Task[None]] = {}
        """Those running and waiting, by transfer."""
        self.counters: Counter[str] = Counter()

    @property
    def slots(self) -> tuple[FnTaskSlot, ...]:
        """All slots, to be stopped with the node."""
        return self.upload_slot, self._record_slot

    def handle(self, link: Link, request: Request) -> None:
        """Take a request; called in the loop, returns at once."""
        match request:
            case m.Get() | m.GetMany():
                if not link.session.claim_transfer(request.id):
                    self.counters["transfer ID used twice"] += 1
                elif _places(request) > PLACES_MAX:
                    link.send(m.Absent(request.id, m.AbsentReason.RANGE))
                else:
                    self._begin(self.upload_slot, self._serve, link, request)
            case m.Cancel(id=id_):
                if (task := self._gets.get((link, id_))) is not None:
                    task.stop()  # it may not have had its turn yet
                link.session.cancel_upload(id_)
                link.upload_ended(id_)
            case m.Offer():
                self._offers.handle(link, request)
            case m.Provide():
                self._begin(self._record_slot, self._accept_record, link, request)
            case m.Prove():
                self._begin(self._record_slot, self._comparing.prove, link, request)
            case m.Compare():
                self._comparing.compare(link, request)
            case m.Names():
                self._begin(self._record_slot, self._comparing.names, link, request)

    def _begin(
        self,
        slot: FnTaskSlot,
        work: Callable[[Link, Any], Coroutine[Any, Any, None]],
        link: Link,
        request: m.Message,
    ) -> None:
        """Run a request in a slot, unless its asker has more than its share of the places."""
        share = self._shares[slot]
        places = _places(request)
        try:
            fair = _fair_share(slot, share, link.node_id)
            if share[link.node_id] + places > max(fair, PLACES_SURE):
                raise SlotFull("the peer has its share of the slot")
            if share.total() + places > slot.max_size + slot.waiting_max:
                raise SlotFull("all values together would take too much memory")
            task = slot.add_no_block(work, link, request)
        except LocalError:  # full, or the node is closing
            self.counters["busy"] += 1
            self._refuse(link, request)
            return
        if isinstance(request, m.Get | m.GetMany):
            name = link, request.id
            self._gets[name] = task
            task.observer.register(lambda _: self._gets.pop(name, None))
        share[link.node_id] += places
        task.observer.register(lambda _: self._give_back(share, link.node_id, places))

    def _give_back(self, share: Counter[KeyBytes], node_id: KeyBytes, places: int) -> None:
        share[node_id] -= places
        if not share[node_id]:
            del share[node_id]

    def _refuse(self, link: Link, request: m.Message) -> None:
        if isinstance(request, m.Get | m.GetMany):
            link.send(m.Absent(request.id, m.AbsentReason.BUSY))
        elif isinstance(request, m.Provide):
            link.send(m.Done(request.id, Verdict.BUSY))
        elif isinstance(request, m.Prove):
            link.send(m.Proof(request.id, []))
        elif isinstance(request, m.Names):
            link.send(m.Lacking(request.id, b""))

    # --- GET -------------------------------------------------------------------------------------

    async def _serve(self, link: Link, get: m.Get | m.GetMany) -> None:
        unit_bytes = link.session.unit_bytes
        try:
            found = await self._reader.do((get, unit_bytes))
        except StorageError as error:  # of a batch; it may be another's, and over soon
            _logger.warning("! cannot read what a peer asks for: %s", error)
            found = m.AbsentReason.BUSY
        if link.session.is_closed:
            return
        if isinstance(found, m.AbsentReason):
            link.send(m.Absent(get.id, found))
            return
        link.send(found.answer)
        ended = asyncio.Event()
        link.uploads_done[get.id] = ended.set
        link.session.upload(get.id, get.slot, found.pieces, unit_bytes)
        size = sum(map(len, found.pieces))
        del found  # the upload has the bytes for as long as it needs them
        try:
            seconds = self._config.transfer_idle_seconds + min(size, _largest(get)) / RATE_MIN
            async with asyncio.timeout(seconds):
                await ended.wait()
            self.counters["bytes uploaded"] += size
        except TimeoutError:
            self.counters["uploads given up"] += 1
        finally:
            link.session.cancel_upload(get.id)
            link.uploads_done.pop(get.id, None)

    def _read(self, gets: Sequence[_Sized]) -> list[_Found | m.AbsentReason]:
        """Answer several GETs (any thread)."""
        asked: list[Asked] = []
        for get, _ in gets:
            if isinstance(get, m.Get):
                asked.append(Asked(KeyBytes(get.key), get.index, get.selector))
            else:
                asked += [Asked(KeyBytes(w.key), w.index, w.selector, w.length) for w in get.wants]
        rows = iter(self._find(asked))
        return [
            _many(get, list(itertools.islice(rows, len(get.wants))), unit_bytes)
            if isinstance(get, m.GetMany)
            else _one(get, next(rows), unit_bytes)
            for get, unit_bytes in gets
        ]

    def _find(self, asked: Sequence[Asked]) -> list[ReadRow | None]:
        now = self._runtime.wall()
        found = [self._lent(ask, now) for ask in asked]
        left = [number for number, row in enumerate(found) if row is None]
        rows = self._table.read_asked([asked[number] for number in left], now)
        for number, row in zip(left, rows, strict=True):
            found[number] = row
        return found

    def _lent(self, asked: Asked, now: float) -> ReadRow | None:
        for record, value in self._path_cache.lent(asked.key):
            if asked.fits(record) and record.expires > now:
                return ReadRow(record, value, 0)
        return None

    # --- PROVIDE ---------------------------------------------------------------------------------

    async def _accept_record(self, link: Link, provide: m.Provide) -> None:
        try:
            verdict = await self._runtime.offload(self._store_record, link, provide.record)
        except BytestagError as error:
            _logger.debug("! provider record: %s", error)
            verdict = Verdict.BAD_DEPOSIT
        link.send(m.Done(provide.id, verdict))

    def _store_record(self, link: Link, packed: bytes) -> Verdict:
        """Only its own session may bring a record, and only from an address that it lists."""
        record = read_provider_record(packed, self._config.network_id)
        if record.node_id != link.node_id or link.address not in record.addresses:
            raise PacketError("a provider record from another node or address")
        now = self._runtime.wall()
        if not now < record.expires <= now + self._config.provider_seconds + SKEW_SECONDS:
            return Verdict.EXPIRED
        held = self._providers.put(
            record.keys,
            record.node_id,
            bytes([record.prefix_bits]) + record.prefix,
            record.seq,
            min(record.expires, int(now) + self._config.provider_seconds),
            pack_address(link.address),
            keys_digest(record.keys),
            now=now,
        )
        return Verdict.ACCEPTED if held else Verdict.HELD


def _fair_share(slot: FnTaskSlot, share: Counter[KeyBytes], node_id: KeyBytes) -> int:
    """Return how many places a peer may have: as many as each other, and never all."""
    peers = len(share) + (node_id not in share)
    return min(slot.max_size * 3 // 4, slot.max_size // peers)


def _places(request: m.Message) -> int:
    """Return how many places of a slot a request takes: one for each 256 KiB."""
    if isinstance(request, m.Get):
        return -(-request.length // PART_BYTES) or 1
    if isinstance(request, m.GetMany):
        return -(-sum(want.length for want in request.wants) // PART_BYTES)
    return 1


def _cost(request: m.Get | m.GetMany) -> int:
    """Return how many places what has to be read takes: of a GET perhaps more than is asked for."""
    return PLACES_SURE if isinstance(request, m.Get) else _places(request)


def _largest(request: m.Get | m.GetMany) -> int:
    """Return the bytes of the largest value that is asked for."""
    if isinstance(request, m.Get):
        return request.length
    return max(want.length for want in request.wants)


def _one(get: m.Get, row: ReadRow | None, unit_bytes: int) -> _Found | m.AbsentReason:
    if row is None:
        return m.AbsentReason.NOT_HELD
    record, value, others = row
    if get.offset > record.size:
        return m.AbsentReason.RANGE
    answer = m.Found(get.id, record.index, record.blake3, record.size, others, unit_bytes)
    return _Found(answer, _pieces([memoryview(value)[get.offset : get.offset + get.length]]))


def _many(
    get: m.GetMany, rows: Sequence[ReadRow | None], unit_bytes: int
) -> _Found | m.AbsentReason:
    held = [memoryview(row.value) for row in rows if row is not None]
    if not held:
        return m.AbsentReason.NOT_HELD
    bitmap = m.bitmap([row is not None for row in rows])
    return _Found(m.FoundMany(get.id, bitmap, unit_bytes), _pieces(held))


def _pieces(views: list[memoryview]) -> list[memoryview]:
    """Return what is to be sent; copied if it would keep much more than itself in memory."""
    size = sum(map(len, views))
    kept = {id(view.obj): len(view.obj) for view in views}  # type: ignore[arg-type]
    return views if 2 * size > sum(kept.values()) else [memoryview(b"".join(views))]
