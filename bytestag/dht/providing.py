"""Announcer: tells the nodes near our keys that we serve them, and again in time (shell).

The keys are taken in their order, so that one walk over the key space allots all of them: each
region is explored once, and every holder in it gets all its keys in few records. What a holder has
already is renewed by digest, in one datagram.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bytestag.config import Config
from bytestag.crypto import providers as p
from bytestag.dht.neighbours import Neighbours
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import ANSWER_SECONDS, COUNTED
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError, Timeout
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.tasks import Parent, Task
from bytestag.keys import BIT_SIZE, KeyBytes
from bytestag.network import messages as m

_logger = logging.getLogger(__name__)

HOLDERS_AT_ONCE = 16
BIN_KEYS_MAX = 2000
"""Keys are allotted in bins of at most about as many; a record has at most 1,000."""
BIN_BITS_MAX = 32
TOUCHED_BITS = 16


class KeySource(Protocol):
    """The keys that a node serves, in order."""

    def __len__(self) -> int: ...

    def between(self, low: int, end: int) -> Sequence[KeyBytes]:
        """Return the keys of a range, ascending (blocking)."""


class SortedKeys:
    """A key source in memory."""

    def __init__(self, keys: Iterable[KeyBytes]) -> None:
        self._keys = sorted(set(keys))

    def __len__(self) -> int:
        return len(self._keys)

    def between(self, low: int, end: int) -> Sequence[KeyBytes]:
        """Return the keys of a range, ascending."""
        first, last = (
            bisect_left(self._keys, bound, key=lambda key: int.from_bytes(key, "big"))
            for bound in (low, end)
        )
        return self._keys[first:last]


class Touched:
    """Where in the key space keys came or went, to a 65,536th of it (pure)."""

    def __init__(self) -> None:
        self._prefixes: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    def add(self, key: bytes) -> None:
        """Note a key."""
        self._prefixes.add(int.from_bytes(key[: TOUCHED_BITS // 8], "big"))

    def update(self, other: Touched) -> None:
        """Note what another one has."""
        self._prefixes |= other._prefixes

    def bins(self, bits: int) -> list[int]:
        """Return the bins that the keys are in, ascending, where a bin has so many bits."""
        finer = max(bits - TOUCHED_BITS, 0)
        whole = {prefix >> max(TOUCHED_BITS - bits, 0) for prefix in self._prefixes}
        return [n for at in sorted(whole) for n in range(at << finer, (at + 1) << finer)]


@dataclass(slots=True)
class Announced:
    """What one announcement did; a record is counted once for each holder."""

    keys: int = 0
    renewed: int = 0
    """Records that their holder had already."""
    accepted: int = 0
    """Records that were brought and taken."""
    refused: int = 0
    unreachable: int = 0
    """Holders that did not answer."""


@dataclass(slots=True)
class _Holder:
    """A node and the records that are for it."""

    contact: Contact
    records: list[tuple[int, Sequence[KeyBytes]]] = field(default_factory=list)
    """(prefix bits, keys ascending) of each."""
    bins: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Sweep:
    """One walk over the key space, or over parts of it."""

    near: Neighbours
    bits: int
    is_renewal: bool
    is_thorough: bool
    done: Announced
    failed: set[int] = field(default_factory=set)
    """Bins of which a holder did not answer."""
    waiting: dict[bytes, _Holder] = field(default_factory=dict)
    bringing: list[Task[None]] = field(default_factory=list)


class Announcer:
    """Announces what this node serves."""

    def __init__(
        self,
        network: DHTNetwork,
        config: Config,
        runtime: Runtime,
        parent: Parent,
        next_seq: Callable[[], int],
    ) -> None:
        self._network = network
        self._config = config
        self._runtime = runtime
        self._next_seq = next_seq
        self.slot = FnTaskSlot(HOLDERS_AT_ONCE, HOLDERS_AT_ONCE, parent)

    async def announce(
        self,
        keys: KeySource,
        *,
        is_renewal: bool = False,
        part: tuple[float, float] = (0.0, 1.0),
        touched: Touched | None = None,
    ) -> Announced:
        """Bring records of all keys that we serve to the nodes near them.

        ``part`` is a part of the key space; its ends lie between 0 and 1. With ``touched`` only
        bins that it touches are gone through. At each holder a new record replaces the old one of
        its prefix. With ``is_renewal`` most holders are expected to have theirs: nobody is asked
        first whether he is there, and where one is not, his keys go to whoever took his place.
        """
        done = Announced()
        if not self._network.protocol.is_reachable or not len(keys):
            return done
        bits = min(max(len(keys) // BIN_KEYS_MAX, 0).bit_length(), BIN_BITS_MAX)
        sweep = _Sweep(Neighbours(self._network), bits, is_renewal, not is_renewal, done)
        first, end = (math.ceil(bound * (1 << bits)) for bound in part)
        bins = range(first, end) if touched is None else touched.bins(bits)
        done.keys = await self._go_through(keys, bins, sweep)
        if is_renewal and sweep.failed:
            again = _Sweep(Neighbours(self._network), bits, is_renewal, True, done)
            await self._go_through(keys, sorted(sweep.failed), again)
        return done

    async def _go_through(self, keys: KeySource, bins: Iterable[int], sweep: _Sweep) -> int:
        """Bring the keys of bins to their holders; return how many keys there were."""
        count = 0
        size = 1 << (BIT_SIZE - sweep.bits)
        for number in bins:
            low = number * size
            chosen = await self._runtime.offload(keys.between, low, low + size)
            count += len(chosen)
            await self._allot(number, chosen, sweep)
            for holder in [h for h in sweep.waiting.values() if h.bins[-1] < number - 1]:
                await self._send(holder, sweep)
        for holder in list(sweep.waiting.values()):
            await self._send(holder, sweep)
        for task in sweep.bringing:
            await task
        return count

    async def _allot(self, number: int, keys: Sequence[KeyBytes], sweep: _Sweep) -> None:
        """Note for each of the nodes closest to the keys of a bin which are for it."""
        by_holder: dict[bytes, tuple[Contact, list[KeyBytes]]] = {}
        copies = self._config.record_copies
        for key in keys:
            for contact in await sweep.near.nodes(key, copies, is_thorough=sweep.is_thorough):
                by_holder.setdefault(contact.id, (contact, []))[1].append(key)
        for contact, chosen in by_holder.values():
            holder = sweep.waiting.setdefault(contact.id, _Holder(contact))
            holder.records += p.cut(chosen, sweep.bits)
            holder.bins.append(number)

    async def _send(self, holder: _Holder, sweep: _Sweep) -> None:
        """Bring a holder what has gathered for it; the walk is past its neighbourhood."""
        del sweep.waiting[holder.contact.id]
        sweep.bringing = [task for task in sweep.bringing if not task.is_finished]
        sweep.bringing.append(await self.slot.add(self._bring, holder, sweep))

    async def _bring(self, holder: _Holder, sweep: _Sweep) -> None:
        records = holder.records
        try:
            if sweep.is_renewal:
                records = await self._renew(holder, sweep)
            for bits, keys in records:
                if await self._provide(holder.contact, bits, keys):
                    sweep.done.accepted += 1
                else:
                    sweep.done.refused += 1
        except BytestagError as error:
            _logger.debug("! provider records to %r: %s", holder.contact, error)
            sweep.done.unreachable += 1
            sweep.failed.update(holder.bins)

    async def _renew(self, holder: _Holder, sweep: _Sweep) -> list[tuple[int, Sequence[KeyBytes]]]:
        """Renew what a holder has; return the records that it has not, or not like this.

        Who answered a look-up and does not answer this does not know renewals.
        """
        left: list[tuple[int, Sequence[KeyBytes]]] = []
        for start in range(0, len(holder.records), p.RENEWED_MAX):
            records = holder.records[start : start + p.RENEWED_MAX]
            try:
                flags = await self._ask_to_renew(holder.contact, records)
            except Timeout:
                if not sweep.is_thorough:
                    raise
                return [*left, *holder.records[start:]]
            for record, is_renewed in zip(records, flags, strict=True):
                if is_renewed:
                    sweep.done.renewed += 1
                else:
                    left.append(record)
        return left

    async def _ask_to_renew(
        self, contact: Contact, records: Sequence[tuple[int, Sequence[KeyBytes]]]
    ) -> bytes:
        protocol = self._network.protocol
        named = [(bits, p.masked(keys[0], bits), p.keys_digest(keys)) for bits, keys in records]
        renewal = p.make_renewal(
            protocol.identity,
            self._config.network_id,
            contact.id,
            self._next_seq(),
            self._runtime.wall() + self._config.provider_seconds,
            named,
        )
        answer = await protocol.ask(contact, "bt_renew", renewal=renewal)
        return answer.reply.result[: len(records)].ljust(len(records), b"\0")

    async def _provide(self, contact: Contact, bits: int, keys: Sequence[KeyBytes]) -> bool:
        """Bring one record in a session; return whether it was taken."""
        record = p.make_provider_record(
            self._network.protocol.identity,
            self._config.network_id,
            self._next_seq(),
            self._runtime.wall() + self._config.provider_seconds,
            self._network.protocol.reachability.addresses,
            keys,
            prefix_bits=bits,
        )
        link = await self._network.link_to(contact)
        message = m.Provide(self._runtime.token_bytes(20), record.packed)
        done = await link.ask(message, ANSWER_SECONDS)
        return isinstance(done, m.Done) and done.verdict in COUNTED
