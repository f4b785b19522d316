"""Frames of a CONTROL datagram: what is written is read, anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import PacketError
from bytestag.network import frames as f

u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
nonces = st.binary(min_size=8, max_size=8)
any_frame = (
    st.builds(
        lambda number, pair, body: f.Message(number, min(pair), max(pair) + 1, body),
        u32,
        st.tuples(st.integers(0, 63), st.integers(0, 63)),
        st.binary(max_size=1140),
    )
    | st.builds(f.Ack, u64, u64)
    | st.builds(f.Units, st.lists(st.tuples(u32, u64), max_size=80).map(tuple))
    | st.just(f.Ping())
    | st.builds(f.Close, st.integers(0, 255))
    | st.builds(f.PathChallenge, nonces)
    | st.builds(f.PathResponse, nonces)
)


@given(st.lists(any_frame, max_size=6), st.integers(0, 5))
def test_frames_are_read_as_they_were_written_with_padding_between(frames, padding):
    text = b"".join(bytes(padding) + f.encode(frame) for frame in frames) + bytes(padding)
    assert f.decode(text) == frames


@given(st.lists(any_frame, min_size=1, max_size=3), st.data())
def test_a_cut_anywhere_is_noticed_or_falls_between_frames(frames, data):
    texts = [f.encode(frame) for frame in frames]
    text = b"".join(texts)
    cut = data.draw(st.integers(0, len(text) - 1))
    boundaries = [sum(map(len, texts[:i])) for i in range(len(texts) + 1)]
    if cut in boundaries:
        assert f.decode(text[:cut]) == frames[: boundaries.index(cut)]
    else:
        with pytest.raises(PacketError):
            f.decode(text[:cut])


@given(st.binary(max_size=1500))
def test_any_bytes_decode_or_raise_the_one_error(text):
    try:
        decoded = f.decode(text)
    except PacketError:
        return
    assert f.decode(b"".join(map(f.encode, decoded))) == decoded


@pytest.mark.parametrize(
    "text",
    [
        b"\x08",
        b"\xff",
        b"\x01\0\0\0\0\x00\x00\x00\x00",  # no fragments at all
        b"\x01\0\0\0\0\x01\x01\x00\x00",  # fragment 1 of 1, counted from 0
        b"\x01\0\0\0\0\x00\x41\x00\x00",  # 65 fragments
        b"\x01\0\0\0\0\x00\x01\x04\x75" + bytes(1141),
        b"\x03\x51" + bytes(12 * 81),
        b"\x03\x02" + bytes(12),
        b"\x03",
        b"\x05",
        b"\x06" + bytes(7),
    ],
)
def test_frames_beyond_their_limits_are_refused(text):
    with pytest.raises(PacketError):
        f.decode(text)


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 1), (1140, 1), (1141, 2), (72_960, 64)])
def test_a_message_is_cut_into_as_few_fragments_as_possible(size, count):
    message = bytes(i % 251 for i in range(size))
    texts = f.fragments(7, message)
    frames = [frame for text in texts for frame in f.decode(text)]
    assert len(frames) == count
    assert [(x.number, x.fragment, x.fragments) for x in frames] == [
        (7, i, count) for i in range(count)
    ]
    assert b"".join(frame.body for frame in frames) == message


def test_a_message_that_is_too_long_is_a_bug_here():
    with pytest.raises(AssertionError):
        f.fragments(0, bytes(72_961))


def test_the_bitmap_of_an_ack_names_counters_below_the_largest():
    assert [n for n in range(20) if f.Ack(10, 0b1001).covers(n)] == [6, 9, 10]
    assert [n for n in range(20) if f.Ack(10, 0).covers(n)] == [10]
    assert [n for n in range(200) if f.Ack(100, 2**64 - 1).covers(n)] == list(range(36, 101))
