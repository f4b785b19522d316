"""ProviderTable: who says that they serve which key, held for others (shell).

A provider record names many keys under one prefix and one signature; a newer one of the same
(provider, prefix) replaces it. Records are hints: verified before they come here, opaque here.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import sqlalchemy as sa

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables.database_engine import Database
from bytestag.tables.entries import SEQ_MAX, Provider, sample
from bytestag.tables.schema import provider_keys, providers, totals

_TOTAL = "provider_keys"
ROWS_MAX = 1_000_000  # keys in all records: some 100 MB
EXPIRE_ROWS = 1000


class ProviderTable:
    """Provider records, bounded by key, by provider and in all."""

    def __init__(
        self,
        database: Database,
        rows_max: int = ROWS_MAX,
        providers_per_key_max: int = config.PROVIDERS_PER_KEY_MAX,
        keys_per_provider_max: int = config.KEYS_PER_PROVIDER_MAX,
    ) -> None:
        self._database = database
        self._rows_max = rows_max
        self._per_key_max = providers_per_key_max
        self._per_provider_max = keys_per_provider_max

    def put(
        self,
        keys: Collection[KeyBytes],
        provider_id: bytes,
        prefix: bytes,
        seq: int,
        expires: int,
        addresses: bytes,
        record: bytes = b"",
        *,
        now: float = 0.0,
    ) -> int:
        """Store a record in place of an older one; return how many of its keys are held now.

        A record that is not newer, or is above ``SEQ_MAX``, changes nothing and returns 0. Keys
        that have their providers, or that no longer fit the table or the provider's part of it, are
        left out; what is past its time makes room first. A record that is not whole is kept
        without ``record``, so that nobody renews it as if it were.
        """
        if seq > SEQ_MAX:
            return 0
        wanted = sorted(set(keys))

        def work(connection: sa.Connection) -> int:
            of_record = sa.and_(providers.c.provider == provider_id, providers.c.prefix == prefix)
            query = sa.select(providers.c.id, providers.c.seq).where(of_record)
            known = connection.execute(query).first()
            if known is not None:
                if known.seq >= seq:
                    return 0
                _delete(connection, [known.id])
            accepted = self._with_room(connection, wanted, provider_id)
            while len(accepted) < len(wanted) and _delete_expired(connection, now, EXPIRE_ROWS):
                accepted = self._with_room(connection, wanted, provider_id)
            if not accepted:
                return 0
            row = sa.insert(providers).values(
                provider=provider_id,
                prefix=prefix,
                seq=seq,
                expires=expires,
                addresses=addresses,
                record=record if len(accepted) == len(wanted) else b"",
            )
            row_id = connection.execute(row.returning(providers.c.id)).scalar_one()
            self._insert_keys(connection, row_id, accepted)
            return len(accepted)

        return self._database.write(work, values=len(keys), size=len(record))

    def renew(
        self,
        provider_id: bytes,
        records: Sequence[tuple[bytes, bytes]],
        seq: int,
        expires: int,
        addresses: bytes,
    ) -> list[bool]:
        """Give records a later end; return for each whether it is here, from these addresses.

        ``records`` are (prefix, what was stored as ``record``); one with the same or a higher
        ``seq`` stays as it is and counts as not here.
        """

        def work(connection: sa.Connection) -> list[bool]:
            return [
                connection.execute(
                    sa.update(providers)
                    .where(
                        providers.c.provider == provider_id,
                        providers.c.prefix == prefix,
                        providers.c.record == record,
                        providers.c.addresses == addresses,
                        providers.c.seq < seq,
                    )
                    .values(seq=seq, expires=expires)
                ).rowcount
                > 0
                for prefix, record in records
            ]

        if seq > SEQ_MAX or not self._has_any_of(provider_id, addresses):
            return [False] * len(records)
        return self._database.write(work)

    def _has_any_of(self, provider_id: bytes, addresses: bytes) -> bool:
        """Whether a provider has records here: anybody may ask, so the writer is spared."""
        of_provider = sa.and_(
            providers.c.provider == provider_id, providers.c.addresses == addresses
        )
        with self._database.read() as connection:
            query = sa.select(providers.c.id).where(of_provider).limit(1)
            return connection.execute(query).first() is not None

    def _insert_keys(
        self, connection: sa.Connection, row_id: int, accepted: list[KeyBytes]
    ) -> None:
        connection.execute(
            sa.insert(provider_keys), [{"key": key, "provider_row": row_id} for key in accepted]
        )
        insert = self._database.insert(totals)
        connection.execute(
            insert.values(name=_TOTAL, rows=len(accepted), cost=0).on_conflict_do_update(
                index_elements=[totals.c.name],
                set_={"rows": totals.c.rows + insert.excluded.rows},
            )
        )

    def lookup(
        self, key: KeyBytes, now: float, limit: int = 20, rng: random.Random | None = None
    ) -> list[Provider]:
        """Return a random choice of those who serve a key now: nobody can push others out."""
        alive = (
            sa.select(providers.c.id)
            .join(provider_keys, provider_keys.c.provider_row == providers.c.id)
            .where(provider_keys.c.key == key, providers.c.expires > now)
            .order_by(providers.c.id)
            .limit(config.PROVIDERS_PER_KEY_MAX)
        )
        with self._database.read() as connection:
            chosen = sample(list(connection.execute(alive).scalars()), limit, rng)
            query = sa.select(
                providers.c.provider,
                providers.c.addresses,
                providers.c.expires,
                providers.c.record,
                providers.c.id,
            ).where(providers.c.id.in_(chosen))
            found = {row.id: Provider(*row[:4]) for row in connection.execute(query)}
        return [found[row_id] for row_id in chosen if row_id in found]

    def expire(self, now: float, limit: int = EXPIRE_ROWS) -> int:
        """Remove at most ``limit`` records past their time; return how many."""
        return self._database.write(lambda connection: _delete_expired(connection, now, limit))

    def remove(self, provider_id: bytes) -> int:
        """Forget all records of a provider; return how many."""
        query = sa.select(providers.c.id).where(providers.c.provider == provider_id)

        def work(connection: sa.Connection) -> int:
            return _delete(connection, list(connection.execute(query).scalars()))

        return self._database.write(work)

    def __len__(self) -> int:
        """Return the number of keys in all records."""
        with self._database.read() as connection:
            return _count(connection)

    def _with_room(
        self, connection: sa.Connection, keys: list[KeyBytes], provider_id: bytes
    ) -> list[KeyBytes]:
        of_provider = (
            sa.select(sa.func.count())
            .select_from(provider_keys)
            .join(providers, provider_keys.c.provider_row == providers.c.id)
            .where(providers.c.provider == provider_id)
        )
        room = min(
            self._rows_max - _count(connection),
            self._per_provider_max - connection.execute(of_provider).scalar_one(),
        )
        per_key = (
            sa.select(provider_keys.c.key, sa.func.count())
            .where(provider_keys.c.key.in_(keys))
            .group_by(provider_keys.c.key)
        )
        counts: dict[bytes, int] = {row[0]: row[1] for row in connection.execute(per_key)}
        return [key for key in keys if counts.get(key, 0) < self._per_key_max][: max(0, room)]


def _count(connection: sa.Connection) -> int:
    """Return the number of keys in all records; counting a million would take too long."""
    query = sa.select(totals.c.rows).where(totals.c.name == _TOTAL)
    return int(connection.execute(query).scalar() or 0)


def _delete(connection: sa.Connection, ids: list[int]) -> int:
    of_rows = sa.delete(provider_keys).where(provider_keys.c.provider_row.in_(ids))
    gone = connection.execute(of_rows).rowcount
    connection.execute(sa.delete(providers).where(providers.c.id.in_(ids)))
    of_total = sa.update(totals).where(totals.c.name == _TOTAL)
    connection.execute(of_total.values(rows=totals.c.rows - gone))
    return len(ids)


def _delete_expired(connection: sa.Connection, now: float, limit: int) -> int:
    query = sa.select(providers.c.id).where(providers.c.expires <= now)
    ids = connection.execute(query.order_by(providers.c.expires).limit(limit)).scalars()
    return _delete(connection, list(ids))
