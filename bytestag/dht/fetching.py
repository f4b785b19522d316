"""Fetcher: gets one value, from here, from those who serve the share, or from the donors near its
key; nothing leaves it that was not compared with its hashes (shell).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bytestag.config import INLINE_VALUE_BYTES_MAX, VALUE_BYTES_MAX, Config
from bytestag.dht.caching import PathCache
from bytestag.dht.network import DHTNetwork, Sources
from bytestag.dht.regions import RegionMap
from bytestag.dht.source import Source
from bytestag.dht.source_book import SourceBook
from bytestag.errors import BytestagError, Corrupt, NotFound, RemoteError, Timeout, Unreachable
from bytestag.events.line import Line
from bytestag.events.runtime import Runtime
from bytestag.events.tasks import Parent, Task
from bytestag.events.together import together
from bytestag.hashing import Buffer, blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.conversation import Fetched
from bytestag.network.early import Early
from bytestag.network.links import Busy, Link
from bytestag.network.packets import Held
from bytestag.tables.base import KVPTable

_logger = logging.getLogger(__name__)

NEAR_DONORS = 4
ROUNDS_MAX = 3
BUSY_SECONDS = 0.1
OF_THE_NETWORK = (NotFound, Corrupt, Timeout, Unreachable, RemoteError)
"""Why a value may not be had; no reason not to keep others that are on their way."""
Take = Callable[[bytes], Awaitable[bool]]
"""Says whether bytes are those that were wanted, and may keep them."""
TakeMany = Callable[[Sequence[tuple[int, Buffer]]], Awaitable[set[int]]]
"""The same for several, by their numbers: returns those that were right."""
NO_PEER_HINT = "give a --known-node host:port, or check the network"
NO_HOLDER_HINT = "the publisher must run `bytestag share` until it says that it is safe to leave"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value by its key and whatever else is known of it; empty is unknown."""

    key: KeyBytes
    index: bytes = b""
    blake3: bytes = b""
    size: int = VALUE_BYTES_MAX

    @classmethod
    def content(cls, sha1: bytes, blake3: bytes, size: int) -> Wanted:
        """A value whose key is its own SHA-1, and of which all is known but perhaps the BLAKE3."""
        return cls(KeyBytes(sha1), sha1, blake3, size)

    @property
    def is_known(self) -> bool:
        """Whether there is a hash to compare with."""
        return bool(self.index or self.blake3)

    def is_satisfied_by(self, value: Buffer) -> bool:
        """Whether bytes are what was wanted, as far as that is known."""
        if self.blake3:
            return blake3(value) == self.blake3
        return not self.index or sha1(value) == self.index


@dataclass(slots=True)
class FetchCounts:
    """What a fetch did, for progress and for what an error says."""

    bytes_received: int = 0
    asked: int = 0
    answered: int = 0
    holders: int = 0
    wrong: int = 0
    by_source: Counter[bytes] = field(default_factory=Counter)


class Fetcher:
    """Fetches the values of one link."""

    def __init__(
        self,
        network: DHTNetwork,
        table: KVPTable,
        config: Config,
        runtime: Runtime,
        parent: Parent,
        path_cache: PathCache | None = None,
    ) -> None:
        self._network = network
        self._table = table
        self._has_values = len(table) > 0
        self._config = config
        self._runtime = runtime
        self._regions = RegionMap()
        self.sources = SourceBook(network, runtime, parent)
        self._line = Line(lambda: self.sources.most)
        """Values that are fetched at one time, so that none waits long at a server."""
        self._path_cache = path_cache
        self._looked_up: dict[KeyBytes, Sources] = {}
        self.counts = FetchCounts()

    def close(self) -> None:
        """Stop looking for sources; idempotent."""
        self.sources.close()

    async def fetch(self, wanted: Wanted, take: Take | None = None) -> bytes:
        """Return the verified bytes of a value.

        ``take`` is given the bytes and says whether they are right, in place of the comparison
        that is made otherwise; it may keep them while it has them.

        Raises:
            NotFound: peers answered, none holds it.
            Unreachable: no peer answered.
            Timeout: holders are known, but none delivered.
            Corrupt: holders delivered, but only wrong bytes.
        """
        async with self._line.place():
            return await self._fetch(wanted, take)

    async def fetch_many(self, wanted: Sequence[Wanted], take: TakeMany) -> set[int]:
        """Ask those who serve all that the link names for several values at one go.

        Each is asked for as many as it brings in time, and as many are asked as that takes.
        Returns the numbers of those that came and were taken; the others are to be fetched one by
        one. Their sizes must be known, and be 4 MiB together at most.
        """
        taken = await self._take_here(wanted, take) if self._has_values else set()
        left = deque(number for number in range(len(wanted)) if number not in taken)
        tried: set[bytes] = set()

        async def ask(*, goes_on: bool) -> None:
            while left:
                async with self._line.place(len(left), goes_on=goes_on) as place:
                    source = self.sources.free_server(tried)
                    if source is None:
                        place.resize(1)  # who can go on goes first
                        source = await self.sources.server_with_room(tried)
                    if source is None or not left:
                        return
                    goes_on = True
                    numbers = _first_of(left, wanted, source)
                    place.resize(len(numbers))
                    if left:
                        tasks.add(Task.wrap(ask, goes_on=True).start(tasks.parent))
                    try:
                        values = await self._get_many(source, [wanted[n] for n in numbers])
                    except BytestagError as error:
                        _logger.debug("- %s", error)
                        if not isinstance(error, Busy) or len(numbers) == 1:  # else it had no room
                            tried.add(source.contact.id)  # for so many
                        left.extendleft(reversed(numbers))
                        continue
                    taken.update(await self._take_many(source, values, numbers, take))
                    return

        async with together() as tasks:
            tasks.add(Task.wrap(ask, goes_on=False).start(tasks.parent))
        return taken

    async def _take_here(self, wanted: Sequence[Wanted], take: TakeMany) -> set[int]:
        def read() -> list[tuple[int, bytes]]:
            values = [self._read_here(want) for want in wanted]
            return [
                (n, v) for n, v in enumerate(values) if v is not None and len(v) == wanted[n].size
            ]

        return await take(here) if (here := await self._runtime.offload(read)) else set()

    async def _take_many(
        self,
        source: Source,
        values: Sequence[memoryview | None],
        numbers: Sequence[int],
        take: TakeMany,
    ) -> set[int]:
        came = {n: value for n, value in zip(numbers, values, strict=True) if value is not None}
        taken = await take(list(came.items()))
        for number in taken:
            self._count(source, came[number])
        if len(taken) < len(came):
            self.counts.wrong += len(came) - len(taken)
            self.sources.mistrust(source, Corrupt(f"{source.contact!r} sent wrong bytes"))
        return taken

    async def _fetch(self, wanted: Wanted, take: Take | None) -> bytes:
        if self._has_values:
            value = await self._runtime.offload(self._read_here, wanted)
            if value is not None and (take is None or await take(value)):
                return value
        tried: set[bytes] = set()
        errors: list[BytestagError] = []
        async for source in self._candidates(wanted, tried, errors):
            if isinstance(source, bytes):
                if take is None or await take(source):
                    return source
                continue
            tried.add(source.contact.id)
            try:
                value = await self._get(source, wanted)
            except BytestagError as error:
                errors.append(error)
                continue
            if wanted.is_satisfied_by(value) if take is None else await take(value):
                self._count(source, value)
                self._leave(wanted, value)
                return value
            self.counts.wrong += 1
            errors.append(Corrupt(f"{source.contact!r} sent wrong bytes"))
            self.sources.mistrust(source, errors[-1])
        raise self._failure(wanted, errors)

    def _leave(self, wanted: Wanted, value: bytes) -> None:
        """Leave a copy near the key, if a look-up showed that the donor nearest to it lacks it."""
        sources = self._looked_up.pop(wanted.key, None)
        if sources is not None and self._path_cache is not None:
            self._path_cache.leave(sources, value)

    async def look_up(
        self, key: KeyBytes, is_enough: Callable[[Sources], bool] = lambda sources: False
    ) -> Sources:
        """Ask the network about a key, and learn who serves it and who is near it."""
        sources = await self._network.find_value(key, is_enough)
        if not is_enough(sources):  # or the look-up is not finished
            self._regions.learn(key, sources.contacts, is_complete=sources.is_complete)
        return self._learn(sources)

    def _learn(self, sources: Sources) -> Sources:
        key = sources.key
        if self._path_cache is not None:
            self._looked_up[key] = sources
        self.counts.asked += sources.asked
        self.counts.answered += sources.answered
        for node_id, addresses in self._network.chosen_providers(sources):
            self.sources.probe(node_id, addresses)
        return sources

    # --- Whom to ask -----------------------------------------------------------------------------

    async def _candidates(
        self, wanted: Wanted, tried: set[bytes], errors: list[BytestagError]
    ) -> AsyncIterator[Source | bytes]:
        """Yield sources to try: servers, donors near the key, then whom a look-up names.

        A small value that came inside a reply and fits is yielded itself.
        """

        def is_enough(sources: Sources) -> bool:
            """Whether a small value came inside a reply; a large one needs to know its region."""
            if not wanted.is_known or INLINE_VALUE_BYTES_MAX < wanted.size < VALUE_BYTES_MAX:
                return False
            return any(map(wanted.is_satisfied_by, sources.values))

        book, failed = self.sources, set[bytes]()
        for _ in range(ROUNDS_MAX):
            while (source := await book.server_with_room(tried)) is not None:
                yield source
            near = self._regions.closest(wanted.key, 1, lambda c: c.is_donor) or []
            for source in book.by_load(near[:NEAR_DONORS], tried):
                yield source
            before = book.servers
            sources = await self.look_up(wanted.key, is_enough)
            is_in_doubt = sources.is_empty or (failed and not _is_any_busy(errors))
            if sources.answered and is_in_doubt and not sources.is_complete:
                found = await self._network.find_value_disjointly(wanted.key, without=failed)
                sources = self._learn(found)
            holders = [c for c, held in sources.holders if _may_hold(held, wanted)]
            self.counts.holders += len(holders)
            for value in sources.values:  # small ones come inside the replies
                if wanted.is_known and wanted.is_satisfied_by(value):
                    yield value
            usable = book.by_load(holders, set())
            if not usable:
                errors += [f for c in holders if (f := book.source(c).fault)]
            for source in usable:
                yield source
            failed.update(source.contact.id for source in usable)
            if not usable:
                await book.probes_ended()  # only they can help now
                if book.servers == before:
                    break
        while (source := await book.server_with_room(tried, None)) is not None:
            yield source  # there is nobody else

    # --- Getting ---------------------------------------------------------------------------------

    def _read_here(self, wanted: Wanted) -> bytes | None:
        for record in self._table.records_by_key(wanted.key):
            if wanted.index in (b"", record.index) and record.blake3.startswith(wanted.blake3):
                try:
                    return self._table.read_row(record)
                except KeyError:
                    continue
        return None

    async def _get(self, source: Source, wanted: Wanted) -> bytes:
        """Get what one source says is the value; who fails is not asked again for a while."""
        early = self._network.sessions.early(
            wanted.key, wanted.index or None, wanted.blake3[:8], wanted.size
        )
        async with self.sources.asking(source, early=early) as link:
            fetched = await self._get_patiently(link, wanted, early)
        return bytes(fetched.value)

    async def _get_many(
        self, source: Source, wanted: Sequence[Wanted]
    ) -> Sequence[memoryview | None]:
        wants = [m.Want(w.key, w.index or None, w.blake3[:8], w.size) for w in wanted]
        async with self.sources.asking(source, len(wants)) as link:
            source.run_bytes_max = link.run_bytes_max
            if not link.run_bytes_max:
                raise NotFound("the server gives one value at a time")
            seconds = self._config.transfer_idle_seconds
            return await link.get_many(wants, idle_seconds=seconds)

    def _count(self, source: Source, value: Buffer) -> None:
        self.counts.bytes_received += len(value)
        self.counts.by_source[source.contact.id] += len(value)

    async def _get_patiently(self, link: Link, wanted: Wanted, early: Early | None) -> Fetched:
        for attempt in range(ROUNDS_MAX):
            try:
                return await link.get(
                    wanted.key,
                    wanted.index or None,
                    wanted.blake3[:8],
                    length=wanted.size,
                    idle_seconds=self._config.transfer_idle_seconds,
                    early=early,
                )
            except Busy:
                await asyncio.sleep(BUSY_SECONDS * (attempt + 1))
        raise Busy("the holder stayed busy")

    # --- Failing ---------------------------------------------------------------------------------

    def _failure(self, wanted: Wanted, errors: list[BytestagError]) -> BytestagError:
        counts = self.counts
        asked = f"asked {counts.asked}, {counts.answered} answered"
        name = wanted.key.base16[:12]
        if any(isinstance(error, Corrupt) for error in errors):
            return Corrupt(f"only wrong bytes for {name}… ({asked})", hint="try again later")
        if any(not isinstance(error, NotFound) for error in errors):
            return Timeout(
                f"holders of {name}… are known, but none delivered it ({asked})",
                hint="try again; what has arrived is kept",
            )
        if not counts.answered and not errors:
            return Unreachable(
                f"no peer answered while looking for {name}… (asked {counts.asked})",
                hint=NO_PEER_HINT,
            )
        return NotFound(
            f"nobody holds {name}… ({asked})",
            hint=NO_HOLDER_HINT,
        )


def _is_any_busy(errors: Iterable[BytestagError]) -> bool:
    return any(isinstance(error, Busy) for error in errors)


def _first_of(left: deque[int], wanted: Sequence[Wanted], source: Source) -> list[int]:
    """Take the first of what is left that a source may be asked for at one go."""
    numbers = [left.popleft()]
    room = source.run_bytes_max - wanted[numbers[0]].size
    while left and len(numbers) < source.share and wanted[left[0]].size <= room:
        numbers.append(left.popleft())
        room -= wanted[numbers[-1]].size
    return numbers


def _may_hold(held: Iterable[Held], wanted: Wanted) -> bool:
    return any(
        wanted.index in (b"", row.index) and row.blake3.startswith(wanted.blake3) for row in held
    )
