"""What a node remembers over a restart."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from bytestag.config import MIB
from bytestag.errors import StorageError
from bytestag.keys import KeyBytes
from bytestag.tables.database_engine import Database
from bytestag.tables.entries import KnownContact
from bytestag.tables.memory_stores import MemoryStateTable
from bytestag.tables.state import StateTable

MakeState = Callable[..., StateTable | MemoryStateTable]


def contact(number: int, last_seen: float = 0, **fields) -> KnownContact:
    fields.setdefault("host", "192.0.2.1")
    return KnownContact(
        KeyBytes(number.to_bytes(20, "big")), port=1024 + number, last_seen=last_seen, **fields
    )


@pytest.fixture(params=["database", "memory"])
def make_state(request: pytest.FixtureRequest, database: Database) -> MakeState:
    """Make the one kind of table or the other: they are the same to whoever uses them."""
    return MemoryStateTable if request.param == "memory" else partial(StateTable, database)


def test_named_values_survive_a_restart(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    state = StateTable(database)
    state.set_value("seq", b"\0\1")
    state.set_json("port", {"udp": [5000, 5001]})
    database.close()
    database = Database(tmp_path / "state.db")
    state = StateTable(database)
    assert state.value("seq") == b"\0\1"
    assert state.json("port") == {"udp": [5000, 5001]}
    database.close()


def test_a_name_is_replaced_forgotten_and_has_a_default(make_state: MakeState) -> None:
    state = make_state()
    assert state.value("seq", b"none") == b"none"
    assert state.json("port", 7) == 7
    state.set_value("seq", b"1")
    state.set_value("seq", b"2")
    assert state.value("seq") == b"2"
    state.forget("seq")
    state.forget("seq")
    assert state.value("seq") is None


def test_a_value_that_is_not_small_is_refused(make_state: MakeState) -> None:
    with pytest.raises(StorageError):
        make_state().set_value("big", bytes(MIB + 1))


def test_contacts_come_back_most_recently_seen_first(make_state: MakeState) -> None:
    state = make_state()
    state.put_contacts([])
    known = [contact(1, 10), contact(2, 30.5, card=b"signed"), contact(3, 20, host="2001:db8::1")]
    state.put_contacts(known)
    assert state.contacts() == [known[1], known[2], known[0]]
    assert state.contacts(1) == [known[1]]
    state.remove_contact(known[1].node_id)
    assert state.contacts() == [known[2], known[0]]


def test_newer_knowledge_of_a_contact_wins(make_state: MakeState) -> None:
    state = make_state()
    state.put_contacts([contact(1, 10, host="198.51.100.1")])
    state.put_contacts([contact(1, 20, host="198.51.100.2")])
    state.put_contacts([contact(1, 15, host="198.51.100.3")])
    assert [known.host for known in state.contacts()] == ["198.51.100.2"]


def test_the_longest_unseen_contacts_give_way(make_state: MakeState) -> None:
    state = make_state(contacts_max=5)
    for number in range(20):
        state.put_contacts([contact(number, float(number))])
    assert [known.last_seen for known in state.contacts()] == [19, 18, 17, 16, 15]
