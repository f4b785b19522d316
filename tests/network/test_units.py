"""Units: a value goes in, segments come out, and back again; what does not fit is refused."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytestag.config import DATAGRAM_BYTES_MAX, TRAIN_DATAGRAM_BYTES_MAX, VALUE_BYTES_MAX
from bytestag.errors import PacketError
from bytestag.network.units import (
    BODY_BYTES_MIN,
    SEGMENTS_MAX,
    UNIT_HEAD_BYTES,
    Download,
    Upload,
    unit_bytes_for,
    unit_key,
)

ROOT = bytes(range(32))
TRANSFER = bytes(range(20))
BODY = DATAGRAM_BYTES_MAX - UNIT_HEAD_BYTES
UNIT_BYTES = unit_bytes_for(DATAGRAM_BYTES_MAX)


def pair(value, unit_bytes=UNIT_BYTES, root=ROOT, transfer_id=TRANSFER):
    upload = Upload(transfer_id, 3, [memoryview(value)], root, unit_bytes)
    download = Download(TRANSFER, 3, ROOT, VALUE_BYTES_MAX)
    download.announce(len(value), unit_bytes)
    return upload, download


@given(st.lists(st.integers(0, 5_000), max_size=12), st.integers(1024, 4_000))
def test_a_value_in_pieces_is_sent_as_one(sizes, unit_bytes):
    rng = random.Random(1)
    pieces = [memoryview(rng.randbytes(size)) for size in sizes]
    upload = Upload(TRANSFER, 3, pieces, ROOT, unit_bytes)
    whole = Upload(TRANSFER, 3, [memoryview(b"".join(pieces))], ROOT, unit_bytes)
    assert upload.units_count == whole.units_count
    assert segments(upload, 1_500) == segments(whole, 1_500)
    assert upload.units.keys() == whole.units.keys()


def segments(upload, body_bytes=BODY):
    """Seal everything; return (unit, segment, body bytes, body)."""
    result = []
    while upload.has_next:
        unit, sealed = upload.seal_next(body_bytes)
        result += [(unit, n, sealed.body_bytes, sealed.segment(n)) for n in range(sealed.segments)]
    return result


@settings(deadline=None)
@given(
    st.integers(0, 300_000),
    st.integers(1024, 65_535),
    st.sampled_from([BODY, TRAIN_DATAGRAM_BYTES_MAX - UNIT_HEAD_BYTES, 1024]),
    st.integers(0, 2**32),
)
def test_segments_in_any_order_and_twice_give_the_value(size, unit_bytes, body_bytes, seed):
    rng = random.Random(seed)
    value = rng.randbytes(size)
    unit_bytes = min(unit_bytes, body_bytes * 44 - 17)
    upload, download = pair(value, unit_bytes)
    pieces = segments(upload, body_bytes)
    pieces += rng.choices(pieces, k=5) if pieces else []
    rng.shuffle(pieces)
    for piece in pieces:
        download.receive(*piece)
    assert download.is_done
    assert bytes(download.buffer) == value
    assert download.received_bytes == size


@given(st.integers(1, 200_000), st.integers(1024, 65_535))
def test_the_last_segment_is_always_shorter_and_a_unit_fits_in_a_train(size, unit_bytes):
    unit_bytes = min(unit_bytes, UNIT_BYTES)
    upload, _ = pair(bytes(size), unit_bytes)
    while upload.has_next:
        _, sealed = upload.seal_next(BODY)
        assert sealed.segments <= 45
        lengths = [len(sealed.segment(n)) for n in range(sealed.segments)]
        assert set(lengths[:-1]) <= {sealed.body_bytes}
        assert 0 < lengths[-1] < sealed.body_bytes <= BODY


def test_a_full_unit_fills_a_train_of_44_datagrams():
    for datagram_bytes in (DATAGRAM_BYTES_MAX, TRAIN_DATAGRAM_BYTES_MAX):
        body = datagram_bytes - UNIT_HEAD_BYTES
        upload, _ = pair(bytes(VALUE_BYTES_MAX), unit_bytes_for(datagram_bytes))
        _, sealed = upload.seal_next(body)
        assert sealed.segments == 44
        assert sealed.body_bytes == body
        assert 44 * datagram_bytes <= 65_507


def test_an_empty_value_is_done_at_once():
    upload, download = pair(b"")
    assert upload.is_done
    assert download.is_done
    assert not upload.has_next


def test_an_upload_is_done_when_each_segment_was_acknowledged():
    upload, _ = pair(bytes(60_000))
    pieces = segments(upload)
    for unit, segment, _, _ in pieces:
        assert not upload.is_done
        upload.acknowledge(unit, 1 << segment)
        upload.acknowledge(unit, 1 << segment)
    assert upload.is_done
    assert upload.units == {}
    upload.acknowledge(99, 1)


@pytest.mark.parametrize("wrong", [{"root": bytes(32)}, {"transfer_id": bytes(20)}])
def test_another_key_or_transfer_does_not_authenticate(wrong):
    upload, download = pair(b"value" * 100, **wrong)
    (piece,) = segments(upload)
    with pytest.raises(PacketError, match="authenticate"):
        download.receive(*piece)
    assert not download.is_done
    assert bytes(download.buffer) == bytes(500)


def test_a_unit_cannot_stand_in_for_another():
    upload, download = pair(random.Random(1).randbytes(2 * UNIT_BYTES))
    second = [(0, n, body, piece) for unit, n, body, piece in segments(upload) if unit == 1]
    for piece in second[:-1]:
        download.receive(*piece)
    with pytest.raises(PacketError, match="authenticate"):
        download.receive(*second[-1])


def test_a_shorter_value_cannot_stand_in_for_a_longer_one():
    upload, _ = pair(bytes(1000))
    download = Download(TRANSFER, 3, ROOT, VALUE_BYTES_MAX)
    download.announce(1001, UNIT_BYTES)
    (piece,) = segments(upload)
    with pytest.raises(PacketError):
        download.receive(*piece)


@pytest.mark.parametrize(
    ("unit", "segment", "body_bytes", "body"),
    [
        (2, 0, 1000, bytes(1000)),  # the value has two units
        (2**32 - 1, 0, 1000, bytes(1000)),
        (0, 1, 1000, bytes(1000)),  # beyond the first unit's end
        (0, 63, 1000, bytes(1000)),
        (0, 0, 1000, bytes(999)),
        (0, 0, 1000, bytes(1001)),
        (0, 0, 0, b""),
        (0, 0, BODY_BYTES_MIN - 1, bytes(BODY_BYTES_MIN - 1)),
        (1, 0, 1000, bytes(1000)),  # the second unit has 17 bytes
    ],
)
def test_a_segment_that_fits_no_unit_is_refused(unit, segment, body_bytes, body):
    download = Download(TRANSFER, 3, ROOT, VALUE_BYTES_MAX)
    download.announce(985, 984)
    with pytest.raises(PacketError):
        download.receive(unit, segment, body_bytes, memoryview(body))


def test_a_unit_in_too_many_segments_is_refused():
    download = Download(TRANSFER, 3, ROOT, VALUE_BYTES_MAX)
    download.announce(65_535, 65_535)
    with pytest.raises(PacketError, match="segment size"):
        download.receive(0, 0, 1000, memoryview(bytes(1000)))
    assert SEGMENTS_MAX < -(-65_551 // 1000)


@pytest.mark.parametrize("in_runs", [False, True])
def test_a_unit_that_is_cut_into_smaller_segments_begins_anew_and_late_ones_are_ignored(in_runs):
    value = random.Random(1).randbytes(unit_bytes_for(TRAIN_DATAGRAM_BYTES_MAX))
    upload, download = pair(value, len(value))
    larger = segments(upload, TRAIN_DATAGRAM_BYTES_MAX - UNIT_HEAD_BYTES)
    smaller = segments(pair(value, len(value))[0])
    place = download.receive_run if in_runs else download.receive
    for number, piece in enumerate(larger[:-1]):
        if number % 2:
            place(*piece[:3], bytes(piece[3]))
    for number, piece in enumerate(smaller):
        assert not download.is_done
        place(*piece[:3], bytes(piece[3]))
        if number % 2:
            place(*larger[number % 7][:3], bytes(larger[number % 7][3]))
    assert download.buffer == value


@pytest.mark.parametrize("in_runs", [False, True])
def test_a_smaller_cut_that_somebody_made_up_fails_the_transfer_at_once(in_runs):
    value = random.Random(1).randbytes(unit_bytes_for(TRAIN_DATAGRAM_BYTES_MAX))
    upload, download = pair(value, len(value))
    place = download.receive_run if in_runs else download.receive
    genuine = segments(upload, TRAIN_DATAGRAM_BYTES_MAX - UNIT_HEAD_BYTES)
    place(0, 0, BODY, bytes(BODY))
    with pytest.raises(PacketError, match="fit"):
        [place(*piece[:3], bytes(piece[3])) for piece in genuine]


def test_a_segment_of_no_possible_size_is_refused():
    upload, download = pair(bytes(5000))
    for piece in segments(upload)[:1]:
        download.receive(*piece)
    for length in (BODY - 1, BODY + 1):
        with pytest.raises(PacketError, match="fit"):
            download.receive(0, 1, BODY, memoryview(bytes(length)))


def test_the_size_is_believed_once():
    download = Download(TRANSFER, 3, ROOT, VALUE_BYTES_MAX)
    assert not download.is_announced
    assert not download.is_done
    assert download.received_bytes == 0
    download.announce(10, 1024)
    download.announce(20, 2048)
    assert (download.length, download.unit_bytes) == (10, 1024)


def test_each_transfer_and_each_direction_has_its_own_key():
    assert len({unit_key(r, t) for r in (ROOT, bytes(32)) for t in (TRANSFER, bytes(20))}) == 4
