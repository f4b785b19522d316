"""The Noise handshakes against the published cacophony vectors, and against tampering."""

import json
from pathlib import Path

import pytest

from bytestag.crypto.noise import NoiseIK
from bytestag.crypto.primitives import AESGCM, StaticKey
from bytestag.errors import PacketError

VECTORS = Path(__file__).with_name("noise_vectors.json")
PUBLISHED = ["Noise_IK_25519_AESGCM_SHA256", "Noise_IKpsk2_25519_AESGCM_SHA256"]


def pair(psk=None, prologue=b"p"):
    responder_static = StaticKey(bytes([2]) * 32)
    initiator = NoiseIK(
        StaticKey(bytes([1]) * 32),
        StaticKey(bytes([3]) * 32),
        prologue,
        remote_static=responder_static.public,
        psk=psk,
    )
    responder = NoiseIK(responder_static, StaticKey(bytes([4]) * 32), b"p", psk=psk)
    return initiator, responder


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_message_is_reproduced_and_read(name):
    vectors = json.loads(VECTORS.read_text())["vectors"]
    vector = next(v for v in vectors if v["protocol_name"] == name)
    unhex = bytes.fromhex
    psk = unhex(vector["init_psks"][0]) if vector.get("init_psks") else None
    initiator = NoiseIK(
        StaticKey(unhex(vector["init_static"])),
        StaticKey(unhex(vector["init_ephemeral"])),
        unhex(vector["init_prologue"]),
        remote_static=unhex(vector["init_remote_static"]),
        psk=psk,
    )
    responder = NoiseIK(
        StaticKey(unhex(vector["resp_static"])),
        StaticKey(unhex(vector["resp_ephemeral"])),
        unhex(vector["resp_prologue"]),
        psk=psk,
    )
    messages = [(unhex(m["payload"]), unhex(m["ciphertext"])) for m in vector["messages"]]
    assert initiator.write_1(messages[0][0]) == messages[0][1]
    assert responder.read_1(messages[0][1]) == messages[0][0]
    assert responder.write_2(messages[1][0]) == messages[1][1]
    assert initiator.read_2(messages[1][1]) == messages[1][0]
    assert initiator.handshake_hash == responder.handshake_hash == unhex(vector["handshake_hash"])
    assert initiator.split() == responder.split()
    keys = initiator.split()
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        nonce = bytes(4) + (number // 2).to_bytes(8, "big")
        assert AESGCM(keys[number % 2]).encrypt(nonce, payload, b"") == ciphertext


def test_both_ends_learn_each_other_and_agree_on_keys():
    initiator, responder = pair()
    assert responder.read_1(initiator.write_1(b"hello")) == b"hello"
    assert responder.remote_static == StaticKey(bytes([1]) * 32).public
    assert initiator.read_2(responder.write_2(b"world")) == b"world"
    assert initiator.split() == responder.split()


@pytest.mark.parametrize("position", [0, 31, 32, 79, 80, -1])
def test_a_flipped_bit_anywhere_in_message_1_is_refused(position):
    initiator, responder = pair()
    message = bytearray(initiator.write_1(b"hello"))
    message[position] ^= 1
    with pytest.raises(PacketError):
        responder.read_1(bytes(message))


def test_a_truncated_message_is_refused():
    initiator, responder = pair()
    message = initiator.write_1(b"")
    with pytest.raises(PacketError):
        responder.read_1(message[:-1])


def test_another_prologue_is_refused():
    initiator, responder = pair(prologue=b"another network")
    with pytest.raises(PacketError):
        responder.read_1(initiator.write_1(b"hello"))


def test_another_preshared_key_is_refused_by_the_initiator():
    initiator, responder = pair(psk=bytes(32))
    responder._psk = bytes([1]) * 32
    responder.read_1(initiator.write_1(b""))
    with pytest.raises(PacketError):
        initiator.read_2(responder.write_2(b""))


def test_a_public_key_of_small_order_is_refused():
    with pytest.raises(PacketError):
        StaticKey(bytes([1]) * 32).exchange(bytes(32))
