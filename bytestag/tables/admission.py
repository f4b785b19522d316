"""Admission: who may come in, who has to make room, and what a renewal changes (pure).

The one set of rules behind every table that stores for others, so that the table in memory and the
one in a database cannot disagree. It knows sums and records, never bytes or SQL.

A kept value is never evicted before its time, so the quota is defended here, at the door: once what
cannot be evicted fills half of the quota, one depositor and one address group may each have at most
an eighth of it. Copies left along look-ups do not count towards that half: they yield to any keep.

What comes without a deposit is bounded by address group, and never stands in the way of what comes
with one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPRecord, Standing, Verdict

KEPT_SHARE_DIVISOR = 8
"""Above half full, one depositor or address group has at most this part of the quota."""
DISTANCE_BYTES = 8
"""Leading bytes of the XOR distance that order eviction; ties go to the oldest row."""


@dataclass(slots=True)
class Ledger:
    """The sums over a table's rows that decide about room; costs in bytes of quota."""

    rows: Counter[Standing] = field(default_factory=Counter)
    costs: Counter[Standing] = field(default_factory=Counter)
    kept_by_depositor: Counter[bytes] = field(default_factory=Counter)
    kept_by_group: Counter[str] = field(default_factory=Counter)
    replica_by_group: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Ledger:
        return Ledger(
            self.rows.copy(),
            self.costs.copy(),
            self.kept_by_depositor.copy(),
            self.kept_by_group.copy(),
            self.replica_by_group.copy(),
        )

    @property
    def used(self) -> int:
        return self.costs.total()

    @property
    def kept(self) -> int:
        """What cannot be evicted before its time."""
        return self.costs[Standing.KEPT] + self.costs[Standing.ORIGINAL]

    def add(self, record: KVPRecord) -> None:
        self._count(record, 1)

    def remove(self, record: KVPRecord) -> None:
        self._count(record, -1)

    def _count(self, record: KVPRecord, sign: int) -> None:
        self.rows[record.standing] += sign
        self.costs[record.standing] += sign * record.cost
        if record.standing is Standing.KEPT:
            self.kept_by_depositor[record.depositor] += sign * record.cost
            if record.group:
                self.kept_by_group[record.group] += sign * record.cost
        elif record.standing is Standing.REPLICA and record.group:
            self.replica_by_group[record.group] += sign * record.cost


def find(rows: Iterable[KVPRecord], record: KVPRecord) -> KVPRecord | None:
    """Return the row that ``record`` would renew; one without a BLAKE3 takes any."""
    for row in rows:
        if row.index == record.index and row.blake3.startswith(record.blake3):
            return row
    return None


def judge(
    record: KVPRecord,
    now: float,
    rows: list[KVPRecord],
    ledger: Ledger,
    max_size: int | None,
    can_evict: Callable[[Standing, int], bool],
) -> Verdict:
    """Decide about ``record``; ``rows`` are those of its key.

    ``can_evict`` says whether rows of at least some cost yield to a row of a given standing; it is
    asked only when the quota is reached.
    """
    if record.size > config.VALUE_BYTES_MAX:
        return Verdict.TOO_LARGE
    if record.expires <= now:
        return Verdict.EXPIRED
    held = find(rows, record)
    if held is not None:
        renewed = merge(held, record, now)
        return Verdict.HELD if _share_permits(renewed, held, ledger, max_size) else Verdict.FULL
    if not _key_permits(record, now, rows):
        return Verdict.PER_KEY
    if not _share_permits(record, None, ledger, max_size):
        return Verdict.FULL
    needed = room_needed(record, ledger, max_size)
    if needed > 0 and not (record.cost <= (max_size or 0) and can_evict(record.standing, needed)):
        return Verdict.FULL
    return Verdict.ACCEPTED


def room_needed(record: KVPRecord, ledger: Ledger, max_size: int | None) -> int:
    """Return how many bytes of quota must be evicted before ``record`` fits; ≤ 0 if it does."""
    return 0 if max_size is None else ledger.used + record.cost - max_size


def may_evict(newcomer: Standing, row: KVPRecord, now: float) -> bool:
    """Return whether ``row`` yields to a newcomer: of lower standing, or past its time."""
    return row.expires <= now or row.standing < min(newcomer, Standing.KEPT)


def eviction_class(row: KVPRecord, now: float) -> int:
    """Return who goes first: cached copies (0), the expired (1), replicas (2)."""
    if row.standing is Standing.CACHED:
        return 0
    return 1 if row.expires <= now else 2


def distance_rank(key: bytes, node_key: bytes) -> int:
    """Return the leading 63 bits of the XOR distance, which fit a signed database integer."""
    left = int.from_bytes(key[:DISTANCE_BYTES], "big")
    return (left ^ int.from_bytes(node_key[:DISTANCE_BYTES], "big")) >> 1


NODE_KEY_UNKNOWN = KeyBytes(bytes(20))


def merge(held: KVPRecord, record: KVPRecord, now: float) -> KVPRecord:
    """Return ``held`` as a second offer of the same bytes leaves it.

    It takes the later expiry, the higher standing and the deposit that lasts longer. What is past
    its time is replaced, and only a deposit (or this node itself) extends what a deposit keeps.
    """
    if held.expires <= now:
        return dataclasses.replace(record, blake3=held.blake3)
    renewed = held
    if record.standing > held.standing:
        renewed = dataclasses.replace(renewed, standing=record.standing)
    is_later = record.expires > held.expires
    if is_later and (held.standing < Standing.KEPT or record.standing >= Standing.KEPT):
        renewed = dataclasses.replace(
            renewed, timestamp=record.timestamp, time_to_live=record.time_to_live
        )
    if record.deposit and (is_later or not held.deposit):
        renewed = dataclasses.replace(
            renewed, deposit=record.deposit, depositor=record.depositor, group=record.group
        )
    return dataclasses.replace(renewed, last_update=max(held.last_update, record.last_update))


def displaced(record: KVPRecord, now: float, rows: list[KVPRecord]) -> KVPRecord | None:
    """Return the row of its key that yields its place to a kept ``record``, if one has to.

    It is the oldest without a deposit; ``rows`` are those of the key, oldest first.
    """
    if _is_free(record) or record.standing is not Standing.KEPT:
        return None
    live = [row for row in rows if row.expires > now]
    if len(live) < config.VALUES_PER_KEY_MAX:
        return None
    return next((row for row in live if row.standing < Standing.KEPT), None)


def _is_free(record: KVPRecord) -> bool:
    """What proves itself and what is ours does not compete for the places of a key."""
    return record.key == record.index or record.standing is Standing.ORIGINAL


def _key_permits(record: KVPRecord, now: float, rows: list[KVPRecord]) -> bool:
    """Bound the values of a key that anybody may fill, in all and from one source."""
    if _is_free(record):
        return True
    live = [row for row in rows if row.expires > now]
    of_source = sum(_source(row) == _source(record) for row in live)
    if of_source >= config.VALUES_PER_KEY_AND_DEPOSITOR_MAX:
        return False
    return len(live) < config.VALUES_PER_KEY_MAX or displaced(record, now, rows) is not None


def _source(row: KVPRecord) -> tuple[Standing, bytes | str]:
    """Say who a row counts against: its depositor, or the address group it came from."""
    if row.standing is Standing.KEPT:
        return Standing.KEPT, row.depositor
    return (Standing.ORIGINAL, "") if row.is_original else (Standing.REPLICA, row.group)


def _share_permits(
    record: KVPRecord, replaced: KVPRecord | None, ledger: Ledger, max_size: int | None
) -> bool:
    if max_size is None:
        return True
    if record.standing is Standing.REPLICA:
        return _replica_share_permits(record, replaced, ledger, max_size)
    if record.standing is not Standing.KEPT:
        return True
    before = replaced if replaced is not None and replaced.standing is Standing.KEPT else None
    is_same_depositor = before is not None and before.depositor == record.depositor
    is_same_group = before is not None and before.group == record.group
    if is_same_depositor and is_same_group:
        return True  # it has its place; renewing it takes nothing more
    if 2 * (ledger.kept + (record.cost if before is None else 0)) <= max_size:
        return True
    share = max_size // KEPT_SHARE_DIVISOR
    of_depositor = ledger.kept_by_depositor[record.depositor] + record.cost
    of_group = ledger.kept_by_group[record.group] + record.cost
    return (is_same_depositor or of_depositor <= share) and (
        is_same_group or not record.group or of_group <= share
    )


def _replica_share_permits(
    record: KVPRecord, replaced: KVPRecord | None, ledger: Ledger, max_size: int
) -> bool:
    if not record.group:
        return True
    if replaced is not None and (replaced.standing, replaced.group) == (
        Standing.REPLICA,
        record.group,
    ):
        return True  # it has its place
    if 2 * (ledger.kept + ledger.costs[Standing.REPLICA] + record.cost) <= max_size:
        return True
    of_group = ledger.kept_by_group[record.group] + ledger.replica_by_group[record.group]
    return of_group + record.cost <= max_size // KEPT_SHARE_DIVISOR
