"""Many: datagrams sent and received with one call, where the kernel does not cut or merge (shell).

What a call costs in Python is then paid once for many datagrams. The socket module has
neither of the two calls, so they are made through the C library; where it lacks them, nothing here
is used. Source: sendmmsg(2), recvmmsg(2), udp(7).
"""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache

from bytestag.config import TRAIN_SEGMENTS_MAX, UDP_BYTES_MAX
from bytestag.crypto.identity import Address
from bytestag.network.offload import ANCILLARY_BYTES, SOL_UDP, STRIDE, UDP_GRO, loopback

_logger = logging.getLogger(__name__)

DATAGRAMS_MAX = 128
"""Three trains: each call ends amid one, and its pieces are then put together."""
SMALL_BYTES_MAX = 9 * 1024
"""Jumbo frames; of larger datagrams a call for each is cheap enough."""
ALIKE_BYTES = 10
"""First byte, connection, kind: what is of another kind is not of the same train."""
_REST_BYTES = 65_535
"""Room for what a datagram has beyond those before it: it may be a merged one."""
_NAME_BYTES = 28
_IPV4 = struct.Struct("=H2s4s")
_IPV6 = struct.Struct("=H2s4x16s")


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("pieces_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: how many bytes came is beside the header."""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


class _Ancillary(ctypes.Structure):
    """struct cmsghdr."""

    _fields_ = (("size", ctypes.c_size_t), ("level", ctypes.c_int), ("kind", ctypes.c_int))


@lru_cache(maxsize=1)
def has_many() -> bool:
    """Whether this system has both calls, and they work: two datagrams go through loopback."""
    if sys.platform != "linux":
        return False
    try:
        library = ctypes.CDLL(None)
        if not (hasattr(library, "recvmmsg") and hasattr(library, "sendmmsg")):
            return False
        with loopback() as here, loopback() as there:
            ManySender(there).send(b"abc", 2, here.getsockname())
            return [bytes(v) for v, *_ in ManyReceiver(here).receive(2)] == [b"ab", b"c"]
    except OSError as error:  # a filter of system calls, or a C library without them
        _logger.info("no sendmmsg or recvmmsg: %s", error)
        return False


def _address_of(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class _Column:
    """One number of each of several messages, read at one go."""

    def __init__(self, messages: ctypes.Array[_Message], of: type, name: str) -> None:
        field = getattr(of, name)  # a header is the first thing in a message
        whole = memoryview(messages).cast("B")
        self._view = whole.cast("I") if field.size == 4 else whole.cast("Q")
        self._first = field.offset // field.size
        self._step = ctypes.sizeof(_Message) // field.size

    def read(self, count: int) -> list[int]:
        return list(self._view[self._first :: self._step][:count])


class ManyReceiver:
    """Prepared buffers of one socket. Raises OSError where a call fails."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._receive = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._area = bytearray(DATAGRAMS_MAX * SMALL_BYTES_MAX)
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # it takes memory where it is used
        self._rest = mmap.mmap(-1, DATAGRAMS_MAX * _REST_BYTES, flags=private)
        self._names = bytearray(DATAGRAMS_MAX * _NAME_BYTES)
        self._control = bytearray(DATAGRAMS_MAX * ANCILLARY_BYTES)
        self._view = memoryview(self._area)
        self._pieces = (_Piece * (2 * DATAGRAMS_MAX))()
        self._messages = (_Message * DATAGRAMS_MAX)()
        self._sizes = _Column(self._messages, _Message, "size")
        self._control_sizes = _Column(self._messages, _Header, "control_size")
        pieces, rest = ctypes.addressof(self._pieces), _address_of(self._rest)
        names, control = _address_of(self._names), _address_of(self._control)
        for n, message in enumerate(self._messages):
            header = message.header
            header.name, header.name_size = names + n * _NAME_BYTES, _NAME_BYTES
            header.pieces = pieces + 2 * n * ctypes.sizeof(_Piece)
            header.pieces_count = 2
            header.control, header.control_size = control + n * ANCILLARY_BYTES, ANCILLARY_BYTES
            self._pieces[2 * n + 1].base = rest + n * _REST_BYTES
            self._pieces[2 * n + 1].size = _REST_BYTES
        self._fresh = bytes(self._messages)  # the kernel writes into them
        self._stride = 0
        self.has_merged = False
        """Whether the kernel merged any of the last batch, once that was gone through."""

    def receive(
        self, stride: int, most: int = DATAGRAMS_MAX
    ) -> Iterator[tuple[memoryview, int, Address]]:
        """Yield what waits, as the kernel would have merged it: view, size of each, source.

        Datagrams of ``stride`` bytes that follow each other come as one; the views hold until the
        next call. Raises BlockingIOError if nothing waits.
        """
        self._set_stride(min(max(stride, 1), SMALL_BYTES_MAX))  # all of them lie in the area
        messages = self._messages
        ctypes.memmove(messages, self._fresh, len(self._fresh))
        descriptor = self._socket.fileno()
        count = self._receive(descriptor, messages, most, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return self._runs(count)

    def _set_stride(self, stride: int) -> None:
        if stride != self._stride:
            self._stride, area = stride, _address_of(self._area)
            for n in range(DATAGRAMS_MAX):
                self._pieces[2 * n].base = area + n * stride
                self._pieces[2 * n].size = stride

    def _runs(self, count: int) -> Iterator[tuple[memoryview, int, Address]]:
        sizes = self._sizes.read(count)
        merged = self._control_sizes.read(count)
        self.has_merged = any(merged)
        names = bytes(self._names[: count * _NAME_BYTES])
        first = 0
        while first < count:
            name, end = names[first * _NAME_BYTES :][:_NAME_BYTES], count
            if names[first * _NAME_BYTES :] != name * (count - first):
                end = first + 1
                while names[end * _NAME_BYTES :][:_NAME_BYTES] == name:
                    end += 1
            source = _source(name)
            for view, size in self._runs_of_one(first, end, sizes, merged):
                yield view, size, source
            first = end

    def _runs_of_one(
        self, begin: int, end: int, sizes: Sequence[int], merged: Sequence[int]
    ) -> Iterator[tuple[memoryview, int]]:
        """Yield what came from one source: runs of full datagrams, and others by themselves."""
        stride = self._stride
        odd = [n for n in range(begin, end) if sizes[n] != stride or merged[n]]
        for n in [*odd, end]:
            at = n * stride
            if begin < n < end and self._is_last_of(begin, n, sizes[n]) and not merged[n]:
                at += sizes[n]
            if n > begin:
                yield self._view[begin * stride : at], stride
            if n < end and at == n * stride:
                whole = self._whole(n, sizes[n])
                yield whole, self._merged_stride(n, merged[n], len(whole))
            begin = n + 1

    def _is_last_of(self, first: int, number: int, size: int) -> bool:
        """Whether a shorter datagram is the last of the train that lies before it."""
        begin, at = first * self._stride, number * self._stride
        area = self._area
        return 0 < size < self._stride and (
            area[begin : begin + ALIKE_BYTES] == area[at : at + ALIKE_BYTES]
        )

    def _whole(self, number: int, size: int) -> memoryview:
        """Put together what lies in both of its pieces."""
        start, rest = number * self._stride, number * _REST_BYTES
        head = self._view[start : start + min(size, self._stride)]
        return memoryview(bytes(head) + self._rest[rest : rest + max(size - self._stride, 0)])

    def _merged_stride(self, number: int, control_size: int, size: int) -> int:
        start = number * ANCILLARY_BYTES
        head = ctypes.sizeof(_Ancillary)
        if control_size >= head + STRIDE.size:
            told = _Ancillary.from_buffer_copy(self._control, start)
            if (told.level, told.kind) == (SOL_UDP, UDP_GRO):
                return max(int(STRIDE.unpack_from(self._control, start + head)[0]), 1)
        return size


class ManySender:
    """Prepared buffers of one socket. Raises OSError where a call fails."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._area = bytearray(UDP_BYTES_MAX)
        self._name = bytearray(_NAME_BYTES)
        self._pieces = (_Piece * TRAIN_SEGMENTS_MAX)()
        self._messages = (_Message * TRAIN_SEGMENTS_MAX)()
        name, pieces = _address_of(self._name), ctypes.addressof(self._pieces)
        for n, message in enumerate(self._messages):
            message.header.name = name
            message.header.pieces = pieces + n * ctypes.sizeof(_Piece)
            message.header.pieces_count = 1
        self._size = 0
        self._name_size = 0

    def send(self, train: bytes, size: int, address: Address) -> None:
        """Send datagrams of ``size`` bytes, the last of which may be shorter.

        Raises BlockingIOError if the socket does not take all of them now; some may have gone.
        """
        count = -(-len(train) // size)
        if count > TRAIN_SEGMENTS_MAX or len(train) > len(self._area):
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._area[: len(train)] = train
        self._set_size(size)
        self._set_name(_packed(address, self._socket.family))
        last = self._pieces[count - 1]
        last.size = len(train) - (count - 1) * size
        try:
            sent = 0
            while sent < count:
                sent += self._send_from(sent, count)
        finally:
            last.size = size

    def _send_from(self, first: int, end: int) -> int:
        at = ctypes.byref(self._messages, first * ctypes.sizeof(_Message))
        sent = int(self._send(self._socket.fileno(), at, end - first, socket.MSG_DONTWAIT))
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return sent

    def _set_size(self, size: int) -> None:
        if size != self._size:
            self._size, area = size, _address_of(self._area)
            for n, piece in enumerate(self._pieces):
                piece.base, piece.size = area + n * size, size

    def _set_name(self, name: bytes) -> None:
        self._name[: len(name)] = name
        if len(name) != self._name_size:
            self._name_size = len(name)
            for message in self._messages:
                message.header.name_size = len(name)


@lru_cache(maxsize=4096)
def _packed(address: Address, family: int) -> bytes:
    """Return a struct sockaddr_in or sockaddr_in6."""
    port = address[1].to_bytes(2, "big")
    if family == socket.AF_INET:
        return _IPV4.pack(family, port, socket.inet_pton(family, address[0])) + bytes(8)
    return _IPV6.pack(family, port, socket.inet_pton(family, address[0])) + bytes(4)


@lru_cache(maxsize=4096)
def _source(name: bytes) -> Address:
    """Return host and port of a struct sockaddr_in or sockaddr_in6."""
    family = int.from_bytes(name[:2], sys.byteorder)
    if family == socket.AF_INET:
        _, port, host = _IPV4.unpack_from(name)
    elif family == socket.AF_INET6:
        _, port, host = _IPV6.unpack_from(name)
    else:
        raise OSError(errno.EAFNOSUPPORT, "no internet address")
    return socket.inet_ntop(family, host), int.from_bytes(port, "big")
