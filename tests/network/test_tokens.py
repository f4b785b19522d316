"""Tokens prove an address for an hour or two, and nothing else."""

import pytest

from bytestag.network.tokens import NO_TOKEN, TOKEN_BYTES, TokenMint

NOW = 1_800_000_000.0
ALICE = ("192.0.2.1", 4000)
mint = TokenMint(bytes(range(32)))


@pytest.mark.parametrize(
    ("age_seconds", "is_valid"),
    [(0, True), (3599, True), (3600, True), (7199, True), (7200, False)],
)
def test_a_token_holds_for_its_hour_and_the_next(age_seconds, is_valid):
    token = mint.issue(ALICE, NOW)  # NOW begins an hour
    assert len(token) == TOKEN_BYTES
    assert mint.is_valid(token, ALICE, NOW + age_seconds) is is_valid


def test_a_token_of_the_future_is_worth_nothing():
    assert not mint.is_valid(mint.issue(ALICE, NOW + 3600), ALICE, NOW)


@pytest.mark.parametrize("other", [("192.0.2.2", 4000), ("192.0.2.1", 4001), ("2001:db8::1", 4000)])
def test_a_token_belongs_to_one_ip_and_port(other):
    assert not mint.is_valid(mint.issue(ALICE, NOW), other, NOW)


def test_a_token_of_another_node_or_none_is_worth_nothing():
    assert not mint.is_valid(TokenMint(bytes(32)).issue(ALICE, NOW), ALICE, NOW)
    assert not mint.is_valid(NO_TOKEN, ALICE, NOW)
    assert not mint.is_valid(b"", ALICE, NOW)


def test_an_ipv4_address_is_the_same_in_its_mapped_form():
    assert mint.issue(("::ffff:192.0.2.1", 4000), NOW) == mint.issue(ALICE, NOW)
