"""What the router's packets, queue and chance do is a function of its arguments."""

import random

import pytest

pytest.importorskip("fcntl")
from benchmarks.namespaces import EDGE_BYTES, seconds_of_flow
from benchmarks.router import Fifo, Path, Tally


def fifo(rate=1000.0, delay=0.5, queue_bytes=300, loss=0.0, seed=1):
    return Fifo(rate, delay, queue_bytes, loss, random.Random(seed))


def test_packets_arrive_at_the_rate_after_the_delay():
    link = fifo()
    assert [link.offer(10.0, 100) for _ in range(3)] == pytest.approx([10.6, 10.7, 10.8])
    assert link.offer(20.0, 200) == pytest.approx(20.7)


def test_what_does_not_fit_into_the_queue_is_dropped_and_takes_no_time():
    link = fifo()
    arrivals = [link.offer(0.0, 100) for _ in range(5)]
    assert arrivals[3:] == [None, None]
    assert link.offer(0.1, 100) == pytest.approx(0.9)
    assert (link.packets, link.bytes, link.dropped, link.lost) == (6, 600, 2, 0)


def test_the_time_in_the_queue_is_told_by_shares():
    link = fifo(rate=1e6, queue_bytes=20_000)
    assert link.wait_us(0.5) == 0
    for number in range(10):
        link.offer(0.0, 1000 if number else 1100)  # they wait 0, 1.1 to 9.1 ms
    assert link.wait_us(0.5) == 4250
    assert link.wait_us(0.95) == link.wait_us(1.0) == 9250


def test_what_chance_takes_has_used_its_share_of_the_rate():
    link = fifo(loss=1.0)
    assert [link.offer(0.0, 100) for _ in range(4)] == [None] * 4
    assert (link.dropped, link.lost) == (1, 3)


def test_the_same_seed_loses_the_same_packets_and_the_directions_differ():
    def lost(seed, direction):
        link = Path(300, 50, 0.02, queue_products=1000, seed=seed).make_fifo(direction)
        return [n for n in range(5000) if link.offer(0.0, 1400) is None]

    assert 60 < len(lost(1, 0)) < 140
    assert lost(1, 0) == lost(1, 0)
    assert lost(1, 0) != lost(1, 1) != lost(2, 1)


def test_a_queue_is_as_large_as_what_is_on_its_way_in_a_round_trip():
    assert Path(300, 50).queue_bytes == 1_875_000
    assert Path(1000, 200, queue_products=0.1).queue_bytes == 2_500_000


def test_a_body_that_comes_twice_was_sent_again_and_small_packets_do_not_count():
    tally = Tally()
    chance = random.Random(1)
    bodies = [chance.randbytes(1400) for _ in range(10)]
    for number, body in enumerate([*bodies, *bodies[:3], bytes(100), bytes(100)]):
        tally.count(body, arrives=number != 0)
    assert (tally.bulk, tally.again, tally.needless) == (13, 3, 2)
    tally.count(bodies[0], arrives=True)
    assert (tally.again, tally.needless) == (4, 3)


def test_a_flow_lasts_from_its_first_bytes_to_nearly_its_last():
    size = 10 * EDGE_BYTES
    samples = [(0.0, 0), (1.0, 100), (2.0, size // 2), (3.0, size - 100), (9.0, size)]
    assert seconds_of_flow(samples) == 2.0
