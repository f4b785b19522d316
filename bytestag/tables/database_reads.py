"""What reading and writing ask of ``records`` and ``totals`` alike (shell around SQL)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables import admission
from bytestag.tables.base import KVPID, KVPRecord, Standing
from bytestag.tables.schema import records, totals

_c = records.c
KEY_END = 2**160
COLUMNS = (
    _c.key,
    _c.sha1,
    _c.blake3,
    _c.size,
    _c.timestamp,
    _c.time_to_live,
    _c.last_update,
    _c.standing,
    _c.deposit,
    _c.depositor,
    _c.address_group,
)


def to_record(row: Any) -> KVPRecord:
    """Return the record of a row that begins with :data:`COLUMNS`."""
    return KVPRecord(
        KVPID(KeyBytes(row[0]), KeyBytes(row[1])),
        row[2],
        row[3],
        row[4],
        row[5],
        last_update=row[6],
        standing=Standing(row[7]),
        deposit=row[8],
        depositor=row[9],
        group=row[10],
    )


_ROWS_OF_KEY = sa.select(*COLUMNS).where(_c.key == sa.bindparam("key")).order_by(_c.id)
_ROWS_OF_KEYS = (
    sa.select(*COLUMNS).where(_c.key.in_(sa.bindparam("keys", expanding=True))).order_by(_c.id)
)


def rows_of_key(connection: sa.Connection, key: bytes) -> list[KVPRecord]:
    """Return the rows of a key, oldest first."""
    return [to_record(row) for row in connection.execute(_ROWS_OF_KEY, {"key": key})]


def rows_of_keys(
    connection: sa.Connection, keys: Iterable[KeyBytes]
) -> dict[KeyBytes, list[KVPRecord]]:
    """Return the rows of each key, oldest first; a key without any has an empty list."""
    found: dict[KeyBytes, list[KVPRecord]] = {key: [] for key in keys}
    for row in connection.execute(_ROWS_OF_KEYS, {"keys": list(found)}):
        record = to_record(row)
        found[record.key].append(record)
    return found


def rows_between(connection: sa.Connection, low: int, end: int, limit: int) -> list[KVPRecord]:
    """Return rows by key, at most about ``limit``; all rows of the last key are among them."""
    query = sa.select(*COLUMNS).where(_c.key >= low.to_bytes(20, "big"))
    if end < KEY_END:
        query = query.where(_c.key < end.to_bytes(20, "big"))
    found = [
        to_record(row) for row in connection.execute(query.order_by(_c.key, _c.id).limit(limit))
    ]
    if len(found) == limit:  # there may be more rows of this key
        last = found[-1].key
        found = [row for row in found if row.key != last] + rows_of_key(connection, last)
    return found


Names = dict[str, Standing | bytes | str | tuple[str]]
"""What a name in ``totals`` sums up: a standing, a depositor, a group's keeps, its replicas."""

_STANDING_NAMES: Names = {f"standing/{standing}": standing for standing in Standing}
_TOTALS = sa.select(totals).where(totals.c.name.in_(sa.bindparam("names", expanding=True)))
_LOCK = (
    sa.select(totals.c.name)
    .where(totals.c.name.in_(list(_STANDING_NAMES)))
    .order_by(totals.c.name)
    .with_for_update()
)


def ledger_of(
    connection: sa.Connection, asking: Iterable[KVPRecord] = (), *, is_locked: bool = False
) -> admission.Ledger:
    """Return the sums by standing, and those of the depositors and groups of some rows.

    With ``is_locked`` other processes wait for this transaction before they change them. What is
    read after waiting is what they left: PostgreSQL shows a statement the state at its own start.
    """
    if is_locked:
        connection.execute(_LOCK)
    ledger = admission.Ledger()
    _load_sums(connection, ledger, _STANDING_NAMES | _share_names(asking))
    return ledger


def load_shares(
    connection: sa.Connection, ledger: admission.Ledger, rows: Iterable[KVPRecord]
) -> None:
    """Add the sums of the depositors and groups of more rows."""
    names = _share_names(rows)
    if names:
        _load_sums(connection, ledger, names)


def _share_names(rows: Iterable[KVPRecord]) -> Names:
    names: Names = {}
    for row in rows:
        names[f"depositor/{row.depositor.hex()}"] = row.depositor
        if row.group:
            names[f"group/{row.group}"] = row.group
            names[f"replicas/{row.group}"] = (row.group,)
    return names


def _load_sums(connection: sa.Connection, ledger: admission.Ledger, names: Names) -> None:
    for name, rows, cost in connection.execute(_TOTALS, {"names": list(names)}):
        match names[name]:
            case Standing() as standing:
                ledger.rows[standing] = rows
                ledger.costs[standing] = cost
            case bytes(depositor):
                ledger.kept_by_depositor[depositor] = cost
            case str(group):
                ledger.kept_by_group[group] = cost
            case (group,):
                ledger.replica_by_group[group] = cost


_COST = sa.func.coalesce(sa.func.sum(_c.size + config.RECORD_OVERHEAD_BYTES), 0)


def lower_standings(newcomer: Standing) -> list[Standing]:
    """Return the standings that yield to a newcomer."""
    return [standing for standing in Standing if standing < min(newcomer, Standing.KEPT)]


def expired_cost(connection: sa.Connection, newcomer: Standing, now: float) -> int:
    """Return what the rows cost that yield to a newcomer only because they are past their time."""
    is_lower = _c.standing.in_(lower_standings(newcomer))
    expired = sa.select(_COST).where(_c.expires <= now, sa.not_(is_lower))
    return int(connection.execute(expired).scalar_one())


def lower_cost(ledger: admission.Ledger, newcomer: Standing) -> int:
    """Return what the rows cost that yield to a newcomer by their standing."""
    return sum(ledger.costs[standing] for standing in lower_standings(newcomer))
