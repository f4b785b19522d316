"""Deposits with their Merkle proofs, and provider records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.config import HOUR
from bytestag.crypto import deposits
from bytestag.crypto import providers as p
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


def record(keys=3, prefix_bits=0, version=2):
    chosen = [KeyBytes.new_hash(bytes([n])) for n in range(keys)]
    return make_provider_record(
        IDENTITY, NETWORK, 9, UNTIL, [("127.0.0.1", 4000)], chosen, prefix_bits, version
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


@pytest.mark.parametrize("version", [1, 2])
def test_keys_outside_the_signed_prefix_are_refused(version):
    with pytest.raises(PacketError, match="prefix" if version == 1 else "ascending"):
        read_provider_record(record(keys=20, prefix_bits=8, version=version).packed, NETWORK)


@given(st.integers(0, 160), st.sets(st.binary(min_size=20, max_size=20), min_size=1, max_size=9))
def test_keys_survive_whatever_prefix_they_share(bits, keys):
    first = KeyBytes(min(keys))
    shared = {KeyBytes(p.masked(first, bits)[: bits // 8] + key[bits // 8 :]) for key in keys}
    shared = {key for key in shared if p.masked(key, bits) == p.masked(first, bits)} | {first}
    made = make_provider_record(IDENTITY, NETWORK, 9, UNTIL, [], sorted(shared), bits)
    assert read_provider_record(made.packed, NETWORK).keys == tuple(sorted(shared))


@given(st.sets(st.binary(min_size=20, max_size=20), max_size=300), st.integers(1, 40))
def test_keys_are_cut_into_records_that_share_their_prefix(keys, most):
    ordered = sorted(map(KeyBytes, keys))
    made = list(p.cut(ordered, most=most))
    assert [key for _, chosen in made for key in chosen] == ordered
    for bits, chosen in made:
        assert 0 < len(chosen) <= most
        assert len({p.masked(key, bits) for key in chosen}) == 1


def test_a_renewal_says_what_was_signed_and_every_flipped_byte_is_noticed():
    named = [(n, p.masked(b"\xa5" * 20, n), bytes([n]) * 8) for n in (0, 9, 64)]
    packed = p.make_renewal(IDENTITY, NETWORK, bytes(20), 7, UNTIL, named)
    read = p.read_renewal(packed, NETWORK)
    assert (read.node_id, read.seq, read.expires) == (IDENTITY.node_id, 7, UNTIL)
    assert list(read.records) == named
    assert read.is_signed()
    for position in range(len(packed)):
        broken = bytearray(packed)
        broken[position] ^= 1
        try:
            assert not p.read_renewal(bytes(broken), NETWORK).is_signed()
        except PacketError:
            continue


@given(st.binary(max_size=800))
def test_any_bytes_are_a_renewal_or_a_packet_error(packed):
    with pytest.raises(PacketError):
        p.read_renewal(packed, NETWORK)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_provider_record_or_a_packet_error(packed):
    with pytest.raises(PacketError):
        read_provider_record(packed, NETWORK)
