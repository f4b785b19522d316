"""Which addresses a card may claim: those given, and those that enough others saw."""

import pytest

from bytestag.config import ADDRESSES_MAX
from bytestag.dht.reachability import (
    VOTED_MAX,
    Reachability,
    is_eligible,
    is_loopback,
    is_unspecified,
)

ANY = ("0.0.0.0", 4000)
SEEN = ("9.9.9.9", 4000)


def voters(count, third=0):
    return [(f"8.8.{n}.{third}", 4000) for n in range(count)]


def test_three_peers_of_distinct_networks_must_agree():
    ours = Reachability(ANY, is_local=False)
    one, two, three = voters(3)
    assert [ours.vote(voter, SEEN) for voter in (one, two)] == [False, False]
    assert ours.addresses == []
    assert ours.vote(three, SEEN)
    assert ours.addresses == [SEEN]
    assert not ours.vote(voters(4)[3], SEEN)  # nothing new


def test_many_peers_of_one_network_are_one():
    ours = Reachability(ANY, is_local=False)
    for n in range(50):
        assert not ours.vote((f"8.8.8.{n}", 4000), SEEN)
    for n in range(50):
        assert not ours.vote((f"2a00:1450:4001::{n + 1:x}", 4000), SEEN)
    assert ours.addresses == []


def test_peers_at_private_addresses_have_no_voice_in_the_open_network():
    ours = Reachability(ANY, is_local=False)
    for n in range(50):
        assert not ours.vote((f"10.0.{n}.1", 4000), SEEN)
    assert ours.addresses == []


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "192.168.0.9", "0.0.0.0", "224.0.0.5"])
def test_what_is_not_global_is_never_claimed_in_the_open_network(host):
    ours = Reachability(ANY, is_local=False)
    for voter in voters(5):
        assert not ours.vote(voter, (host, 4000))
    assert Reachability((host, 4000), is_local=False).addresses == []


def test_in_a_local_network_one_report_suffices():
    ours = Reachability(ANY, is_local=True)
    assert ours.vote(("10.0.0.2", 4000), ("10.0.0.1", 4000))
    assert ours.addresses == [("10.0.0.1", 4000)]
    assert not ours.vote(("10.0.0.2", 4000), ("0.0.0.0", 4000))


def test_an_address_that_was_given_is_known_from_the_start_and_stays():
    given = ("10.0.0.1", 4000)
    ours = Reachability(given, is_local=True)
    for n in range(100):
        ours.vote(("10.0.0.2", 4000), (f"10.9.9.{n}", 4000))
        assert len(ours.addresses) <= ADDRESSES_MAX
    assert ours.addresses[0] == given
    assert ours.addresses[-1] == ("10.9.9.99", 4000)


def test_votes_are_bounded_and_the_oldest_are_forgotten():
    ours = Reachability(ANY, is_local=False)
    one, two, three = voters(3)
    ours.vote(one, SEEN)
    ours.vote(two, SEEN)
    for n in range(1000):
        ours.vote(one, ("9.9.8.8", 1 + n))
        assert len(ours._votes) <= VOTED_MAX
    assert not ours.vote(three, SEEN)
    assert ours.addresses == []


def test_a_card_does_not_change_by_what_the_caller_does_with_the_list():
    ours = Reachability(("10.0.0.1", 4000), is_local=True)
    ours.addresses.append(SEEN)
    assert SEEN not in ours.addresses


def test_words_about_hosts():
    assert is_unspecified("0.0.0.0")
    assert is_unspecified("::")
    assert not is_unspecified("10.0.0.1")
    assert is_loopback("127.5.5.5")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.1")
    assert is_eligible("10.0.0.1", is_local=True)
    assert not is_eligible("10.0.0.1", is_local=False)
    assert not is_eligible("::", is_local=True)
