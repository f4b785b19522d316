"""CompareHandler: tells neighbours which of the rows they name are missing here (shell).

They ask in a session or, of a few rows, in the clear.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from bytestag.dht.claims import Claims, Prefix, lacking, prefix_of, range_of, row_name
from bytestag.errors import PacketError
from bytestag.events.runtime import Runtime
from bytestag.hashing import blake3_keyed
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import Link
from bytestag.network.packets import NOT_HELD, Comparison, Row, Sample
from bytestag.recent import Recent
from bytestag.tables.base import KVPID, KVPTable

ROWS_AT_ONCE = 1024
ROWS_COMPARED_MAX = 64 * 1024
"""Rows read for one NAMES: who holds more under a prefix says of the rest that it is lacking,
and HELD when that is offered."""
REGIONS_REMEMBERED_MAX = 64
NAMES_REMEMBERED_MAX = 4096
"""Of one region: several times what one NAMES tells of."""


@dataclass(slots=True)
class _Held:
    """The names of the rows of a region, and when the first of them expires (wall seconds)."""

    names: set[bytes]
    until: float
    is_cut: bool = False
    """Whether there are more rows than were read."""


class CompareHandler:
    """Answers COMPARE, NAMES and PROVE from a table."""

    def __init__(self, held: KVPTable, every: KVPTable, claims: Claims, runtime: Runtime) -> None:
        """``held`` is what is held for others; of ``every`` value it can be proved that it is."""
        self._table = held
        self._every = every
        self._claims = claims
        self._runtime = runtime
        self._lock = threading.Lock()
        self._held: Recent[Prefix, _Held] = Recent(REGIONS_REMEMBERED_MAX)
        self._changes = 0
        held.value_changed_observer.register(self._on_change)

    def _on_change(self, kvpid: KVPID, is_added: bool) -> None:
        """Forget what was remembered of the rows (any thread)."""
        with self._lock:
            self._changes += 1
            self._held.clear()
        if not is_added:
            self._claims.row_went(kvpid.key)

    def compare(self, link: Link, compare: m.Compare) -> None:
        """Answer at once: nothing is read for it."""
        prefix = _checked((compare.prefix_bits, compare.prefix))
        now = self._runtime.monotonic()
        is_same = self._claims.confirm(link.node_id, prefix, compare.digest, now)
        link.send(m.Compared(compare.id, is_same))

    async def names(self, link: Link, names: m.Names) -> None:
        """Say which rows are lacking."""
        bitmap = await self._runtime.offload(self.lacking, names, link.node_id)
        link.send(m.Lacking(names.id, bitmap))

    async def prove(self, link: Link, prove: m.Prove) -> None:
        """Show that we hold rows."""
        proofs = await self._runtime.offload(
            lambda: [self._proof(prove.nonce, row) for row in prove.rows]
        )
        link.send(m.Proof(prove.id, proofs))

    def lacking(self, named: m.Names, node_id: bytes) -> bytes:
        """Return the bitmap of the rows that are lacking (any thread).

        ``node_id`` is who named them, and claims to hold them.

        Raises:
            PacketError: malformed prefix.
        """
        prefix = _checked((named.prefix_bits, named.prefix))
        held = self._names_held(prefix, ROWS_COMPARED_MAX) if named.names else set()
        return self._learn(node_id, prefix, named.names, held or set())

    def lacking_of_few(self, named: Comparison, node_id: bytes) -> bytes:
        """Return the same of few rows, nothing if there are many here under the prefix.

        What costs the asker a datagram must not cost us more than a page of the table.
        """
        prefix = _checked((named.prefix_bits, named.prefix))
        held = self._names_held(prefix, ROWS_AT_ONCE)
        return b"" if held is None else self._learn(node_id, prefix, named.names, held)

    def _learn(self, node_id: bytes, prefix: Prefix, names: bytes, held: set[bytes]) -> bytes:
        bitmap = lacking(names, held)
        now = self._runtime.monotonic()
        self._claims.learn(node_id, prefix, names, now, holds_all=not any(bitmap))
        return bitmap

    def proof(self, sample: Sample) -> bytes:
        """Return the proof of one row, or NOT_HELD (any thread)."""
        return self._proof(sample.nonce, sample.row) or NOT_HELD

    def _proof(self, nonce: bytes, row: Row) -> bytes | None:
        try:
            value = self._every.read(KVPID(KeyBytes(row.key), KeyBytes(row.index)), row.blake3)
        except KeyError:
            return None
        return blake3_keyed(nonce, value)

    def _names_held(self, prefix: Prefix, most: int) -> set[bytes] | None:
        """Return the names of our rows; remembered while no row comes or goes.

        All the holders of a region ask in the same hour. None if there are more than a page of
        them, and no more may be read.
        """
        now = self._runtime.wall()
        with self._lock:
            known = self._held.get(prefix)
        if known is not None and now < known.until:
            return known.names
        changes = self._changes
        known = self._read_names(prefix, now, most)
        if known.is_cut and most == ROWS_AT_ONCE:
            return None
        with self._lock:
            if changes == self._changes and len(known.names) <= NAMES_REMEMBERED_MAX:
                self._held.put(prefix, known)
        return known.names

    def _read_names(self, prefix: Prefix, now: float, most: int) -> _Held:
        low, end = range_of(prefix)
        held = _Held(set(), math.inf)
        left = most
        while rows := self._table.records_between(low, end, ROWS_AT_ONCE):
            if left <= 0:
                held.is_cut = True
                break
            for row in rows:
                if row.expires > now:
                    held.names.add(row_name(row))
                    held.until = min(held.until, row.expires)
            low = rows[-1].key.integer + 1
            left -= len(rows)
        return held


def _checked(prefix: Prefix) -> Prefix:
    """Raises PacketError for a prefix that has more bits than it says."""
    if prefix_of(KeyBytes(prefix[1] + bytes(12)), prefix[0]) != prefix:
        raise PacketError("malformed prefix")
    return prefix
