"""Deposits with their Merkle proofs, and provider records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.config import HOUR
from bytestag.crypto import deposits
from bytestag.crypto.identity import Identity
from bytestag.crypto.providers import make_provider_record, read_provider_record
from bytestag.errors import PacketError
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes

NETWORK = b"network!"
IDENTITY = Identity.from_bytes(bytes(range(64)))
UNTIL = 500_000 * HOUR


def leaves(count):
    return [blake3(bytes([n])) for n in range(count)]


def deposit(count=5, seq=7):
    return deposits.make_deposit(IDENTITY.signing, NETWORK, seq, UNTIL, leaves(count))


@given(st.integers(1, 64), st.data())
def test_every_leaf_has_a_proof_to_the_root(count, data):
    position = data.draw(st.integers(0, count - 1))
    proof = deposits.merkle_proof(leaves(count), position)
    assert deposits.covers(deposit(count), proof, leaves(count)[position])
    assert len(proof) <= 1 + 6 * 32


@given(st.integers(2, 64), st.data())
def test_a_proof_proves_no_other_leaf(count, data):
    position = data.draw(st.integers(0, count - 1))
    proof = deposits.merkle_proof(leaves(count), position)
    other = leaves(count)[(position + 1) % count]
    assert not deposits.covers(deposit(count), proof, other)
    assert not deposits.covers(deposit(count), proof + bytes(32), leaves(count)[position])
    assert not deposits.covers(deposit(count), proof[:-32], leaves(count)[position])


@given(st.binary(max_size=260))
def test_any_bytes_are_a_proof_or_not(proof):
    assert not deposits.covers(deposit(), proof, blake3(b"stranger"))


def test_a_deposit_says_what_was_signed():
    read = deposits.read_deposit(deposit().packed, NETWORK)
    assert read == deposit()
    assert read.keep_until == UNTIL
    assert read.depositor == IDENTITY.signing.public


def test_every_flipped_byte_of_a_deposit_is_noticed():
    packed = deposit().packed
    for position in range(len(packed)):
        broken = bytearray(packed)
        broken[position] ^= 1
        with pytest.raises(PacketError):
            deposits.read_deposit(bytes(broken), NETWORK)


def test_a_deposit_of_another_network_is_refused():
    with pytest.raises(PacketError):
        deposits.read_deposit(deposit().packed, b"elsewher")


def record(keys=3, prefix_bits=0):
    chosen = [KeyBytes.new_hash(bytes([n])) for n in range(keys)]
    return make_provider_record(
        IDENTITY, NETWORK, 9, UNTIL, [("127.0.0.1", 4000)], chosen, prefix_bits
    )


def test_a_provider_record_says_what_was_signed():
    read = read_provider_record(record().packed, NETWORK)
    assert read == record()
    assert read.node_id == IDENTITY.node_id
    assert read.expires == UNTIL
    assert list(read.keys) == sorted(KeyBytes.new_hash(bytes([n])) for n in range(3))


def test_every_flipped_byte_of_a_provider_record_is_noticed():
    packed = record().packed
    for position in range(len(packed)):
        broken = bytearray(packed)
        broken[position] ^= 1
        with pytest.raises(PacketError):
            read_provider_record(bytes(broken), NETWORK)


def test_keys_outside_the_signed_prefix_are_refused():
    with pytest.raises(PacketError, match="prefix"):
        read_provider_record(record(keys=20, prefix_bits=8).packed, NETWORK)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_provider_record_or_a_packet_error(packed):
    with pytest.raises(PacketError):
        read_provider_record(packed, NETWORK)
