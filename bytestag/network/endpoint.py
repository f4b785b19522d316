"""The UDP socket behind one small port (shell).

:class:`NativeEndpoint` owns a non-blocking socket, drains it at each wake-up, sends a train with
one call (UDP_SEGMENT) and receives merged ones (UDP_GRO). ``asyncio_endpoint`` is the fallback on
asyncio's datagram transport; the simulator has a third. Merged datagrams are split before anybody
looks at them. Source: udp(7).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Protocol

from bytestag.config import TRAIN_DATAGRAM_BYTES_MAX, UDP_BYTES_MAX
from bytestag.crypto.identity import Address
from bytestag.errors import AddressInUse
from bytestag.network.burst import Burst
from bytestag.network.many import (
    ALIKE_BYTES,
    DATAGRAMS_MAX,
    SMALL_BYTES_MAX,
    ManyReceiver,
    ManySender,
    has_many,
)
from bytestag.network.offload import (
    ANCILLARY_BYTES,
    SEGMENT,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    dropped,
    probe,
    set_option,
    stride_of,
)

_logger = logging.getLogger(__name__)

OFFLOAD = "BYTESTAG_OFFLOAD"
"""Environment: 0 sends and receives datagrams one by one, of Ethernet's size at most, where a
driver or a switch does it wrongly."""
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
IP_PMTUDISC_PROBE = 3
SOCKET_BUFFER_BYTES = 8 * 1024 * 1024
RECEIVE_BYTES = 65_535
MANY_AT_FIRST = 32
"""Until it is known that the kernel merges none of them: a merged one is 64 KiB of work."""
MANY_AFTER = 8
"""So many small datagrams came one by one at one wake-up: the others are received together."""
WAKEUP_SECONDS = 0.002
"""Bulk may take this long at a wake-up before the loop gets its turn."""
QUEUED_BURSTS_MAX = 1024
NO_SEGMENT_MAX = 4096
"""Routes remembered as taking no segmentation; with more of them it is this machine that cannot."""
NO_SEGMENT_SECONDS = 3600.0
"""Then it is tried again: routes and cards change."""


class Receiver(Protocol):
    """Who takes the datagrams; the view is valid during the call only."""

    def datagram_received(self, datagram: memoryview, address: Address) -> None: ...

    def burst_received(self, view: memoryview, stride: int, address: Address) -> None:
        """Datagrams of ``stride`` bytes that the kernel merged; the last may be shorter."""

    def wakeup_ended(self) -> None: ...


class Endpoint(Protocol):
    """A bound UDP address that sends."""

    address: Address
    burst_bytes: int
    """What a sender may have in flight to us: a quarter of the granted receive buffer."""
    datagram_bytes_max: int
    """Larger ones are not tried on any path."""

    @property
    def counters(self) -> Counter[str]: ...

    def send(self, datagram: bytes, address: Address) -> None: ...

    def send_burst(self, burst: Burst, address: Address) -> None: ...

    def close(self) -> None: ...


OpenEndpoint = Callable[[Address, Receiver], Awaitable[Endpoint]]


async def open_endpoint(address: Address, receiver: Receiver) -> Endpoint:
    """Bind the best endpoint that this platform has.

    Raises:
        AddressInUse: the address is taken or is not ours.
    """
    if os.name == "posix":
        return NativeEndpoint(address, receiver, offload=os.environ.get(OFFLOAD) != "0")
    from bytestag.network.asyncio_endpoint import open_asyncio_endpoint  # it is not needed here

    return await open_asyncio_endpoint(address, receiver)


def bound_socket(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        if sys.platform == "linux":  # nothing is cut on the way: a size that passes is known to
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        if family == socket.AF_INET6:  # one family a socket: mapped addresses fit no card
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except (OSError, OverflowError) as error:
        sock.close()
        raise AddressInUse(
            f"cannot bind UDP {address[0]}:{address[1]}: {getattr(error, 'strerror', error)}",
            hint="choose another --port, or 0 for any; --host must be an address of this machine",
        ) from error
    return sock


def granted_burst(sock: socket.socket) -> int:
    return max(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 4, 16 * 1024)


class NativeEndpoint:
    """Our own socket on ``loop.add_reader``."""

    def __init__(self, address: Address, receiver: Receiver, *, offload: bool = True) -> None:
        self._receiver = receiver
        self._socket = bound_socket(address)
        self.address: Address = self._socket.getsockname()[:2]
        self.burst_bytes = granted_burst(self._socket)
        may_try = offload and sys.platform == "linux"  # elsewhere larger ones would be cut
        self.datagram_bytes_max = UDP_BYTES_MAX if may_try else TRAIN_DATAGRAM_BYTES_MAX
        self._counters: Counter[str] = Counter()
        segments, merges = probe() if offload else (False, False)
        self._can_segment = segments and set_option(self._socket, UDP_SEGMENT, 0)
        self._merges = merges and set_option(self._socket, UDP_GRO, 1)
        self._view = memoryview(bytearray(2 * RECEIVE_BYTES))
        self._many_in: ManyReceiver | None = None
        self._bulk_stride = 0
        """Small datagrams of this size came in bulk at the last wake-up."""
        self._many_out: ManySender | None = None
        self._queue: deque[tuple[Burst, Address]] = deque()
        self._no_segment: dict[Address, float] = {}
        """Until when trains to an address are cut here, monotonic seconds."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._on_readable)

    @cached_property
    def _has_many(self) -> bool:
        return has_many()  # tried when it is of use, not at each start

    @property
    def counters(self) -> Counter[str]:
        """What went wrong, by reason."""
        counted = Counter(self._counters)
        if full := dropped(self._socket):
            counted["receive buffer full"] = full
        return counted

    # --- Receiving -------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Drain the socket for a moment.

        Datagrams of one size from one source that follow each other are delivered as the kernel
        would have merged them: what one costs in Python is then little more than the call that
        receives it.
        """
        end = time.monotonic() + WAKEUP_SECONDS
        begin = at = stride = small = 0
        source: Any = None
        try:
            if self._bulk_stride:
                self._receive_many(end, self._bulk_stride)
            while time.monotonic() < end:
                size, merged, other = self._receive(self._view[at:])
                is_next = 0 < size <= stride and merged >= size and other == source
                is_next = is_next and self._begins_alike(begin, at)
                if at > begin and not is_next:
                    self._deliver(begin, at, stride, source)
                    begin = at
                if at == begin:
                    stride, source = min(size, merged), other
                at += size
                small = small + 1 if size <= merged and size <= SMALL_BYTES_MAX else 0
                is_bulk = small == MANY_AFTER and self._has_many
                is_over = merged < size or size < stride or at + stride > RECEIVE_BYTES or not size
                if is_over or is_bulk:
                    self._deliver(begin, at, stride, source)
                    begin = at = 0
                if is_bulk:
                    self._receive_many(end, stride)
                    small = 0
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:  # an ICMP error of an earlier send; never fatal
            self._counters[f"receive {errno.errorcode.get(error.errno or 0, error.errno)}"] += 1
        if at > begin:
            self._deliver(begin, at, stride, source)
        self._receiver.wakeup_ended()

    def _receive_many(self, end: float, stride: int) -> None:
        """Drain the socket with few calls, most of what comes being ``stride`` bytes long.

        Returns when the kernel merges what comes. Raises OSError: BlockingIOError when nothing is
        left.
        """
        many = self._many_in = self._many_in or ManyReceiver(self._socket)
        self._bulk_stride = 0
        most = MANY_AT_FIRST
        while time.monotonic() < end:
            longest = 0
            for view, size, source in many.receive(stride, most):
                if self._socket.fileno() < 0:  # it was closed meanwhile
                    return
                if len(view) >= MANY_AFTER * size > 0:
                    self._bulk_stride = size
                if len(view) > longest and size <= SMALL_BYTES_MAX:
                    longest, stride = len(view), size
                if len(view) > size:
                    self._receiver.burst_received(view, size, source)
                else:
                    self._receiver.datagram_received(view, source)
            if many.has_merged:  # each of them is a call's worth
                self._bulk_stride = 0
                return
            most = DATAGRAMS_MAX

    def _begins_alike(self, begin: int, at: int) -> bool:
        """Whether two datagrams may be of one train: what is of another kind would spoil it."""
        view = self._view
        return view[begin : begin + ALIKE_BYTES] == view[at : at + ALIKE_BYTES]

    def _receive(self, view: memoryview) -> tuple[int, int, Any]:
        """Return how many bytes came, of datagrams of which size (the last may be shorter), whence.

        Raises OSError.
        """
        if not self._merges:
            size, source = self._socket.recvfrom_into(view)
            return size, size, source
        size, ancillary, _, source = self._socket.recvmsg_into([view], ANCILLARY_BYTES)
        return size, stride_of(ancillary, size), source

    def _deliver(self, begin: int, end: int, stride: int, source: Any) -> None:
        view = self._view[begin:end]
        if end - begin > stride:
            self._receiver.burst_received(view, stride, source[:2])
        else:
            self._receiver.datagram_received(view, source[:2])

    # --- Sending ---------------------------------------------------------------------------------

    def send(self, datagram: bytes, address: Address) -> None:
        """Send one datagram, or drop it: whoever needs it sends it again."""
        try:
            self._socket.sendto(datagram, address)
        except (BlockingIOError, InterruptedError):
            self._enqueue(Burst([datagram], len(datagram)), address)
        except OSError as error:
            self._count(error)

    def send_burst(self, burst: Burst, address: Address) -> None:
        """Send a train in order; what the socket does not take now waits, up to a limit."""
        if self._queue or not self._try_send(burst, address):
            self._enqueue(burst, address)

    def _try_send(self, burst: Burst, address: Address) -> bool:
        """Return False if the socket is full."""
        buffers = burst.buffers
        is_train = len(buffers) > 2
        try:
            if not is_train:
                self._socket.sendmsg(buffers, [], 0, address)
            elif self._can_segment and not (burst.is_cut or self._is_cut(address)):
                control = [(SOL_UDP, UDP_SEGMENT, SEGMENT.pack(burst.segment_bytes))]
                self._socket.sendmsg(buffers, control, 0, address)
            else:
                self._send_each(b"".join(buffers), burst.segment_bytes, address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            may_be_offload = is_train and self._can_segment and not burst.is_cut
            if may_be_offload and error.errno in (errno.EIO, errno.EINVAL):
                return self._retry_unsegmented(burst, address)
            self._count(error)
        return True

    def _send_each(self, train: bytes, size: int, address: Address) -> None:
        """Send datagrams that nobody else will cut; raises OSError."""
        if self._has_many:
            many = self._many_out = self._many_out or ManySender(self._socket)
            many.send(train, size, address)
            return
        view = memoryview(train)
        for start in range(0, len(view), size):
            self._socket.sendto(view[start : start + size], address)

    def _is_cut(self, address: Address) -> bool:
        """Whether the route there is known not to take segmentation."""
        until = self._no_segment.get(address)
        if until is not None and time.monotonic() >= until:
            del self._no_segment[address]
            return False
        return until is not None

    def _retry_unsegmented(self, burst: Burst, address: Address) -> bool:
        """The route there does not take segmentation (no checksum offload): send one by one."""
        if address in self._no_segment:
            return True
        now = time.monotonic()
        if len(self._no_segment) >= NO_SEGMENT_MAX:
            self._no_segment = {at: until for at, until in self._no_segment.items() if until > now}
            self._can_segment = len(self._no_segment) < NO_SEGMENT_MAX
        self._no_segment[address] = now + NO_SEGMENT_SECONDS
        self._counters["no segmentation"] += 1
        return self._try_send(burst, address)

    def _enqueue(self, burst: Burst, address: Address) -> None:
        if len(self._queue) >= QUEUED_BURSTS_MAX:
            self._counters["send queue full"] += 1
            return
        if not self._queue:
            self._loop.add_writer(self._socket, self._on_writable)
        self._queue.append((burst, address))

    def _on_writable(self) -> None:
        while self._queue:
            if not self._try_send(*self._queue[0]):
                return
            self._queue.popleft()
        self._loop.remove_writer(self._socket)

    def _count(self, error: OSError) -> None:
        self._counters[f"send {errno.errorcode.get(error.errno or 0, error.errno)}"] += 1

    def close(self) -> None:
        """Stop receiving and free the port; idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            if self._queue:
                self._loop.remove_writer(self._socket)
                self._queue.clear()
            self._socket.close()
