"""Control datagrams: what is written is read, and anything else is refused with one error."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag import codec
from bytestag.config import DATAGRAM_BYTES_MAX
from bytestag.errors import PacketError
from bytestag.network import packets as p

NETWORK = b"network!"
SEQUENCE = bytes(range(20))

bin16, bin20, bin32 = (st.binary(min_size=n, max_size=n) for n in (16, 20, 32))
queries = st.builds(
    p.Query,
    version=st.just(1),
    network=st.just(NETWORK),
    node_id=st.none() | bin20,
    capabilities=st.integers(0, 255),
    token=st.none() | bin16,
    target=st.none() | bin20,
    wants_card=st.booleans(),
)
replies = st.builds(
    p.Reply,
    version=st.just(1),
    network=st.just(NETWORK),
    observed=st.binary(max_size=24),
    token=bin16,
    node_id=st.none() | bin20,
    capabilities=st.integers(0, 255),
    card=st.none() | st.binary(max_size=400),
    contacts4=st.integers(0, 20).map(lambda n: bytes(26 * n)),
    contacts6=st.integers(0, 20).map(lambda n: bytes(38 * n)),
    held=st.lists(st.builds(p.Held, bin20, st.integers(0, 2**40), bin32), max_size=8),
    more=st.integers(0, 2**40 - 8),
    value=st.none() | st.binary(max_size=1024),
    providers=st.lists(
        st.builds(p.Provider, bin20, st.integers(0, 2**40), st.binary(max_size=200)), max_size=8
    ),
)


def a_query(**fields):
    return p.Query(1, NETWORK, **fields)


def a_reply(**fields):
    return p.Reply(1, NETWORK, observed=bytes(7), token=bytes(16), **fields)


def read_request(datagram):
    sequence_id, body = p.split(datagram)
    method, arguments = p.decode_request(body)
    return sequence_id, method, p.decode_query(method, arguments, NETWORK)


# --- Round trips ---------------------------------------------------------------------------------


@given(queries)
def test_a_request_is_read_as_it_was_written_but_for_its_padding(query):
    datagram = p.encode_request(SEQUENCE, "bt_ping", [query])
    assert datagram[0] == p.REQUEST
    sequence_id, method, read = read_request(datagram)
    assert (sequence_id, method) == (SEQUENCE, "bt_ping")
    read.padding = query.padding
    assert read == query


@given(replies)
def test_a_reply_that_fits_is_read_as_it_was_written(reply):
    whole = codec.encode(reply)
    datagram = p.encode_reply(SEQUENCE, reply, 10_000)
    assert datagram == bytes([p.RESPONSE]) + SEQUENCE + whole
    sequence_id, body = p.split(datagram)
    assert sequence_id == SEQUENCE
    assert codec.decoder(p.Reply)(body) == reply


def test_a_stock_request_and_its_reply_are_plain_values():
    datagram = p.encode_request(SEQUENCE, "store", [bytes(20), b"key", ["any", {"value": 1.5}]])
    assert len(datagram) < 100  # stock requests carry no padding
    _, body = p.split(datagram)
    method, arguments = p.decode_request(body)
    assert method == "store"
    assert p.decode_stock_arguments(arguments) == [bytes(20), b"key", ["any", {"value": 1.5}]]
    assert p.decode_stock_reply(p.split(p.encode_response(SEQUENCE, {"value": b"x"}))[1]) == {
        "value": b"x"
    }


# --- Amplification -------------------------------------------------------------------------------


@given(queries, st.sampled_from(sorted(p.NATIVE_METHODS)))
def test_without_a_token_a_request_has_at_least_a_third_of_the_largest_reply(query, method):
    datagram = p.encode_request(SEQUENCE, method, [query])
    if query.token is None:
        assert p.PADDED_BYTES <= len(datagram) <= p.PADDED_BYTES + 5  # the head of the padding
        assert 3 * len(datagram) >= DATAGRAM_BYTES_MAX
    else:
        assert len(datagram) < p.PADDED_BYTES
        assert query.padding == b""


def test_the_largest_reply_loses_far_contacts_first_and_then_fits():
    held = [p.Held(bytes([i]) * 20, 2**40, bytes(32)) for i in range(8)]
    providers = [p.Provider(bytes(20), 2**40, bytes(200)) for _ in range(8)]
    near = b"".join(bytes([i]) * 26 for i in range(20))
    reply = a_reply(
        node_id=bytes(20), capabilities=255, card=bytes(400), contacts4=near,
        contacts6=bytes(38 * 20), held=held, more=2**40 - 8, value=bytes(1024), providers=providers,
    )  # fmt: skip
    datagram = p.encode_reply(SEQUENCE, reply)
    assert len(datagram) <= DATAGRAM_BYTES_MAX
    assert p.decode_reply(p.split(datagram)[1], NETWORK) == reply
    assert reply.contacts6 == reply.contacts4 == b""
    assert reply.held == held  # what is held matters more than who else to ask


def test_contacts_that_are_left_out_are_the_far_ones():
    near = b"".join(bytes([i]) * 26 for i in range(20))
    reply = a_reply(contacts4=near, card=bytes(400), value=bytes(300))
    p.encode_reply(SEQUENCE, reply)
    assert 0 < len(reply.contacts4) < len(near)
    assert near.startswith(reply.contacts4)
    assert len(reply.contacts4) % 26 == 0


@given(replies, st.integers(200, 1200))
def test_a_reply_fits_in_any_room_that_holds_its_fixed_fields(reply, bytes_max):
    datagram = p.encode_reply(SEQUENCE, reply, bytes_max)
    assert len(datagram) <= bytes_max
    p.decode_reply(p.split(datagram)[1], NETWORK)


def test_rows_that_are_left_out_are_counted():
    reply = a_reply(held=[p.Held(bytes(20), 1, bytes(32))] * 8, more=2)
    p.encode_reply(SEQUENCE, reply, 300)
    assert len(reply.held) < 8
    assert reply.more == 2 + 8 - len(reply.held)


def test_where_not_even_the_fixed_fields_fit_nothing_is_answered():
    with pytest.raises(PacketError, match="no room"):
        p.encode_reply(SEQUENCE, a_reply(), 60)


# --- Whatever comes ------------------------------------------------------------------------------


def unexpected(datagram):
    """Give the bytes to every decoder that a stranger can reach; return errors of another kind."""
    found = []
    for decode in (_as_request, _as_reply, lambda body: p.decode_stock_reply(body)):
        try:
            decode(p.split(datagram)[1])
        except PacketError:
            pass
        except Exception as error:
            found.append(error)
    return found


def _as_request(body):
    method, arguments = p.decode_request(body)
    if method in p.NATIVE_METHODS:
        p.decode_query(method, arguments, NETWORK)
    else:
        p.decode_stock_arguments(arguments)


def _as_reply(body):
    p.decode_reply(body, NETWORK)


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_the_one_error(tail):
    assert not unexpected(tail)
    assert not unexpected(bytes(21) + tail)


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
    | st.binary(max_size=40) | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary())
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=2) | st.integers() | st.binary(max_size=3), inner)
    ),
    max_leaves=12,
)


@given(anything)
def test_msgpack_of_any_shape_decodes_or_raises_the_one_error(value):
    try:
        packed = codec.encode(value)
    except (OverflowError, ValueError):
        return
    assert not unexpected(bytes(21) + packed)


fields = st.dictionaries(st.sampled_from("vnictkwpod46hmlrqsuz"), anything, max_size=8)


@given(fields, st.sampled_from([*sorted(p.NATIVE_METHODS), "store", "no_such_method"]))
def test_fields_of_the_wrong_type_decode_or_raise_the_one_error(changes, method):
    right = {"v": 1, "n": NETWORK, "o": bytes(7), "t": bytes(16)}
    try:
        changed = codec.encode({**right, **changes})
        request = codec.encode([method, [{**right, **changes}]])
    except (OverflowError, ValueError):
        return
    assert not unexpected(bytes(21) + changed)
    assert not unexpected(bytes(21) + request)


@given(replies, st.data())
def test_a_changed_byte_decodes_or_raises_the_one_error(reply, data):
    datagram = bytearray(p.encode_reply(SEQUENCE, reply))
    position = data.draw(st.integers(21, len(datagram) - 1))
    datagram[position] = data.draw(st.integers(0, 255))
    assert not unexpected(bytes(datagram))


@pytest.mark.parametrize(
    "packed",
    [
        b"\x91" * 100_000,  # lists in lists
        b"\x81\x00" * 50_000,  # maps in maps
        b"\x81\xa1v" * 5000 + b"\x00",
        b"\xdd\xff\xff\xff\xff",  # four thousand million elements, none there
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x80\x00",  # a map as key
        b"\x81\x91\x80\x00",
        b"\x81\xc1\x00",
        b"\xd6\xff\xff\xff\xff\xff",  # timestamps
        b"\xc7\x0c\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\xd9\x01\xff",  # text that is not UTF-8
        b"\x92\xa7bt_ping\x91" + b"\x91" * 1200,
        b"\x92\xa5store\x91" + b"\x91" * 8000,
        b"\x92\xa5store\x93\x81\x80\x00\x81\xc4\x01a\x00\xff",
    ],
)
def test_what_breaks_careless_parsers_is_refused(packed):
    with pytest.raises(PacketError):
        _as_request(packed)
    with pytest.raises(PacketError):
        _as_reply(packed)
    assert not unexpected(bytes(21) + packed)


@pytest.mark.parametrize(
    "query",
    [
        {"v": 2, "n": NETWORK},
        {"v": 1, "n": b"elsewher"},
        {"v": 1, "n": NETWORK, "i": bytes(19)},
        {"v": 1, "n": NETWORK, "c": 256},
        {"v": 1, "n": NETWORK, "c": -1},
        {"v": 1, "n": NETWORK, "t": bytes(17)},
        {"v": 1, "n": NETWORK, "k": "k" * 20},
        {"v": 1, "n": NETWORK, "w": 1},
        {"v": 2**64 - 1, "n": NETWORK},
        {"v": 1},
        {"n": NETWORK},
        [1, NETWORK],
        None,
    ],
)
def test_a_query_of_another_version_network_or_size_is_refused(query):
    with pytest.raises(PacketError):
        p.decode_query("bt_ping", [msgspec.Raw(codec.encode(query))], NETWORK)


SUBJECTS = {
    "bt_find_node": {"target": bytes(20)},
    "bt_renew": {"renewal": bytes(9)},
    "bt_compare": {"comparison": p.Comparison(0, bytes(8), bytes(16))},
    "bt_prove": {"sample": p.Sample(bytes(32), p.Row(bytes(20), bytes(20), bytes(32)))},
}


@pytest.mark.parametrize("method", SUBJECTS)
@pytest.mark.parametrize("other", SUBJECTS)
def test_each_method_has_its_own_subject(method, other):
    datagram = p.encode_request(SEQUENCE, method, [a_query(**SUBJECTS[other])])
    if method == other:
        read_request(datagram)
        return
    with pytest.raises(PacketError, match=r"methods of their own|without a target"):
        read_request(datagram)


@pytest.mark.parametrize(
    "comparison",
    [[65, bytes(8), b""], [0, bytes(7), b""], [0, bytes(8), bytes(8 * 129)], [0, bytes(8)], b""],
)
def test_a_malformed_comparison_is_refused(comparison):
    packed = msgspec.Raw(codec.encode({"v": 1, "n": NETWORK, "q": comparison}))
    with pytest.raises(PacketError):
        p.decode_query("bt_compare", [packed], NETWORK)


def test_as_many_names_as_there_may_be_fit_a_datagram():
    names = p.Comparison(64, b"\xff" * 8, bytes(8 * p.NAMES_IN_QUERY_MAX))
    query = a_query(
        node_id=bytes(20), capabilities=255, token=bytes(16), wants_card=True, comparison=names
    )
    assert 1100 < len(p.encode_request(SEQUENCE, "bt_compare", [query])) <= 1200


def test_a_native_request_has_one_argument():
    good = msgspec.Raw(codec.encode({"v": 1, "n": NETWORK}))
    assert p.decode_query("bt_ping", [good], NETWORK) == a_query()
    for arguments in ([], [good, good]):
        with pytest.raises(PacketError):
            p.decode_query("bt_ping", arguments, NETWORK)


@pytest.mark.parametrize("name", ["4", "6"])
def test_a_reply_with_half_a_contact_is_refused(name):
    good = {"v": 1, "n": NETWORK, "o": bytes(7), "t": bytes(16)}
    p.decode_reply(codec.encode(good), NETWORK)
    with pytest.raises(PacketError, match="truncated contacts"):
        p.decode_reply(codec.encode({**good, name: bytes(27)}), NETWORK)


def test_a_field_of_a_later_version_is_ignored():
    good = {"v": 1, "n": NETWORK, "o": bytes(7), "t": bytes(16), "future": [1, {"x": 2}]}
    assert p.decode_reply(codec.encode(good), NETWORK) == a_reply()


def test_an_unknown_method_is_refused():
    with pytest.raises(PacketError, match="unknown method"):
        p.decode_request(codec.encode(["__init__", []]))


@pytest.mark.parametrize("size", [0, 1, 20, 21])
def test_a_datagram_without_a_body_is_refused(size):
    with pytest.raises(PacketError, match="truncated"):
        p.split(bytes(size))


def test_a_native_datagram_longer_than_the_limit_is_refused_and_a_stock_one_is_not():
    def request(method, size):
        return p.split(p.encode_request(SEQUENCE, method, [bytes(size)]))[1]

    room = p.DATAGRAM_BYTES_RECEIVED_MAX - len(request("bt_ping", 256)) + 256 - p.HEAD_BYTES
    p.decode_request(request("bt_ping", room))
    p.decode_request(request("store", 8000))
    with pytest.raises(PacketError, match="too long"):
        p.decode_request(request("bt_ping", room + 1))
    body = codec.encode({"v": 1, "n": NETWORK, "o": b"", "t": bytes(16), "z": bytes(1452)})
    with pytest.raises(PacketError, match="too long"):
        p.decode_reply(body, NETWORK)


def test_a_value_that_cannot_fit_takes_no_contacts_with_it():
    reply = p.Reply(
        version=1,
        network=bytes(8),
        observed=bytes(7),
        token=bytes(16),
        node_id=bytes(20),
        contacts4=bytes(26 * 20),
        held=[p.Held(bytes(20), 900, bytes(32)) for _ in range(4)],
        value=bytes(900),
    )
    datagram = p.encode_reply(bytes(20), reply)
    assert len(datagram) <= 1200
    read = p.decode_reply(datagram[21:], bytes(8))
    assert read.value is None
    assert len(read.contacts4) == 26 * 20
