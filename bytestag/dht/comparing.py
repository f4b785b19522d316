"""CompareHandler: tells neighbours which of the rows they name are missing here (shell)."""

from __future__ import annotations

from bytestag.dht.claims import Claims, Prefix, lacking, prefix_of, range_of, row_name
from bytestag.errors import PacketError
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network.links import Link
from bytestag.tables.base import KVPID, KVPTable

ROWS_AT_ONCE = 1024
ROWS_COMPARED_MAX = 64 * 1024
"""Rows read for one NAMES: who holds more under a prefix says of the rest that it is lacking,
and HELD when that is offered."""


class CompareHandler:
    """Answers COMPARE and NAMES from a table."""

    def __init__(self, table: KVPTable, claims: Claims, runtime: Runtime) -> None:
        self._table = table
        self._claims = claims
        self._runtime = runtime
        table.value_changed_observer.register(self._on_change)

    def _on_change(self, kvpid: KVPID, is_added: bool) -> None:
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
        bitmap = await self._runtime.offload(self._take_names, link.node_id, names)
        link.send(m.Lacking(names.id, bitmap))

    def _take_names(self, node_id: bytes, named: m.Names) -> bytes:
        prefix = _checked((named.prefix_bits, named.prefix))
        bitmap = lacking(named.names, self._names_held(prefix) if named.names else set())
        now = self._runtime.monotonic()
        self._claims.learn(node_id, prefix, named.names, now, holds_all=not any(bitmap))
        return bitmap

    def _names_held(self, prefix: Prefix) -> set[bytes]:
        low, end = range_of(prefix)
        held: set[bytes] = set()
        now = self._runtime.wall()
        left = ROWS_COMPARED_MAX
        while left > 0 and (rows := self._table.records_between(low, end, ROWS_AT_ONCE)):
            held.update(row_name(row) for row in rows if row.expires > now)
            low = rows[-1].key.integer + 1
            left -= len(rows)
        return held


def _checked(prefix: Prefix) -> Prefix:
    """Raises PacketError for a prefix that has more bits than it says."""
    if prefix_of(KeyBytes(prefix[1] + bytes(12)), prefix[0]) != prefix:
        raise PacketError("malformed prefix")
    return prefix
