"""How a session begins, and what a stranger cannot do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import PacketError
from bytestag.network.handshake import CHALLENGE
from tests.network.helpers import ALICE, ALICE_ID, BOB_ID, initiator, responder

NOW = 1_700_000_000.0


def test_both_ends_agree_and_the_responder_learns_the_proven_id():
    answerer, mint = responder()
    asker = initiator(mint.issue(ALICE, NOW))
    answer, theirs = answerer.receive(asker.datagram, ALICE, NOW)
    ours = asker.receive(answer)
    assert theirs.node_id == ALICE_ID.node_id
    assert ours.node_id == BOB_ID.node_id
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert (ours.local_id, ours.remote_id) == (theirs.remote_id, theirs.local_id)


def test_without_a_token_there_is_a_challenge_and_then_a_session():
    answerer, _ = responder()
    asker = initiator()
    answer, agreement = answerer.receive(asker.datagram, ALICE, NOW)
    assert agreement is None
    assert answer[9] == CHALLENGE
    assert len(answer) < len(asker.datagram)
    assert asker.receive(answer) is None
    answer, agreement = answerer.receive(asker.datagram, ALICE, NOW)
    assert asker.receive(answer).send_key == agreement.receive_key


def test_a_forged_accept_does_not_spoil_the_handshake():
    answerer, mint = responder()
    asker = initiator(mint.issue(ALICE, NOW))
    answer, theirs = answerer.receive(asker.datagram, ALICE, NOW)
    for forged in (answer[:-1] + bytes([answer[-1] ^ 1]), answer[:10] + bytes(len(answer) - 10)):
        with pytest.raises(PacketError):
            asker.receive(forged)
    assert asker.receive(answer).send_key == theirs.receive_key


def test_an_init_seen_before_gets_a_challenge_only():
    answerer, mint = responder()
    asker = initiator(mint.issue(ALICE, NOW))
    answerer.receive(asker.datagram, ALICE, NOW)
    answer, agreement = answerer.receive(asker.datagram, ALICE, NOW)
    assert agreement is None
    assert answer[9] == CHALLENGE


def test_a_token_of_another_address_or_an_old_hour_is_worth_nothing():
    answerer, mint = responder()
    for token in (mint.issue(("127.0.0.1", 1), NOW), mint.issue(ALICE, NOW - 3 * 3600)):
        assert answerer.receive(initiator(token).datagram, ALICE, NOW)[1] is None
    token = mint.issue(ALICE, NOW - 3600)
    assert answerer.receive(initiator(token).datagram, ALICE, NOW)[1] is not None


def test_an_answer_is_never_longer_than_three_times_the_init():
    answerer, mint = responder()
    for token in (bytes(16), mint.issue(ALICE, NOW)):
        asker = initiator(token)
        assert len(answerer.receive(asker.datagram, ALICE, NOW)[0]) <= 3 * len(asker.datagram)


def test_an_init_for_another_network_is_not_answered():
    answerer, mint = responder()
    asker = initiator(mint.issue(ALICE, NOW), network=b"elsewher")
    with pytest.raises(PacketError):
        answerer.receive(asker.datagram, ALICE, NOW)


def test_an_id_without_the_work_is_not_answered():
    answerer, mint = responder(pow_bits=30)
    with pytest.raises(PacketError, match="work"):
        answerer.receive(initiator(mint.issue(ALICE, NOW)).datagram, ALICE, NOW)


def test_a_forged_challenge_is_ignored():
    answerer, _ = responder()
    asker = initiator()
    answer, _ = answerer.receive(asker.datagram, ALICE, NOW)
    forged = answer[:10] + bytes(16) + answer[26:]
    with pytest.raises(PacketError, match="another handshake"):
        asker.receive(forged)


def test_endless_challenges_end_the_handshake():
    answerer, _ = responder()
    asker = initiator()

    def challenge_again():
        answer, _ = answerer.receive(asker.datagram, ("127.0.0.1", 5), NOW)
        asker.receive(answer[:26] + bytes(16))

    for _ in range(asker.RETRIES_MAX):
        challenge_again()
    with pytest.raises(PacketError, match="too many"):
        challenge_again()


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_by_both_ends(tail):
    answerer, _ = responder()
    head = b"\x41" + bytes(8)
    try:
        answer, agreement = answerer.receive(head + b"\x01" + tail, ALICE, NOW)
        assert agreement is None
        assert len(answer) <= 3 * (10 + len(tail))
    except PacketError:
        pass
    with pytest.raises(PacketError):
        initiator().receive(head + b"\x02" + tail)
