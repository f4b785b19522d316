"""Makes ``wire.json``: an example of everything on the wire, from fixed keys and fixed chance.

``python -m tests.vectors.wire`` prints it. The file is committed once; ``tests/test_vectors.py``
holds the code to it byte for byte. A change of a vector is a change of the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from bytestag.config import network_id
from bytestag.crypto.deposits import leaf_hash, make_deposit, merkle_proof
from bytestag.crypto.identity import Identity, make_card, pack_address
from bytestag.crypto.providers import keys_digest, make_provider_record, make_renewal
from bytestag.hashing import blake3, blake3_keyed, sha1
from bytestag.keys import KeyBytes
from bytestag.network import frames, messages, packets
from bytestag.network.congestion import Congestion
from bytestag.network.control import ControlChannel
from bytestag.network.handshake import Initiator, Responder
from bytestag.network.rtt import Rtt
from bytestag.network.tokens import TokenMint
from bytestag.network.trains import TrainSender
from bytestag.network.units import Upload

NOW = 1_800_000_000
NETWORK = network_id("vectors")
ALICE = Identity.from_bytes(bytes(range(64)))
BOB = Identity.from_bytes(bytes(range(100, 164)))
ALICE_AT = ("192.0.2.1", 4001)
BOB_AT = ("192.0.2.2", 4002)
BOB_AT_6 = ("2001:db8::2", 4002)
SECRET = bytes(range(200, 232))
SEQUENCE = bytes(range(20))
ID = bytes(range(20, 40))
VALUE = b"Whatever is shared, stays.\n"
KEY, B3 = sha1(VALUE), blake3(VALUE)
TOKEN = TokenMint(SECRET).issue(ALICE_AT, NOW)
UNIT_BYTES = 1024
BODY_BYTES = 200

Vector = dict[str, Any]


def chance(*pieces: bytes) -> Any:
    """Return a source of random bytes that gives these pieces, in order."""
    left = iter(pieces)

    def random_bytes(count: int) -> bytes:
        piece = next(left)
        assert len(piece) == count
        return piece

    return random_bytes


def vector(name: str, packed: bytes, **inputs: Any) -> Vector:
    shown = {key: item.hex() if isinstance(item, bytes) else item for key, item in inputs.items()}
    return {"name": name, "inputs": shown, "bytes": packed.hex()}


def statements() -> Iterator[Vector]:
    """Identity, addresses, card, deposit, provider record, token."""
    for name, identity in (("alice", ALICE), ("bob", BOB)):
        yield vector(
            f"identity {name}",
            bytes(identity.node_id),
            secret=identity.to_bytes(),
            ed25519=identity.signing.public,
            x25519=identity.static.public,
        )
    yield vector("network id", NETWORK, network="vectors")
    yield vector("typed address 4", pack_address(BOB_AT), address=list(BOB_AT))
    yield vector("typed address 6", pack_address(BOB_AT_6), address=list(BOB_AT_6))
    yield vector("token", TOKEN, secret=SECRET, address=list(ALICE_AT), hour=NOW // 3600)
    card = make_card(BOB, NETWORK, [BOB_AT, BOB_AT_6], 1, NOW)
    yield vector("card", card.packed, hour=card.hour, capabilities=1)
    leaves = [leaf_hash(KEY, KEY, B3, len(VALUE)), *(blake3(bytes([i])) for i in range(4))]
    deposit = make_deposit(ALICE.signing, NETWORK, 7, NOW + 90 * 86_400, leaves)
    yield vector("deposit leaf", leaves[0], key=KEY, index=KEY, blake3=B3, size=len(VALUE))
    yield vector(
        "deposit",
        deposit.packed,
        seq=7,
        keep_until_hour=deposit.keep_until_hour,
        leaves=[leaf.hex() for leaf in leaves],
    )
    for position in (0, 2, 4):
        yield vector(
            f"deposit proof {position}", merkle_proof(leaves, position), leaf=leaves[position]
        )
    keys = [KeyBytes(bytes([0xAB, i]) + bytes(18)) for i in (3, 1, 2)]
    for version, name in ((1, "provider record"), (2, "provider record 2")):
        record = make_provider_record(
            BOB, NETWORK, 9, NOW + 48 * 3600, [BOB_AT], keys, 8, version=version
        )
        yield vector(name, record.packed, seq=9, expiry_hour=record.expiry_hour)
    named = [(8, bytes([0xAB]) + bytes(19), keys_digest(sorted(keys)))]
    renewal = make_renewal(BOB, NETWORK, ALICE.node_id, 10, NOW + 48 * 3600, named)
    yield vector("renewal", renewal, seq=10)


def control_plane() -> Iterator[Vector]:
    """A ping and its reply, a find value and its reply."""
    ping = packets.Query(1, NETWORK, node_id=ALICE.node_id, capabilities=1, wants_card=True)
    yield vector("bt_ping request", packets.encode_request(SEQUENCE, "bt_ping", [ping]))
    card = make_card(BOB, NETWORK, [BOB_AT, BOB_AT_6], 1, NOW).packed
    pong = packets.Reply(
        1, NETWORK, pack_address(ALICE_AT), TOKEN, BOB.node_id, capabilities=1, card=card
    )
    yield vector("bt_ping reply", packets.encode_reply(SEQUENCE, pong))
    query = packets.Query(1, NETWORK, token=TOKEN, target=KEY)
    for method in ("bt_find_node", "bt_find_value"):
        request = packets.encode_request(SEQUENCE, method, [query])
        yield vector(f"{method} request", request)
    renewal = next(v["bytes"] for v in statements() if v["name"] == "renewal")
    query = packets.Query(1, NETWORK, token=TOKEN, renewal=bytes.fromhex(renewal))
    yield vector("bt_renew request", packets.encode_request(SEQUENCE, "bt_renew", [query]))
    renewed = packets.Reply(1, NETWORK, pack_address(ALICE_AT), TOKEN, result=b"\1")
    yield vector("bt_renew reply", packets.encode_reply(SEQUENCE, renewed))
    found = packets.Reply(
        1,
        NETWORK,
        pack_address(ALICE_AT),
        TOKEN,
        BOB.node_id,
        contacts4=bytes(ALICE.node_id) + pack_address(ALICE_AT)[1:],
        contacts6=bytes(BOB.node_id) + pack_address(BOB_AT_6)[1:],
        held=[packets.Held(KEY, len(VALUE), B3)],
        more=2,
        value=VALUE,
        providers=[packets.Provider(bytes(BOB.node_id), 3600, pack_address(BOB_AT))],
    )
    yield vector("bt_find_value reply", packets.encode_reply(SEQUENCE, found))
    yield from repair_in_the_clear()


def repair_in_the_clear() -> Iterator[Vector]:
    """A comparison of ten rows of which two are lacking, and the proof of one."""
    names = b"".join(bytes([number]) * 8 for number in range(10))
    comparison = packets.Comparison(4, b"\xa0" + bytes(7), names)
    query = packets.Query(1, NETWORK, token=TOKEN, comparison=comparison)
    yield vector("bt_compare request", packets.encode_request(SEQUENCE, "bt_compare", [query]))
    lacking = messages.bitmap([number in (1, 9) for number in range(10)])
    compared = packets.Reply(1, NETWORK, pack_address(ALICE_AT), TOKEN, result=lacking)
    yield vector("bt_compare reply", packets.encode_reply(SEQUENCE, compared))
    sample = packets.Sample(bytes(range(32)), packets.Row(KEY, KEY, B3))
    query = packets.Query(1, NETWORK, token=TOKEN, sample=sample)
    yield vector("bt_prove request", packets.encode_request(SEQUENCE, "bt_prove", [query]))
    proof = blake3_keyed(sample.nonce, VALUE)
    proven = packets.Reply(1, NETWORK, pack_address(ALICE_AT), TOKEN, result=proof)
    yield vector("bt_prove reply", packets.encode_reply(SEQUENCE, proven))


def begun_by_alice(token: bytes, *chances: bytes, early: bytes = b"") -> Initiator:
    return Initiator(
        ALICE,
        NETWORK,
        BOB.node_id,
        BOB.static.public,
        BOB_AT,
        capabilities=0,
        burst_bytes=2**20,
        token=token,
        random_bytes=chance(*chances),
        early=early,
    )


def handshake() -> tuple[list[Vector], Any, Any]:
    """Return INIT, CHALLENGE, INIT, ACCEPT, and what both ends agreed on."""
    initiator = begun_by_alice(bytes(16), b"ALICE-ID", b"\xa1" * 32, b"ALICE-ID", b"\xa2" * 32)
    responder = Responder(
        BOB,
        NETWORK,
        TokenMint(SECRET),
        pow_bits=0,
        capabilities=1,
        burst_bytes=2**21,
        random_bytes=chance(b"\xb1" * 32, b"BOB---ID"),
    )
    first = initiator.datagram
    challenge, _ = responder.receive(first, ALICE_AT, NOW)
    initiator.receive(challenge)
    second = initiator.datagram
    accept, theirs = responder.receive(second, ALICE_AT, NOW)
    ours = initiator.receive(accept)
    assert ours is not None
    vectors = [
        vector("INIT without token", first, ephemeral=b"\xa1" * 32),
        vector("CHALLENGE", challenge),
        vector("INIT with token", second, ephemeral=b"\xa2" * 32),
        vector("ACCEPT", accept, ephemeral=b"\xb1" * 32),
        vector("root key of the initiator", ours.send_key),
        vector("root key of the responder", ours.receive_key),
    ]
    return vectors + early_handshake(), ours, theirs


def early_handshake() -> list[Vector]:
    """Return an INIT with which a GET goes."""
    question = messages.Get(ID, 0, KEY, None, B3[:8], 0, len(VALUE))
    early = messages.encode(question)
    initiator = begun_by_alice(TOKEN, b"ALICE-ID", b"\xa3" * 32, early=early)
    return [vector("INIT with an early GET", initiator.datagram, ephemeral=b"\xa3" * 32)]


def every_frame() -> list[frames.Frame]:
    return [
        frames.Message(5, 1, 3, b"second of three"),
        frames.Ack(1000, 0b1011),
        frames.Units(((3, 2**44 - 1), (4, 1))),
        frames.Ping(),
        frames.Close(0),
        frames.PathChallenge(b"12345678"),
        frames.PathResponse(b"87654321"),
    ]


def session_datagrams(ours: Any, theirs: Any) -> Iterator[Vector]:
    """CONTROL with each frame, then one train of UNIT datagrams."""
    channel = ControlChannel(ours.remote_id, ours.send_key, ours.receive_key, Rtt())
    names = ("MESSAGE", "ACK", "UNITS", "PING", "CLOSE", "PATH_CHALLENGE", "PATH_RESPONSE")
    for counter, (name, frame) in enumerate(zip(names, every_frame(), strict=True)):
        text = frames.encode(frame)
        yield vector(f"CONTROL {name}", channel.seal(frame), counter=counter, plaintext=text)
    yield vector("CONTROL PING padded", channel.ping(80, 0.0)[1], counter=len(names))
    value = bytes(i % 251 for i in range(UNIT_BYTES + 300))
    sender = TrainSender(theirs.remote_id, Rtt(), Congestion(2**20))
    sender.datagram_bytes = BODY_BYTES + 24
    sender.add(Upload(ID, 3, [memoryview(value)], theirs.send_key, UNIT_BYTES))
    for train, burst in enumerate(sender.bursts_to_send(0.0)):
        joined = b"".join(burst.buffers)
        size = burst.segment_bytes
        datagrams = [joined[i : i + size].hex() for i in range(0, len(joined), size)]
        yield {
            "name": f"UNIT train {train}",
            "inputs": {"transfer": ID.hex(), "slot": 3, "value": value.hex(),
                       "unit_bytes": UNIT_BYTES},
            "datagrams": datagrams,
        }  # fmt: skip


def session_messages() -> Iterator[Vector]:
    """Each message of the data plane."""
    nonce = bytes(range(32))
    proof = blake3_keyed(nonce, VALUE)
    deposit = bytes.fromhex(next(v["bytes"] for v in statements() if v["name"] == "deposit"))
    entries = [
        messages.Entry(None, KEY, B3, len(VALUE), 0, bytes(33), 0, VALUE),
        messages.Entry(bytes(20), KEY, B3, len(VALUE), time_to_live=86_490),
    ]
    made = [
        messages.Get(ID, 3, KEY, None, B3[:8], 0, len(VALUE)),
        messages.Found(ID, KEY, B3, len(VALUE), 1, 51_727),
        messages.Absent(ID, messages.AbsentReason.BUSY),
        messages.Cancel(ID),
        messages.Offer(ID, [deposit], entries),
        messages.Answer(ID, bytes([0, 1]), [2160, 0]),
        messages.Stored(ID, [messages.Final(0, 0, 2160)]),
        messages.Provide(ID, b"record"),
        messages.Done(ID, 0),
        messages.Prove(ID, nonce, [messages.Row(KEY, KEY, B3)]),
        messages.Proof(ID, [proof, None]),
        messages.Compare(ID, 4, bytes([0xA0]) + bytes(7), bytes(range(16))),
        messages.Compared(ID, False),
        messages.Names(ID, 4, bytes([0xA0]) + bytes(7), bytes(range(16))),
        messages.Lacking(ID, b"\2"),
        messages.GetMany(ID, 3, [messages.Want(KEY, KEY, B3[:8], len(VALUE))] * 2),
        messages.FoundMany(ID, b"\2", 51_727),
    ]
    for message in made:
        yield vector(type(message).__name__.upper(), messages.encode(message))


def build() -> dict[str, Any]:
    """Return the whole of ``wire.json``."""
    shaken, ours, theirs = handshake()
    return {
        "about": "Examples of docs/protocol.rst; all bytes in hexadecimal.",
        "now": NOW,
        "statements": list(statements()),
        "control plane": list(control_plane()),
        "handshake": shaken,
        "session": list(session_datagrams(ours, theirs)),
        "messages": list(session_messages()),
    }


if __name__ == "__main__":
    print(json.dumps(build(), indent=1))
