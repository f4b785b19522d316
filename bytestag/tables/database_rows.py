"""What one transaction does to ``records``, ``blobs`` and ``totals`` (shell around a connection).

Rows of a batch are judged one after the other against what the database and the batch itself hold;
what they change is collected and written with a few statements. The sums in ``totals`` change in
the same transaction, so the quota holds at every commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from bytestag.keys import KeyBytes
from bytestag.tables import admission
from bytestag.tables.base import KVPID, KVPRecord, Standing, Verdict
from bytestag.tables.database_engine import Database
from bytestag.tables.database_reads import (
    COLUMNS,
    expired_cost,
    ledger_of,
    load_shares,
    lower_cost,
    rows_of_keys,
    to_record,
)
from bytestag.tables.schema import blobs, records, totals

EVICT_PAGE_ROWS = 64
Name = tuple[KVPID, bytes]
Change = tuple[KVPID, bool]

_c = records.c


@dataclass
class RowWriter:
    """The changes of one transaction; the caller begins and commits it."""

    database: Database
    connection: sa.Connection
    max_size: int | None
    node_key: KeyBytes
    now: float
    changes: list[Change] = field(default_factory=list)

    def store(self, rows: list[tuple[KVPRecord, bytes]]) -> list[Verdict]:
        """Store rows whose bytes are verified."""
        self._load(record for record, _value in rows)
        verdicts = [self._store(record, value) for record, value in rows]
        self._flush()
        return verdicts

    def renew(self, asking: Sequence[KVPRecord]) -> list[Verdict]:
        """Renew rows that are held; their bytes are neither needed nor read."""
        self._load(asking)
        verdicts = [self._renew(record) for record in asking]
        self._flush()
        return verdicts

    def delete(self, condition: sa.ColumnElement[bool], limit: int | None = None) -> int:
        """Delete rows that match, the oldest expiry first; return how many."""
        self._load(())
        query = sa.select(*COLUMNS, _c.id).where(condition).order_by(_c.expires, _c.id)
        count = self._delete(self.connection.execute(query.limit(limit)).all())
        self._flush()
        return count

    def trim(self) -> int:
        """Evict some rows if the quota is exceeded; return how many."""
        self._load(())
        count = 0
        for row in self._evictable(Standing.KEPT):
            if self.max_size is None or self._ledger.used <= self.max_size:
                break
            count += self._delete([row])
        self._flush()
        return count

    # --- One row after the other -----------------------------------------------------------------

    def _load(self, asking: Iterable[KVPRecord]) -> None:
        asking = list(asking)
        self._ledger = ledger_of(self.connection, asking, is_locked=not self.database.is_sqlite)
        keys = {record.key for record in asking}
        self._rows = rows_of_keys(self.connection, keys) if keys else {}
        held = (admission.find(self._rows[record.key], record) for record in asking)
        load_shares(self.connection, self._ledger, [row for row in held if row is not None])
        self._loaded = self._ledger.copy()
        self._inserts: dict[Name, tuple[KVPRecord, bytes]] = {}
        self._updates: dict[Name, KVPRecord] = {}
        self._deletes: list[Any] = []
        self._victims: list[Any] = []
        self._victims_for: Standing | None = None
        self._expired_costs: dict[Standing, int] = {}

    def _store(self, record: KVPRecord, value: bytes) -> Verdict:
        rows = self._rows[record.key]
        verdict = admission.judge(
            record, self.now, rows, self._ledger, self.max_size, self._can_evict
        )
        if verdict is Verdict.HELD:
            held = admission.find(rows, record)
            assert held is not None
            self._replace(rows, held, admission.merge(held, record, self.now))
        elif verdict is Verdict.ACCEPTED:
            displaced = admission.displaced(record, self.now, rows)
            if displaced is not None:
                self._displace(displaced)
            self._make_room(record)
            self._rows[record.key].append(record)
            self._inserts[record.kvpid, record.blake3] = record, value
            self._ledger.add(record)
            self.changes.append((record.kvpid, True))
            if self._victims_for is not None and record.standing < self._victims_for:
                self._victims_for = None  # it may be a better victim than those we know
        return verdict

    def _renew(self, record: KVPRecord) -> Verdict:
        rows = self._rows[record.key]
        verdict = admission.judge(
            record, self.now, rows, self._ledger, self.max_size, self._can_evict
        )
        if verdict is Verdict.HELD:
            held = admission.find(rows, record)
            assert held is not None
            if held.size != record.size:
                return Verdict.WRONG_BYTES
            self._replace(rows, held, admission.merge(held, record, self.now))
        return Verdict.NOT_SENT if verdict is Verdict.ACCEPTED else verdict

    def _replace(self, rows: list[KVPRecord], held: KVPRecord, renewed: KVPRecord) -> None:
        if renewed == held:
            return
        rows[rows.index(held)] = renewed
        name = held.kvpid, held.blake3
        if name in self._inserts:
            self._inserts[name] = renewed, self._inserts[name][1]
        else:
            self._updates[name] = renewed
        self._victims_for = None
        self._expired_costs.clear()
        self._ledger.remove(held)
        self._ledger.add(renewed)

    # --- Making room -----------------------------------------------------------------------------

    def _can_evict(self, newcomer: Standing, cost: int) -> bool:
        missing = cost - lower_cost(self._ledger, newcomer)
        if missing <= 0:
            return True
        if newcomer not in self._expired_costs:
            self._flush()
            self._expired_costs[newcomer] = expired_cost(self.connection, newcomer, self.now)
        return self._expired_costs[newcomer] >= missing

    def _displace(self, record: KVPRecord) -> None:
        """Queue the deletion of a row that yields its place under its key."""
        self._flush()
        query = sa.select(*COLUMNS, _c.id).where(
            _c.key == record.key, _c.sha1 == record.index, _c.blake3 == record.blake3
        )
        self._delete(self.connection.execute(query).all())
        self._victims_for = None  # it may be among those we know

    def _make_room(self, record: KVPRecord) -> None:
        """Queue the deletion of what yields to ``record``, until it fits."""
        while admission.room_needed(record, self._ledger, self.max_size) > 0:
            if self._victims_for is not record.standing or not self._victims:
                self._find_victims(record.standing)
            self._delete([self._victims.pop(0)])

    def _find_victims(self, newcomer: Standing) -> None:
        self._flush()
        self._victims_for = newcomer
        self._victims = self._evictable(newcomer)
        assert self._victims, "judged evictable, but nothing is"

    def _evictable(self, newcomer: Standing) -> list[Any]:
        """Return those who go first for a newcomer."""
        for condition in _eviction_classes(newcomer, self.now):
            query = sa.select(*COLUMNS, _c.id).where(condition)
            query = query.order_by(_c.distance.desc(), _c.id).limit(EVICT_PAGE_ROWS)
            victims = list(self.connection.execute(query).all())
            if victims:
                return victims
        return []

    def _delete(self, rows: Iterable[Any]) -> int:
        count = 0
        for row in rows:
            record = to_record(row)
            self._ledger.remove(record)
            self.changes.append((record.kvpid, False))
            if record.key in self._rows:
                self._rows[record.key].remove(record)
            self._deletes.append(row)
            if record.expires <= self.now:
                self._expired_costs.clear()
            count += 1
        return count

    # --- Writing what was collected --------------------------------------------------------------

    def _flush(self) -> None:
        if self._deletes:
            self._flush_deletes()
        if self._inserts:
            self._flush_inserts()
        if self._updates:
            of_row = sa.and_(
                _c.key == sa.bindparam("at_key"),
                _c.sha1 == sa.bindparam("at_sha1"),
                _c.blake3 == sa.bindparam("at_blake3"),
            )
            self.connection.execute(
                sa.update(records).where(of_row),
                [
                    {"at_key": kvpid.key, "at_sha1": kvpid.index, "at_blake3": blake3}
                    | self._to_row(record)
                    for (kvpid, blake3), record in self._updates.items()
                ],
            )
        self._deletes.clear()
        self._inserts.clear()
        self._updates.clear()
        self._flush_ledger()

    def _flush_inserts(self) -> None:
        uses = Counter(blake3 for _kvpid, blake3 in self._inserts)
        values = {blake3: value for (_kvpid, blake3), (_record, value) in self._inserts.items()}
        insert = self.database.insert(blobs)
        self.connection.execute(
            insert.on_conflict_do_update(
                index_elements=[blobs.c.blake3], set_={"uses": blobs.c.uses + insert.excluded.uses}
            ),
            [
                {"blake3": blake3, "uses": uses[blake3], "value": value}
                for blake3, value in values.items()
            ],
        )
        self.connection.execute(
            sa.insert(records), [self._to_row(record) for record, _ in self._inserts.values()]
        )

    def _flush_deletes(self) -> None:
        uses = Counter(row.blake3 for row in self._deletes)
        self.connection.execute(
            sa.delete(records).where(_c.id.in_([row.id for row in self._deletes]))
        )
        of_blob = blobs.c.blake3 == sa.bindparam("of")
        self.connection.execute(
            sa.delete(blobs).where(of_blob, blobs.c.uses <= sa.bindparam("gone")),
            [{"of": blake3, "gone": gone} for blake3, gone in uses.items()],
        )
        self.connection.execute(
            sa.update(blobs)
            .where(of_blob)
            .values(uses=blobs.c.uses - sa.bindparam("gone", type_=sa.BigInteger())),
            [{"of": blake3, "gone": gone} for blake3, gone in uses.items()],
        )

    def _flush_ledger(self) -> None:
        now, loaded = self._ledger, self._loaded
        deltas: list[dict[str, Any]] = [
            {
                "name": f"standing/{standing}",
                "rows": now.rows[standing] - loaded.rows[standing],
                "cost": now.costs[standing] - loaded.costs[standing],
            }
            for standing in Standing
        ]
        for depositor, cost in now.kept_by_depositor.items():
            difference = cost - loaded.kept_by_depositor[depositor]
            deltas.append({"name": f"depositor/{depositor.hex()}", "rows": 0, "cost": difference})
        for group, cost in now.kept_by_group.items():
            difference = cost - loaded.kept_by_group[group]
            deltas.append({"name": f"group/{group}", "rows": 0, "cost": difference})
        for group, cost in now.replica_by_group.items():
            difference = cost - loaded.replica_by_group[group]
            deltas.append({"name": f"replicas/{group}", "rows": 0, "cost": difference})
        deltas = [delta for delta in deltas if delta["rows"] or delta["cost"]]
        if not deltas:
            return
        insert = self.database.insert(totals)
        self.connection.execute(
            insert.on_conflict_do_update(
                index_elements=[totals.c.name],
                set_={
                    "rows": totals.c.rows + insert.excluded.rows,
                    "cost": totals.c.cost + insert.excluded.cost,
                },
            ),
            deltas,
        )
        lower = [delta["name"] for delta in deltas if not delta["rows"] and delta["cost"] < 0]
        if lower:  # strangers' keys and networks must not fill the table when they are gone
            is_empty = sa.and_(totals.c.rows == 0, totals.c.cost == 0)
            self.connection.execute(sa.delete(totals).where(totals.c.name.in_(lower), is_empty))
        self._loaded = now.copy()

    def _to_row(self, record: KVPRecord) -> dict[str, object]:
        return {
            "key": record.key,
            "sha1": record.index,
            "blake3": record.blake3,
            "size": record.size,
            "timestamp": record.timestamp,
            "time_to_live": record.time_to_live,
            "expires": record.expires,
            "last_update": record.last_update,
            "standing": int(record.standing),
            "distance": admission.distance_rank(record.key, self.node_key),
            "deposit": record.deposit,
            "depositor": record.depositor,
            "address_group": record.group,
        }


def _eviction_classes(newcomer: Standing, now: float) -> list[sa.ColumnElement[bool]]:
    """Return what may go for a newcomer, in the order of ``admission.eviction_class``."""
    cached = _c.standing == int(Standing.CACHED)
    if newcomer is Standing.CACHED:
        cached = sa.and_(cached, _c.expires <= now)
    classes = [cached, sa.and_(_c.standing != int(Standing.CACHED), _c.expires <= now)]
    if newcomer > Standing.REPLICA:
        classes.append(_c.standing == int(Standing.REPLICA))
    return classes
