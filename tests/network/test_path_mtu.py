"""The size of a path's datagrams is found, size after size, and forgotten with the path."""

import random

import pytest

from bytestag.config import DATAGRAM_BYTES_MAX, TRAIN_DATAGRAM_BYTES_MAX, UDP_BYTES_MAX
from bytestag.network.path_mtu import SIZES, PathMtu
from bytestag.network.path_probes import PathProbes
from bytestag.network.rtt import Rtt

from .helpers import BOB, Wire
from .test_session import confirmed, transfer

LARGE = 2**21


@pytest.mark.parametrize(
    ("mtu", "found"),
    [(1400, DATAGRAM_BYTES_MAX), (1472, TRAIN_DATAGRAM_BYTES_MAX), (9000, 8952),
     (65_535, UDP_BYTES_MAX)],
)  # fmt: skip
def test_what_a_path_takes_is_found_and_used(mtu, found):
    pair = confirmed(Wire(mtu_bytes=mtu))
    value = random.Random(mtu).randbytes(LARGE)
    first = transfer(pair, value)
    assert pair.drive(lambda: first.is_done)
    pair.drive(lambda: False, seconds=1)
    assert pair.bob._sender.datagram_bytes == found
    again = transfer(pair, value, bytes(20))
    assert pair.drive(lambda: again.is_done)
    assert again.buffer == value
    assert pair.bob.resent_segments == 0


def test_a_size_that_is_lost_by_chance_is_tried_again_and_a_larger_one_once():
    mtu, sent = PathMtu(), []
    while size := mtu.probe_bytes(2**30):
        sent.append(size)
        mtu.probed(len(sent))
        if len(sent) == 3:
            mtu.acknowledged()
        else:
            mtu.lost()
    assert sent == [SIZES[0]] * 3 + [SIZES[1]]
    assert mtu.datagram_bytes == SIZES[0]


def test_large_probes_wait_until_they_are_little_beside_what_was_sent():
    mtu = PathMtu()
    assert mtu.probe_bytes(0) == SIZES[0]
    mtu.probed(1)
    mtu.acknowledged()
    assert mtu.probe_bytes(10 * SIZES[1]) == 0
    assert mtu.probe_bytes(20 * SIZES[1]) == SIZES[1]


def test_one_probe_is_under_way_at_a_time():
    mtu = PathMtu()
    mtu.probed(7)
    assert (mtu.probe, mtu.probe_bytes(2**30)) == (7, 0)


def test_probes_that_nobody_answers_do_not_make_the_peer_seem_slow(monkeypatch):
    pair = confirmed(Wire(mtu_bytes=1300))
    backed_off = []
    monkeypatch.setattr(Rtt, "back_off", backed_off.append)
    download = transfer(pair, bytes(LARGE))
    assert pair.drive(lambda: download.is_done)
    pair.drive(lambda: False, seconds=5)
    assert not backed_off


def test_segments_cut_for_a_large_path_go_over_a_small_one_in_sends_that_are_small_enough():
    pair = confirmed(Wire(mtu_bytes=9000))
    first = transfer(pair, bytes(LARGE))
    assert pair.drive(lambda: first.is_done)
    pair.drive(lambda: False, seconds=1)
    value = random.Random(1).randbytes(LARGE)
    again = transfer(pair, value, bytes(20))
    for burst, _ in pair.bob.bursts_to_send(pair.now):  # of each unit its end arrives alone
        end = b"".join(burst.buffers[-2:])
        pair.alice.receive(memoryview(end), BOB, pair.now)
    pair.bob._sender.datagram_bytes = DATAGRAM_BYTES_MAX  # as when the path has changed
    pair.bob._sender.congestion.segments = lambda datagram_bytes, most: most
    sizes = []
    bursts = pair.bob.bursts_to_send

    def watched(now, **options):
        for burst, address in bursts(now, **options):
            sizes.append(sum(map(len, burst.buffers)))
            yield burst, address

    pair.bob.bursts_to_send = watched
    assert pair.drive(lambda: again.is_done)
    assert again.buffer == value
    assert max(sizes) <= UDP_BYTES_MAX


# --- Trains that the kernel or the card spoils ---------------------------------------------------


@pytest.mark.parametrize("begins", [0.0, 0.06])
@pytest.mark.parametrize("is_watched", [True, False])
def test_trains_are_cut_here_where_single_datagrams_arrive_and_they_do_not(
    monkeypatch, begins, is_watched
):
    if not is_watched:
        monkeypatch.setattr(PathProbes, "got_stuck", lambda probes: None)
    pair = confirmed(Wire(delay=0.01))
    value = random.Random(1).randbytes(LARGE)
    download = transfer(pair, value)
    pair.drive(lambda: False, seconds=begins)
    pair.wire.spoils_trains = True
    assert not download.is_done
    assert pair.drive(lambda: download.is_done, seconds=60) == is_watched
    if is_watched:
        assert pair.now < 20
        assert download.buffer == value
        assert pair.bob._sender.is_cutting


def test_an_outage_of_the_path_is_no_reason_to_cut_trains():
    pair = confirmed(Wire(delay=0.01))
    download = transfer(pair, random.Random(1).randbytes(LARGE))
    pair.drive(lambda: False, seconds=0.06)
    pair.wire.loss = 1.0
    pair.drive(lambda: False, seconds=5)
    assert not download.is_done
    pair.wire.loss = 0.0
    assert pair.drive(lambda: download.is_done)
    assert not pair.bob._sender.is_cutting
