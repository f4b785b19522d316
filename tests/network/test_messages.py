"""Messages of a session: what is written is read, anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag import codec
from bytestag.config import OFFER_KEYS_MAX, VALUE_BYTES_MAX
from bytestag.errors import PacketError
from bytestag.network import frames
from bytestag.network import messages as m

bin20, bin32 = (st.binary(min_size=n, max_size=n) for n in (20, 32))
value_bytes, codes = st.integers(0, VALUE_BYTES_MAX), st.integers(0, 255)
hours, seconds = st.integers(0, 2**32 - 1), st.integers(0, 2**40)
entries = st.builds(
    m.Entry,
    st.none() | bin20,
    bin20,
    bin32,
    value_bytes,
    st.none() | st.integers(0, 63),
    st.binary(max_size=193),
    seconds,
    st.none() | st.binary(max_size=1024),
)
finals = st.builds(m.Final, st.integers(0, 63), codes, hours)
any_message = (
    st.builds(
        m.Get, bin20, st.integers(0, 65535), bin20, st.none() | bin20, st.binary(max_size=32),
        value_bytes, value_bytes,
    )
    | st.builds(m.Found, bin20, bin20, bin32, value_bytes, seconds, st.integers(1024, 65535))
    | st.builds(m.Absent, bin20, codes)
    | st.builds(m.Cancel, bin20)
    | st.builds(
        m.Offer, bin20, st.lists(st.binary(max_size=150), max_size=3),
        st.lists(entries, min_size=1, max_size=4),
    )
    | st.builds(m.Answer, bin20, st.binary(max_size=64), st.lists(hours, max_size=64))
    | st.builds(m.Stored, bin20, st.lists(finals, max_size=4))
    | st.builds(m.Provide, bin20, st.binary(max_size=300))
    | st.builds(m.Done, bin20, codes)
    | st.builds(
        m.Prove, bin20, bin32, st.lists(st.builds(m.Row, bin20, bin20, bin32), max_size=4)
    )
    | st.builds(m.Proof, bin20, st.lists(st.none() | bin32, max_size=4))
)  # fmt: skip

GET = [1, bytes(20), 0, bytes(20), None, b"", 0, 10]
FOUND = [2, bytes(20), bytes(20), bytes(32), 10, 0, 1024]


@given(any_message)
def test_a_message_is_read_as_it_was_written(message):
    assert m.decode(m.encode(message)) == message


@given(st.binary(max_size=300))
def test_any_bytes_decode_or_raise_the_one_error(packed):
    try:
        m.decode(packed)
    except PacketError:
        pass


scalars = st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.floats()
shapes = st.recursive(scalars, lambda inner: st.lists(inner, max_size=5), max_leaves=20)


@given(st.integers(-1, 13), st.lists(shapes, max_size=9))
def test_arrays_of_any_shape_decode_or_raise_the_one_error(kind, rest):
    try:
        m.decode(codec.encode([kind, *rest]))
    except PacketError:
        pass


@pytest.mark.parametrize(
    ("good", "position", "wrong"),
    [
        (GET, 0, 12),
        (GET, 0, 0),
        (GET, 1, bytes(19)),
        (GET, 2, 65536),
        (GET, 2, -1),
        (GET, 5, bytes(33)),
        (GET, 6, VALUE_BYTES_MAX + 1),
        (GET, 7, VALUE_BYTES_MAX + 1),
        (GET, 7, None),
        (FOUND, 4, VALUE_BYTES_MAX + 1),
        (FOUND, 6, 0),
        (FOUND, 6, 1023),  # a value of 1 MiB in units of one byte would cost 60 MB to keep track of
        (FOUND, 6, 65536),
    ],
)
def test_a_number_or_hash_out_of_range_is_refused(good, position, wrong):
    m.decode(codec.encode(good))
    with pytest.raises(PacketError):
        m.decode(codec.encode([*good[:position], wrong, *good[position + 1 :]]))


def test_an_offer_of_nothing_or_of_too_many_is_refused():
    entry = m.Entry(None, bytes(20), bytes(32), 1)
    for count in (0, OFFER_KEYS_MAX + 1):
        with pytest.raises(PacketError):
            m.decode(m.encode(m.Offer(bytes(20), [], [entry] * count)))


def test_the_largest_offer_of_values_to_fetch_fits_in_one_message():
    entry = m.Entry(bytes(20), bytes(20), bytes(32), VALUE_BYTES_MAX, 63, bytes(193), 2**40)
    packed = m.encode(m.Offer(bytes(20), [bytes(150)] * 64, [entry] * 64))
    assert len(packed) <= frames.MESSAGE_BYTES_MAX


def test_deep_nesting_is_refused():
    with pytest.raises(PacketError):
        m.decode(b"\x92\x01" + b"\x91" * 60_000)
