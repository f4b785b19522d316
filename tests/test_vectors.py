"""The bytes on the wire are those that were committed, and our readers read them.

The formats of files and links have vectors of their own, pinned in ``tests/models`` and
``tests/test_uri.py``.
"""

import json
from pathlib import Path

import pytest

from bytestag.crypto.deposits import covers, merkle_root_of_proof, read_deposit
from bytestag.crypto.identity import Identity, read_card, unpack_addresses
from bytestag.crypto.primitives import AESGCM
from bytestag.crypto.providers import keys_digest, read_provider_record, read_renewal
from bytestag.network import frames, messages, packets
from bytestag.network.control import ControlChannel
from bytestag.network.handshake import Responder
from bytestag.network.rtt import Rtt
from bytestag.network.tokens import TokenMint
from bytestag.network.units import UNIT_HEAD, Download, unit_key
from tests.vectors import wire

COMMITTED = json.loads((Path(__file__).parent / "vectors" / "wire.json").read_text())
SECTIONS = ("statements", "control plane", "handshake", "session", "messages")
VECTORS = {vector["name"]: vector for section in SECTIONS for vector in COMMITTED[section]}


def packed(name):
    return bytes.fromhex(VECTORS[name]["bytes"])


def inputs(name):
    return VECTORS[name]["inputs"]


@pytest.mark.parametrize("section", SECTIONS)
def test_our_code_makes_the_committed_bytes(section):
    made = json.loads(json.dumps(wire.build()[section]))
    assert [vector["name"] for vector in made] == [v["name"] for v in COMMITTED[section]]
    for vector, committed in zip(made, COMMITTED[section], strict=True):
        assert vector == committed, vector["name"]


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_identities_follow_from_their_secrets(name):
    fields = inputs(f"identity {name}")
    identity = Identity.from_bytes(bytes.fromhex(fields["secret"]))
    assert identity.node_id == packed(f"identity {name}")
    assert identity.signing.public.hex() == fields["ed25519"]
    assert identity.static.public.hex() == fields["x25519"]


def test_statements_are_read_and_verified():
    network = packed("network id")
    card = read_card(packed("card"), network)
    assert card.node_id == wire.BOB.node_id
    assert card.addresses == (wire.BOB_AT, wire.BOB_AT_6)
    deposit = read_deposit(packed("deposit"), network)
    assert (deposit.seq, deposit.count) == (7, 5)
    for position in (0, 2, 4):
        name = f"deposit proof {position}"
        leaf = bytes.fromhex(inputs(name)["leaf"])
        assert covers(deposit, packed(name), leaf)
        assert merkle_root_of_proof(packed(name), leaf, 5) == deposit.root
    for name in ("provider record", "provider record 2"):
        record = read_provider_record(packed(name), network)
        assert record.node_id == wire.BOB.node_id
        assert [key[:2] for key in record.keys] == [bytes([0xAB, i]) for i in (1, 2, 3)]
    renewal = read_renewal(packed("renewal"), network)
    assert renewal.is_signed()
    assert (renewal.node_id, renewal.holder) == (wire.BOB.node_id, wire.ALICE.node_id)
    assert renewal.records == ((8, bytes([0xAB]) + bytes(19), keys_digest(record.keys)),)
    address = tuple(inputs("token")["address"])
    assert TokenMint(wire.SECRET).is_valid(packed("token"), address, wire.NOW)
    both = packed("typed address 4") + packed("typed address 6")
    assert unpack_addresses(both) == [wire.BOB_AT, wire.BOB_AT_6]


def test_control_datagrams_are_read():
    for method in packets.NATIVE_METHODS:
        sequence_id, body = packets.split(packed(f"{method} request"))
        name, arguments = packets.decode_request(body)
        query = packets.decode_query(method, arguments, wire.NETWORK)
        assert (sequence_id, name) == (wire.SEQUENCE, method)
        assert query.target == (wire.KEY if "find" in method else None)
    reply = packets.decode_reply(packets.split(packed("bt_find_value reply"))[1], wire.NETWORK)
    assert reply.value == wire.VALUE
    assert reply.held == [packets.Held(wire.KEY, len(wire.VALUE), wire.B3)]


def test_the_init_with_an_early_get_is_read():
    responder = Responder(
        wire.BOB,
        wire.NETWORK,
        TokenMint(wire.SECRET),
        pow_bits=0,
        capabilities=0,
        burst_bytes=0,
        random_bytes=bytes,
    )
    datagram = packed("INIT with an early GET")
    _, agreement = responder.receive(datagram, wire.ALICE_AT, wire.NOW)
    (early,) = agreement.early
    assert messages.decode(early).key == wire.KEY
    assert agreement.node_id == wire.ALICE.node_id


def test_session_datagrams_are_read_with_the_keys_of_the_handshake():
    root = packed("root key of the initiator")
    channel = ControlChannel(b"ALICE-ID", bytes(32), root, Rtt())
    received = []
    for name in [name for name in VECTORS if name.startswith("CONTROL ")]:
        datagram = packed(name)
        text = AESGCM(root).decrypt(bytes(4) + datagram[10:18], datagram[18:], datagram[:18])
        counter, frames_ = channel.open(datagram)
        assert frames.decode(text) == frames_
        assert counter == inputs(name)["counter"]
        received += frames_
    assert received == [*wire.every_frame(), frames.Ping()]


def test_the_unit_trains_are_a_value():
    trains = [VECTORS[name] for name in VECTORS if name.startswith("UNIT ")]
    value = bytes.fromhex(trains[0]["inputs"]["value"])
    download = Download(wire.ID, 3, packed("root key of the responder"), 2**20)
    download.announce(len(value), wire.UNIT_BYTES)
    for number, train in enumerate(trains):
        for index, text in enumerate(train["datagrams"]):
            datagram = bytes.fromhex(text)
            _, of_train, at, segment, slot, unit, body = UNIT_HEAD.unpack_from(datagram)
            assert (of_train, at, slot) == (number, index, 3)
            download.receive(unit, segment, body, memoryview(datagram)[UNIT_HEAD.size :])
    assert bytes(download.buffer) == value
    assert len(unit_key(bytes(32), wire.ID)) == 16


def test_messages_are_read():
    for vector in COMMITTED["messages"]:
        message = messages.decode(bytes.fromhex(vector["bytes"]))
        assert message.id == wire.ID
        assert type(message).__name__.upper() == vector["name"]


def test_every_kind_of_message_and_frame_has_a_vector():
    kinds = {kind.__name__.upper() for kind in messages.Message.__args__}
    assert {vector["name"] for vector in COMMITTED["messages"]} == kinds
    assert {type(frame) for frame in wire.every_frame()} == set(frames.Frame.__args__)
