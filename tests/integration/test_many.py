"""Many datagrams with one call, over real sockets: what was sent arrives, as it was cut."""

import errno
import random
import socket
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bytestag.network import many, offload
from bytestag.network.many import ManyReceiver, ManySender

pytestmark = pytest.mark.skipif(not many.has_many(), reason="no recvmmsg here")
STRIDE = 1452


def a_socket(stack, host="127.0.0.1"):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 2**20)
    sock.setblocking(False)
    sock.bind((host, 0))
    return sock


def drained(receiver, stride=STRIDE):
    """Return what waits: (datagram, source), and how long each delivered run was."""
    got, runs = [], []
    while True:
        try:
            arrived = receiver.receive(stride)
        except BlockingIOError:
            return got, runs
        for view, size, source in arrived:
            parts = [bytes(view[at : at + size]) for at in range(0, len(view), size or 1)] or [b""]
            got += [(part, source) for part in parts]
            runs.append(len(parts))


sizes = st.sampled_from(
    [0, 1, 9, 10, 11, 300, STRIDE - 1, STRIDE, STRIDE, STRIDE, 1500, 9000, 30_000]
)
arrivals = st.lists(st.tuples(sizes, st.sampled_from([0, 0, 0, 1]), st.booleans()), max_size=80)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrivals, st.sampled_from([1, 300, STRIDE, 9000]))
def test_whatever_arrives_is_delivered_as_it_was_sent_and_in_order(arriving, stride):
    rng = random.Random(1)
    with ExitStack() as stack:
        here = a_socket(stack)
        senders = [a_socket(stack), a_socket(stack)]
        receiver, expected = ManyReceiver(here), []
        for size, sender, is_alike in arriving:
            text = (bytes(10) if is_alike else rng.randbytes(10)) + rng.randbytes(size)
            text = text[:size]
            senders[sender].sendto(text, here.getsockname())
            expected.append((text, senders[sender].getsockname()))
        assert drained(receiver, stride)[0] == expected


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_train_takes_one_call_each_way(host):
    with ExitStack() as stack:
        try:
            here, there = a_socket(stack, host), a_socket(stack, host)
        except OSError:
            pytest.skip(f"{host} is not an address of this machine")
        train = b"".join(bytes(10) + bytes([n]) * (STRIDE - 10) for n in range(14))[:-100]
        sender, calls = ManySender(there), []
        send = sender._send
        sender._send = lambda *given: calls.append(given) or send(*given)
        address = here.getsockname()[:2]
        sender.send(train, STRIDE, address)
        sender.send(b"short", STRIDE, address)
        sender.send(train, STRIDE, address)  # the buffers are as they were
        got, runs = drained(ManyReceiver(here))
        assert len(calls) == 3
        assert runs == [14, 1, 14]
        assert b"".join(text for text, _ in got) == train + b"short" + train
        assert {source for _, source in got} == {there.getsockname()[:2]}


def test_what_the_kernel_merged_is_delivered_as_such():
    if offload.probe() != (True, True):
        pytest.skip("this kernel does not merge")
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        here.setsockopt(offload.SOL_UDP, offload.UDP_GRO, 1)
        train = random.Random(1).randbytes(40 * STRIDE - 7)
        control = [(offload.SOL_UDP, offload.UDP_SEGMENT, offload.SEGMENT.pack(STRIDE))]
        for _ in range(3):
            there.sendmsg([train], control, 0, here.getsockname())
            there.sendto(b"in between", here.getsockname())
        got, runs = drained(ManyReceiver(here))
        parts = [train[at : at + STRIDE] for at in range(0, len(train), STRIDE)]
        assert [text for text, _ in got] == [*parts, b"in between"] * 3
        assert runs == [40, 1] * 3


def test_what_is_of_another_kind_is_not_taken_for_the_end_of_a_train():
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        for text in [b"\x41" * STRIDE] * 3 + [b"\x01" * 300] + [b"\x41" * STRIDE] * 2:
            there.sendto(text, here.getsockname())
        assert drained(ManyReceiver(here))[1] == [3, 1, 2]


def test_what_the_kernel_refuses_is_raised_and_the_next_train_goes():
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        sender = ManySender(there)
        with pytest.raises(OSError, match=errno_text(errno.EINVAL)):
            sender.send(bytes(100), 50, ("127.0.0.1", 0))
        sender.send(bytes(100), 50, here.getsockname())
        assert drained(ManyReceiver(here), 50)[1] == [2]


@pytest.mark.parametrize(("size", "each"), [(70_000, 65_000), (45 * 50, 50)])
def test_no_train_is_longer_than_the_buffers(size, each):
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        sender = ManySender(there)
        area = len(sender._area)
        with pytest.raises(OSError, match=errno_text(errno.EMSGSIZE)):
            sender.send(bytes(size), each, here.getsockname())
        assert len(sender._area) == area


@pytest.mark.parametrize("stride", [-1, 0, 65_535])
def test_no_stride_leads_beyond_the_buffers(stride):
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        texts = [random.Random(n).randbytes(8_000) for n in range(40)]
        for text in texts:
            there.sendto(text, here.getsockname())
        got, _ = drained(ManyReceiver(here), stride)
        assert [text for text, _ in got] == texts


def test_a_full_socket_says_so():
    with ExitStack() as stack:
        here, there = a_socket(stack), a_socket(stack)
        sender = ManySender(there)

        def full(*_given):
            many.ctypes.set_errno(errno.EAGAIN)
            return -1

        sender._send = full
        with pytest.raises(BlockingIOError):
            sender.send(bytes(100), 50, here.getsockname())


def errno_text(number):
    return many.os.strerror(number)


def test_trains_of_two_sources_are_told_apart_and_stay_whole():
    with ExitStack() as stack:
        here, one, other = a_socket(stack), a_socket(stack), a_socket(stack)
        train = bytes(14 * STRIDE - 100)
        for sender in (one, other, one):
            ManySender(sender).send(train, STRIDE, here.getsockname())
        got, runs = drained(ManyReceiver(here))
        assert runs == [14, 14, 14]
        sources = [source for _, source in got]
        assert sources == [s.getsockname() for s in (one, other, one) for _ in range(14)]


def test_calls_that_a_filter_refuses_are_not_used(monkeypatch):
    def refused(*_given):
        raise OSError(errno.ENOSYS, "injected")

    assert many.has_many.__wrapped__()
    monkeypatch.setattr(ManySender, "send", refused)
    assert not many.has_many.__wrapped__()
