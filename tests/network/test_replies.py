"""Which replies count: the right ID from the right address, once."""

from bytestag.network.replies import REPLIES_MAX, ReplyTable

ALICE, MALLORY = ("192.0.2.1", 4000), ("192.0.2.6", 6666)
ID = bytes(20)


def test_a_reply_is_taken_once():
    table = ReplyTable()
    table.expect(ID, ALICE, "waiter")
    assert len(table) == 1
    assert table.take(ID, ALICE) == "waiter"
    assert table.take(ID, ALICE) is None
    assert len(table) == 0


def test_a_reply_from_elsewhere_or_to_nothing_is_nobodys_and_takes_nothing():
    table = ReplyTable()
    table.expect(ID, ALICE, "waiter")
    assert table.take(ID, MALLORY) is None
    assert table.take(ID, (ALICE[0], 4001)) is None
    assert table.take(bytes([1]) * 20, ALICE) is None
    assert table.take(ID, ALICE) == "waiter"


def test_the_same_id_may_wait_for_two_addresses():
    table = ReplyTable()
    table.expect(ID, ALICE, "one")
    table.expect(ID, MALLORY, "two")
    assert table.take(ID, MALLORY) == "two"
    assert table.take(ID, ALICE) == "one"


def test_a_full_table_says_so_until_there_is_room():
    table = ReplyTable(2)
    for number in range(2):
        assert not table.is_full
        table.expect(bytes([number]) * 20, ALICE, number)
    assert table.is_full
    table.take(bytes(20), ALICE)
    assert not table.is_full
    assert REPLIES_MAX == 4096


def test_draining_returns_everybody_and_leaves_nobody():
    table = ReplyTable()
    for number in range(3):
        table.expect(bytes([number]) * 20, ALICE, number)
    assert table.drain() == [0, 1, 2]
    assert table.drain() == []
