"""How long values are kept: the formula of 2012 and what donors grant."""

import math
import random

import pytest

from bytestag.config import DAY, HOUR, K
from bytestag.dht.lifetimes import Placement, granted_seconds, time_to_live
from bytestag.keys import KeyBytes


def closeness(own, target, contacts):
    return Placement(own, contacts).closeness(target)


def key(number):
    return KeyBytes(number.to_bytes(20, "big"))


@pytest.mark.parametrize(("better", "seconds"), [(20, 31_818), (60, 4_306), (100, 583)])
def test_the_figures_of_2012(better, seconds):
    assert time_to_live(better) == seconds


def test_who_is_among_the_closest_keeps_a_value_in_full():
    # 2012 meant this too, but computed 82,272 s for one better node: its test never applied.
    assert {time_to_live(better) for better in range(K)} == {86_490}
    assert round(86_490 / math.exp(1 / 20)) == 82_272


def test_the_farther_the_shorter_and_never_negative():
    lives = [time_to_live(better) for better in range(1000)]
    assert lives == sorted(lives, reverse=True)
    assert lives[-1] == 0


def test_contacts_in_nearer_buckets_and_closer_ones_of_the_same_count():
    own, target = 0b0000, 0b0110
    nearer, same_closer, same_farther, farther = 0b0001, 0b0111, 0b0100, 0b1000
    assert closeness(key(own), key(target), [key(nearer)]) == 1
    assert closeness(key(own), key(target), [key(same_closer)]) == 1
    assert closeness(key(own), key(target), [key(same_farther)]) == 1  # closer than we, still
    assert closeness(key(own), key(target), [key(farther)]) == 0
    assert closeness(key(own), key(target), []) == 0


def test_a_value_lives_longest_where_its_key_is_nearest():
    rng = random.Random(4)
    nodes = [key(rng.getrandbits(160)) for _ in range(500)]
    target = key(rng.getrandbits(160))
    nodes.sort(key=target.distance_int)
    lives = []
    for at in (0, 5, 100, 499):
        others = [node for node in nodes if node != nodes[at]]
        lives.append(time_to_live(closeness(nodes[at], target, others)))
    assert lives[0] == lives[1] == 86_490
    assert lives[1] > lives[2] > lives[3]


def test_a_donor_grants_less_the_fuller_it_is():
    asked = 200 * DAY
    fills = {0.0: 90 * DAY, 0.499: 90 * DAY, 0.5: 7 * DAY, 0.79: 7 * DAY, 0.8: DAY, 0.949: DAY}
    assert {fill: granted_seconds(asked, fill) for fill in fills} == fills
    assert granted_seconds(asked, 0.95) == granted_seconds(asked, 1.2) == 0


def test_a_donor_grants_no_more_than_was_asked():
    assert granted_seconds(HOUR, 0.1) == HOUR
    assert granted_seconds(3 * DAY, 0.9) == DAY
    assert granted_seconds(-5, 0.1) <= 0
