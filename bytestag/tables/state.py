"""StateTable: the little that a node remembers over a restart (shell).

Named values and the contacts it knew. Both are bounded, so a state file never grows with the
network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from bytestag.errors import StorageError
from bytestag.keys import KeyBytes
from bytestag.tables.database_engine import Database
from bytestag.tables.entries import CONTACTS_MAX, STATE_BYTES_MAX, KnownContact
from bytestag.tables.schema import contacts, state


class StateTable:
    """Small named values, and contacts."""

    def __init__(self, database: Database, contacts_max: int = CONTACTS_MAX) -> None:
        self._database = database
        self._contacts_max = contacts_max

    # --- Named values ----------------------------------------------------------------------------

    def value(self, name: str, default: bytes | None = None) -> bytes | None:
        """Return the bytes stored under a name."""
        with self._database.read() as connection:
            query = sa.select(state.c.value).where(state.c.name == name)
            found: bytes | None = connection.execute(query).scalar()
        return default if found is None else found

    def set_value(self, name: str, value: bytes) -> None:
        """Store bytes under a name."""
        if len(value) > STATE_BYTES_MAX:
            raise StorageError(f"the state {name!r} is larger than {STATE_BYTES_MAX} bytes")
        insert = self._database.insert(state).values(name=name, value=value)
        statement = insert.on_conflict_do_update(
            index_elements=[state.c.name], set_={"value": insert.excluded.value}
        )
        self._database.write(lambda connection: connection.execute(statement), size=len(value))

    def json(self, name: str, default: Any = None) -> Any:
        """Return the JSON value stored under a name."""
        found = self.value(name)
        return default if found is None else json.loads(found)

    def set_json(self, name: str, value: Any) -> None:
        """Store a JSON value under a name."""
        self.set_value(name, json.dumps(value, separators=(",", ":"), sort_keys=True).encode())

    def forget(self, name: str) -> None:
        """Remove a named value, if there is one."""
        statement = sa.delete(state).where(state.c.name == name)
        self._database.write(lambda connection: connection.execute(statement))

    # --- Contacts --------------------------------------------------------------------------------

    def put_contacts(self, known: Iterable[KnownContact]) -> None:
        """Remember contacts, newer knowledge over older; the longest unseen give way."""
        rows = [
            {
                "node_id": contact.node_id,
                "host": contact.host,
                "port": contact.port,
                "last_seen": float(contact.last_seen),
                "card": contact.card,
            }
            for contact in known
        ]
        if not rows:
            return
        insert = self._database.insert(contacts)
        names = ("host", "port", "last_seen", "card")
        upsert = insert.on_conflict_do_update(
            index_elements=[contacts.c.node_id],
            set_={name: insert.excluded[name] for name in names},
            where=insert.excluded.last_seen >= contacts.c.last_seen,
        )
        order = (contacts.c.last_seen.desc(), contacts.c.node_id)
        kept = sa.select(contacts.c.node_id).order_by(*order).limit(self._contacts_max)
        trim = sa.delete(contacts).where(contacts.c.node_id.not_in(kept))

        def work(connection: sa.Connection) -> None:
            connection.execute(upsert, rows)
            connection.execute(trim)

        self._database.write(work, values=len(rows))

    def contacts(self, limit: int = CONTACTS_MAX) -> list[KnownContact]:
        """Return contacts, the most recently seen first."""
        query = sa.select(contacts).order_by(contacts.c.last_seen.desc(), contacts.c.node_id)
        with self._database.read() as connection:
            return [
                KnownContact(KeyBytes(row.node_id), row.host, row.port, row.last_seen, row.card)
                for row in connection.execute(query.limit(limit))
            ]

    def remove_contact(self, node_id: KeyBytes) -> None:
        """Forget a contact, if it is known."""
        statement = sa.delete(contacts).where(contacts.c.node_id == node_id)
        self._database.write(lambda connection: connection.execute(statement))
