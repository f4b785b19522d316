"""Identities and address cards."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.config import HOUR
from bytestag.crypto.identity import (
    DONOR,
    Identity,
    id_hash,
    make_card,
    pack_address,
    read_card,
    trailing_zero_bits,
    unpack_addresses,
)
from bytestag.errors import FormatError, PacketError
from bytestag.hashing import sha256

NETWORK = b"network!"
NOW = 1_700_000_000
IDENTITY = Identity.from_bytes(bytes(range(64)))


def card(addresses=(("127.0.0.1", 4000), ("::1", 4001)), now=NOW):
    return make_card(IDENTITY, NETWORK, list(addresses), DONOR, now)


def test_the_node_id_is_the_hash_of_both_public_keys():
    keys = IDENTITY.signing.public + IDENTITY.static.public
    assert IDENTITY.node_id == sha256(b"bytestag/id/1" + keys)[:20]


def test_an_identity_survives_its_file():
    assert Identity.from_bytes(IDENTITY.to_bytes()).node_id == IDENTITY.node_id


def test_an_identity_of_the_wrong_length_is_refused():
    with pytest.raises(FormatError, match="64 bytes"):
        Identity.from_bytes(bytes(63))


def test_an_identity_has_the_asked_work_in_its_id():
    made = Identity.generate(random.Random(1).randbytes, pow_bits=6)
    assert trailing_zero_bits(id_hash(made.signing.public, made.static.public)) >= 6


def test_a_secret_never_shows_in_a_repr():
    assert IDENTITY.signing.secret.hex() not in repr(IDENTITY)
    assert "signing" not in repr(IDENTITY)


def test_a_card_says_what_was_signed():
    read = read_card(card().packed, NETWORK)
    assert read == card()
    assert read.node_id == IDENTITY.node_id
    assert read.addresses == (("127.0.0.1", 4000), ("::1", 4001))


@pytest.mark.parametrize("hours", [-3, 27])
def test_a_card_out_of_its_day_is_not_fresh(hours):
    assert not read_card(card().packed, NETWORK).is_fresh(NOW + hours * HOUR)


@pytest.mark.parametrize("hours", [-1, 0, 25])
def test_a_card_tolerates_two_hours_of_skew(hours):
    assert read_card(card().packed, NETWORK).is_fresh(NOW + hours * HOUR)


def test_a_card_of_another_network_is_refused():
    with pytest.raises(PacketError, match="network"):
        read_card(card().packed, b"elsewher")


def test_a_card_without_the_work_is_refused():
    with pytest.raises(PacketError, match="work"):
        read_card(card().packed, NETWORK, pow_bits=40)


def test_every_flipped_byte_of_a_card_is_noticed():
    packed = card().packed
    for position in range(len(packed)):
        broken = bytearray(packed)
        broken[position] ^= 0x10
        with pytest.raises(PacketError):
            read_card(bytes(broken), NETWORK)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_card_or_a_packet_error(packed):
    with pytest.raises(PacketError):
        read_card(packed, NETWORK)


@given(st.lists(st.tuples(st.ip_addresses().map(str), st.integers(1, 65535)), max_size=8))
def test_addresses_survive_packing(addresses):
    read = unpack_addresses(b"".join(map(pack_address, addresses)))
    assert len(read) == len(addresses)
    assert [port for _, port in read] == [port for _, port in addresses]


@given(st.binary(max_size=200))
def test_any_bytes_are_addresses_or_a_packet_error(packed):
    try:
        assert len(unpack_addresses(packed)) <= 8
    except PacketError:
        pass


def test_more_than_eight_addresses_are_refused():
    with pytest.raises(PacketError):
        unpack_addresses(pack_address(("10.0.0.1", 1)) * 9)
