"""Real sockets on loopback: the same transfers over each endpoint, and what a socket may answer."""

import asyncio
import errno
import random
import socket
import struct
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.config import MIB
from bytestag.errors import AddressInUse
from bytestag.events.runtime import system_runtime
from bytestag.network import endpoint as e
from bytestag.network import offload
from bytestag.network.asyncio_endpoint import open_asyncio_endpoint
from bytestag.network.burst import Burst
from bytestag.network.handshake import UNIT
from tests.network.nodes import Node, fetch

LOOPBACK = ("127.0.0.1", 0)
GRO = struct.Struct("=i")


async def open_native(address, receiver):
    return e.NativeEndpoint(address, receiver)


async def open_plain(address, receiver):
    return e.NativeEndpoint(address, receiver, offload=False)


OPENERS = {"native": open_native, "plain": open_plain, "asyncio": open_asyncio_endpoint}


@pytest.fixture(params=OPENERS)
def open_endpoint(request):
    return OPENERS[request.param]


class Recorder:
    """Remembers datagrams; ``arrived`` is set at each wake-up."""

    def __init__(self):
        self.got = []
        self.wakeups = 0
        self.arrived = asyncio.Event()

    def datagram_received(self, datagram, address):
        self.got.append((bytes(datagram), address))

    def burst_received(self, view, stride, address):
        for start in range(0, len(view), stride):
            self.datagram_received(view[start : start + stride], address)

    def wakeup_ended(self):
        self.wakeups += 1
        self.arrived.set()

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.arrived.clear()
                await self.arrived.wait()


def a_train(segments=40, body=1000, last=10):
    """Return a burst and the datagrams that it is."""
    bodies = [bytes([i]) * body for i in range(segments - 1)] + [b"z" * last]
    heads = [bytes([0x41, i]) for i in range(segments)]
    buffers = [buffer for pair in zip(heads, bodies, strict=True) for buffer in pair]
    return Burst(buffers, body + 2), [h + b for h, b in zip(heads, bodies, strict=True)]


# --- The same suite over each --------------------------------------------------------------------


def test_eight_mebibytes_arrive_whole(open_endpoint):
    values = [random.Random(i).randbytes(MIB) for i in range(8)]

    async def main():
        runtime = system_runtime(1)
        alice = await Node("alice", runtime).open(open_endpoint, LOOPBACK)
        bob = await Node("bob", runtime).open(open_endpoint, LOOPBACK)
        try:
            keys = [bob.hold(value) for value in values]
            gets = [fetch(alice, bob.peer(), key, MIB) for key in keys]
            found = await asyncio.gather(*gets)
            return [f.value for f in found]
        finally:
            alice.close()
            bob.close()
            runtime.close()

    assert asyncio.run(main()) == values


def test_a_ping_goes_there_and_back(open_endpoint):
    async def main():
        runtime = system_runtime(1)
        alice = await Node("alice", runtime).open(open_endpoint, LOOPBACK)
        bob = await Node("bob", runtime).open(open_endpoint, LOOPBACK)
        try:
            return (await alice.ping(bob.address)).observed[-2:], alice.address[1]
        finally:
            alice.close()
            bob.close()
            runtime.close()

    observed, port = asyncio.run(main())
    assert observed == port.to_bytes(2, "big")


def test_a_train_arrives_as_its_datagrams_in_order(open_endpoint):
    burst, datagrams = a_train()

    async def main():
        recorder = Recorder()
        receiver = await open_endpoint(LOOPBACK, recorder)
        sender = await open_endpoint(LOOPBACK, Recorder())
        try:
            sender.send_burst(burst, receiver.address)
            sender.send_burst(Burst([b"alone"], 5), receiver.address)
            await recorder.until(len(datagrams) + 1)
            return recorder.got, sender.address
        finally:
            sender.close()
            receiver.close()

    got, source = asyncio.run(main())
    assert [datagram for datagram, _ in got] == [*datagrams, b"alone"]
    assert {address for _, address in got} == {source}


def test_a_port_in_use_is_an_error_with_a_hint(open_endpoint):
    async def main():
        first = await open_endpoint(LOOPBACK, Recorder())
        try:
            with pytest.raises(AddressInUse) as caught:
                await open_endpoint(first.address, Recorder())
            return caught.value
        finally:
            first.close()

    error = asyncio.run(main())
    assert "--port" in error.hint
    assert "127.0.0.1" in error.message


@pytest.mark.parametrize("address", [("192.0.2.1", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_is_not_ours_is_an_error_with_a_hint(open_endpoint, address):
    async def main():
        with pytest.raises(AddressInUse) as caught:
            await open_endpoint(address, Recorder())
        return caught.value.hint

    assert "--host" in asyncio.run(main())


def test_sending_to_a_closed_port_never_kills_the_endpoint(open_endpoint):
    async def main():
        recorder = Recorder()
        closed = await open_endpoint(LOOPBACK, Recorder())
        closed.close()
        sender = await open_endpoint(LOOPBACK, recorder)
        friend = await open_endpoint(LOOPBACK, Recorder())
        try:
            for _ in range(20):
                sender.send(b"anybody?", closed.address)
                sender.send_burst(a_train(3)[0], closed.address)
                await asyncio.sleep(0)
            friend.send(b"still there?", sender.address)
            await recorder.until(1)
            return recorder.got
        finally:
            sender.close()
            friend.close()

    assert [datagram for datagram, _ in asyncio.run(main())] == [b"still there?"]


def test_what_cannot_be_sent_is_dropped_and_the_endpoint_lives(open_endpoint):
    async def main():
        recorder = Recorder()
        receiver = await open_endpoint(LOOPBACK, recorder)
        sender = await open_endpoint(LOOPBACK, Recorder())
        try:
            sender.send(bytes(65_600), receiver.address)  # longer than UDP has
            sender.send(b"small", receiver.address)
            await recorder.until(1)
            return recorder.got, sender.counters
        finally:
            sender.close()
            receiver.close()

    got, counters = asyncio.run(main())
    assert [datagram for datagram, _ in got] == [b"small"]
    assert sum(counters.values()) == 1


def test_a_closed_endpoint_frees_its_port_and_sends_nothing(open_endpoint):
    async def main():
        first = await open_endpoint(LOOPBACK, Recorder())
        first.close()
        first.close()
        first.send(b"too late", ("127.0.0.1", 9))
        first.send_burst(a_train(3)[0], ("127.0.0.1", 9))
        while True:
            await asyncio.sleep(0)  # asyncio's transport closes in the next turn of the loop
            try:
                again = await open_endpoint(first.address, Recorder())
                break
            except AddressInUse:
                continue
        again.close()
        return again.address == first.address

    async def bounded():
        async with asyncio.timeout(5):
            return await main()

    assert asyncio.run(bounded())


def test_the_platforms_best_endpoint_opens_on_ipv6_as_well():
    async def main():
        endpoint = await e.open_endpoint(("::1", 0), Recorder())
        endpoint.close()
        return endpoint.address

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        host, port = asyncio.run(main())
    except AddressInUse:
        pytest.skip("::1 is not an address of this machine")
    assert host == "::1"
    assert port > 0


# --- Segmentation and merging --------------------------------------------------------------------


class FakeSocket:
    """Takes what is sent; fails as it is told to."""

    def __init__(self, real, error=None, only_trains=True):
        self._real = real
        self.error = error
        self.only_trains = only_trains
        self.trains = 0
        self.datagrams = []

    def __getattr__(self, name):
        return getattr(self._real, name)

    def sendmsg(self, buffers, ancillary, flags, address):
        self.trains += bool(ancillary)
        if self.error is not None and (ancillary or not self.only_trains):
            raise OSError(self.error, "injected")
        self.datagrams.append(b"".join(buffers))
        return len(self.datagrams[-1])

    def sendto(self, datagram, address):
        return self.sendmsg([datagram], [], 0, address)


def over_a_fake_socket(use, **options):
    """Run ``use(endpoint, fake)`` with an endpoint whose socket is fake but can segment."""

    async def main():
        endpoint = e.NativeEndpoint(LOOPBACK, Recorder())
        real, fake = endpoint._socket, FakeSocket(endpoint._socket, **options)
        endpoint._socket, endpoint._can_segment, endpoint._has_many = fake, True, False
        try:
            await use(endpoint, fake)
        finally:
            endpoint._socket = real
            endpoint.close()

    asyncio.run(main())


@pytest.mark.parametrize("error", [errno.EIO, errno.EINVAL])
def test_a_route_that_takes_no_segmentation_gets_single_datagrams_from_then_on(error):
    burst, datagrams = a_train()
    there, elsewhere = ("127.0.0.1", 9001), ("127.0.0.1", 9002)

    async def use(endpoint, fake):
        endpoint.send_burst(burst, there)
        assert fake.datagrams == datagrams
        assert fake.trains == 1
        endpoint.send_burst(burst, there)
        assert fake.trains == 1  # not tried again
        assert fake.datagrams == datagrams * 2
        fake.error = None
        endpoint.send_burst(burst, elsewhere)
        assert fake.trains == 2  # other routes are not affected
        assert fake.datagrams[-1] == b"".join(datagrams)
        assert endpoint.counters["no segmentation"] == 1

    over_a_fake_socket(use, error=error)


def test_a_route_without_segmentation_is_tried_again_after_an_hour(monkeypatch):
    burst, _ = a_train()
    there, now = ("127.0.0.1", 9001), [1000.0]
    monkeypatch.setattr(e.time, "monotonic", lambda: now[0])

    async def use(endpoint, fake):
        endpoint.send_burst(burst, there)
        fake.error = None
        now[0] += e.NO_SEGMENT_SECONDS - 1
        endpoint.send_burst(burst, there)
        assert fake.trains == 1
        now[0] += 1
        endpoint.send_burst(burst, there)
        assert fake.trains == 2
        assert not endpoint._no_segment

    over_a_fake_socket(use, error=errno.EIO)


def test_only_routes_of_the_last_hour_count_towards_the_end_of_segmentation(monkeypatch):
    burst, _ = a_train(3)
    now = [1000.0]
    monkeypatch.setattr(e.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(e, "NO_SEGMENT_MAX", 3)

    async def use(endpoint, fake):
        for port in range(1, 20):
            endpoint.send_burst(burst, ("127.0.0.1", port))
            now[0] += e.NO_SEGMENT_SECONDS / 2
        assert endpoint._can_segment
        assert len(endpoint._no_segment) <= 3

    over_a_fake_socket(use, error=errno.EIO)


def test_a_train_that_must_not_be_left_to_the_kernel_is_cut_here():
    burst, datagrams = a_train()

    async def use(endpoint, fake):
        endpoint.send_burst(replace(burst, is_cut=True), ("127.0.0.1", 9001))
        assert (fake.trains, fake.datagrams) == (0, datagrams)

    over_a_fake_socket(use)


def test_datagrams_that_find_the_buffer_full_are_counted():
    async def main():
        endpoint = e.NativeEndpoint(LOOPBACK, Recorder())
        endpoint._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert not endpoint.counters
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(50):  # while the loop does not run, nobody reads
                sender.sendto(bytes(1000), endpoint.address)
        full = endpoint.counters["receive buffer full"]
        endpoint.close()
        assert not endpoint.counters
        return full

    assert asyncio.run(main()) > 30


# --- The probe of the machine --------------------------------------------------------------------


class Kernel:
    """Stands for two sockets on loopback, and for a kernel that does wrong what it is told to."""

    def __init__(self, takes=(True, True), spoils=None):
        self.takes = dict(zip((offload.UDP_SEGMENT, offload.UDP_GRO), takes, strict=True))
        self.spoils = spoils
        self.came = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def getsockname(self):
        return LOOPBACK

    def setsockopt(self, _level, option, _value):
        if not self.takes[option]:
            raise OSError(errno.ENOPROTOOPT, "unknown")

    def sendmsg(self, buffers, control, _flags, _address):
        (train,) = buffers
        size = offload.SEGMENT.unpack(control[0][2])[0]
        parts = [train[at : at + size] for at in range(0, len(train), size)]
        self.came = self.spoils([train], size) if self.spoils else [(part, 0) for part in parts]

    def recvmsg(self, _size, _ancillary):
        if not self.came:
            raise TimeoutError("timed out")
        data, stride = self.came.pop(0)
        merged = [(offload.SOL_UDP, offload.UDP_GRO, offload.STRIDE.pack(stride))]
        return data, merged if stride else [], 0, LOOPBACK


@pytest.mark.parametrize(
    ("kernel", "found"),
    [
        (Kernel(), (True, True)),
        (Kernel(takes=(False, True)), (False, True)),
        (Kernel(takes=(True, False)), (True, False)),
        (Kernel(spoils=lambda train, size: [(train[0], size)]), (True, True)),
        (Kernel(spoils=lambda train, size: [(train[0], 0)]), (False, False)),  # not cut
        (Kernel(spoils=lambda train, size: [(train[0], size + 1)]), (False, False)),
        (Kernel(spoils=lambda train, size: [(train[0][:size], 0)]), (False, False)),  # lost
        (Kernel(spoils=lambda train, size: [(train[0][::-1], size)]), (False, False)),
        (Kernel(spoils=lambda train, size: [(train[0][:size], 0)] * 5), (False, False)),
        (
            Kernel(spoils=lambda train, size: [(train[0][size:] + train[0][:size], size)]),
            (False, False),
        ),
    ],
)
def test_only_a_kernel_that_cuts_and_merges_rightly_is_left_to_do_it(monkeypatch, kernel, found):
    monkeypatch.setattr(offload.sys, "platform", "linux")
    monkeypatch.setattr(offload, "loopback", lambda: kernel)
    assert offload.probe.__wrapped__() == found


def test_many_routes_without_segmentation_end_it_for_all():
    burst, datagrams = a_train(3)

    async def use(endpoint, fake):
        for port in range(1, 4200):
            endpoint.send_burst(burst, ("127.0.0.1", port))
        assert len(fake.datagrams) == 4199 * len(datagrams)
        assert fake.trains == len(endpoint._no_segment) == e.NO_SEGMENT_MAX + 1

    over_a_fake_socket(use, error=errno.EIO)


@pytest.mark.parametrize("error", [errno.EPERM, errno.EMSGSIZE, errno.ENETUNREACH, errno.ENOBUFS])
def test_any_other_error_of_a_send_is_counted_and_dropped(error):
    async def use(endpoint, fake):
        endpoint.send_burst(a_train()[0], ("127.0.0.1", 9001))
        endpoint.send(b"x", ("127.0.0.1", 9001))
        assert fake.datagrams == []
        assert endpoint.counters[f"send {errno.errorcode[error]}"] == 2
        assert endpoint._queue == e.deque()

    over_a_fake_socket(use, error=error, only_trains=False)


def test_what_a_full_socket_does_not_take_waits_in_order_up_to_a_limit():
    burst, datagrams = a_train(3)
    there = ("127.0.0.1", 9001)

    async def use(endpoint, fake):
        for _ in range(e.QUEUED_BURSTS_MAX):
            endpoint.send_burst(burst, there)
        endpoint.send(b"control", there)
        assert fake.datagrams == []
        assert endpoint.counters["send queue full"] == 1
        fake.error = None
        endpoint._on_writable()
        assert fake.datagrams == [b"".join(datagrams)] * e.QUEUED_BURSTS_MAX
        assert not endpoint._queue

    over_a_fake_socket(use, error=errno.EAGAIN, only_trains=False)


class Arriving:
    """A socket in which datagrams wait: (bytes, stride that the kernel names or 0, source)."""

    def __init__(self, waiting):
        self.waiting = list(waiting)

    def recvmsg_into(self, buffers, _ancillary_bytes):
        if not self.waiting:
            raise BlockingIOError
        text, stride, source = self.waiting.pop(0)
        buffers[0][: len(text)] = text
        named = (
            [(0, 8, bytes(4)), (offload.SOL_UDP, offload.UDP_GRO, GRO.pack(stride))]
            if stride
            else []
        )
        return len(text), named, 0, source

    def recvfrom_into(self, buffer):
        size, _, _, source = self.recvmsg_into([buffer], 0)
        return size, source


class Counting(Recorder):
    def __init__(self):
        super().__init__()
        self.bursts = []

    def burst_received(self, view, stride, address):
        assert 0 < stride < len(view) <= e.RECEIVE_BYTES
        self.bursts.append(-(-len(view) // stride))
        super().burst_received(view, stride, address)


def delivered(waiting, *, merges=True):
    async def main():
        recorder = Counting()
        endpoint = e.NativeEndpoint(LOOPBACK, recorder)
        real, endpoint._socket = endpoint._socket, Arriving(waiting)
        endpoint._merges, endpoint._has_many = merges, False
        try:
            while endpoint._socket.waiting:
                endpoint._on_readable()
        finally:
            endpoint._socket = real
            endpoint.close()
        return recorder

    return asyncio.run(main())


def split(text, stride):
    return [text[at : at + stride] for at in range(0, len(text), stride or 1)] or [text]


sizes = st.sampled_from([0, 1, 2, 9, 10, 1452, 1453, 30_000, 65_507])
arrivals = st.lists(
    st.tuples(sizes, st.sampled_from([0, 0, 0, 1, 4, 1452]), st.sampled_from([1, 1, 1, 2])),
    max_size=60,
)


@given(arrivals, st.booleans())
def test_whatever_arrives_is_delivered_as_it_was_sent_and_in_order(arriving, merges):
    rng = random.Random(1)
    waiting = [
        (rng.randbytes(size), stride if merges and 64 * stride >= size else 0, ("10.0.0.1", port))
        for size, stride, port in arriving
    ]
    expected = [
        (part, source)
        for text, stride, source in waiting
        for part in split(text, stride or len(text))
    ]
    assert delivered(waiting, merges=merges).got == expected


def test_datagrams_that_the_kernel_does_not_merge_are_merged_here():
    source, head = ("10.0.0.1", 1), bytes(e.ALIKE_BYTES)
    one = [(head + bytes([n]) * 1442, 0, source) for n in range(43)] + [(head + b"end", 0, source)]
    recorder = delivered(one * 3, merges=False)
    assert recorder.bursts == [44] * 3
    assert [text for text, _ in recorder.got] == [text for text, _, _ in one * 3]


@pytest.mark.parametrize("merges", [False, True])
def test_what_is_of_another_kind_is_not_merged_with_a_train(merges):
    source = "10.0.0.1", 1
    train = [(b"\x41" * 1452, 0, source)] * 3
    answer = (b"\x01" * 301, 0, source)
    recorder = delivered([*train, answer, *train], merges=merges)
    assert recorder.bursts == [3, 3]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.skipif(sys.platform != "linux", reason="only there the option is known")
def test_no_router_may_cut_what_is_sent(family):
    """Else a probe that arrives in pieces would prove that the path takes it."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with e.bound_socket((host, 0)) as sock:
        level, option = (0, 10) if family == socket.AF_INET else (41, 23)
        assert sock.getsockopt(level, option) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="merging is Linux's")
def test_the_kernel_merges_a_train_and_we_split_it():
    burst, datagrams = a_train()

    async def main():
        recorder = Recorder()
        receiver = e.NativeEndpoint(LOOPBACK, recorder)
        sender = e.NativeEndpoint(LOOPBACK, Recorder())
        if not (receiver._merges and sender._can_segment):
            pytest.skip("this kernel neither segments nor merges")
        merged = []
        receive = receiver._receive

        def noted(view):
            size, stride, source = receive(view)
            merged.append(stride < size)
            return size, stride, source

        receiver._receive = noted
        try:
            sender.send_burst(burst, receiver.address)
            await recorder.until(len(datagrams))
            return merged, [datagram for datagram, _ in recorder.got]
        finally:
            sender.close()
            receiver.close()

    merged, got = asyncio.run(main())
    assert got == datagrams
    assert any(merged)


@pytest.mark.parametrize("is_reversed", [False, True])
def test_control_and_bulk_from_one_peer_may_be_merged_and_are_told_apart(is_reversed):
    """Equal sizes merge: each piece is given to the plane that its own first byte names."""

    async def main():
        runtime = system_runtime(1)
        node = await Node("node", runtime).open(open_native, LOOPBACK)
        try:
            rpc = b"\x00" + bytes(29)
            unit = b"\x41" + bytes(8) + bytes([UNIT]) + bytes(20)
            joined = b"".join([unit, rpc] if is_reversed else [rpc, unit]) + b"\xff"
            node.endpoint._view[: len(joined)] = joined
            node.endpoint._deliver(0, len(joined), 30, ("127.0.0.1", 5))
            return node
        finally:
            node.close()
            runtime.close()

    node = asyncio.run(main())
    assert sum(node.rpc.counters.values()) == 1
    assert node.sessions.counters == {"unknown connection": 1}
    assert node.demux.counters == {"unknown first byte": 1}


def test_an_error_while_receiving_is_counted_and_the_wakeup_ends():
    class Failing:
        def recvmsg_into(self, *_):
            raise OSError(errno.ECONNREFUSED, "injected")

    async def main():
        recorder = Recorder()
        endpoint = e.NativeEndpoint(LOOPBACK, recorder)
        real, endpoint._socket = endpoint._socket, Failing()
        endpoint._on_readable()
        endpoint._socket = real
        endpoint.close()
        return endpoint.counters, recorder.wakeups

    assert asyncio.run(main()) == ({"receive ECONNREFUSED": 1}, 1)
