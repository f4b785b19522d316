"""Offload: whether this machine cuts and merges trains of datagrams, and does it right (shell).

UDP_SEGMENT and UDP_GRO are probed over loopback, once a process: containers and system call filters
may take the options and not do the work. What a network card does is not seen here; see
:mod:`bytestag.network.path_probes`. Source: udp(7), socket(7), sock_diag(7).
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from functools import lru_cache

_logger = logging.getLogger(__name__)

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
SO_MEMINFO = 55
ANCILLARY_BYTES = 64
SEGMENT = struct.Struct("=H")
STRIDE = struct.Struct("=i")
_MEMINFO = struct.Struct("=9I")
_DROPS = 8
_PROBE_SECONDS = 0.2
_PROBE_BYTES = 100
_PROBE_DATAGRAMS = 5


@lru_cache(maxsize=1)
def probe() -> tuple[bool, bool]:
    """Return whether trains are cut, and whether they are merged again.

    Five datagrams go through loopback with one call; they must arrive whole and in order.
    """
    if sys.platform != "linux":
        return False, False
    try:
        with loopback() as receiver, loopback() as sender:
            merges = set_option(receiver, UDP_GRO, 1)
            if not set_option(sender, UDP_SEGMENT, 0):
                return False, merges
            works = _passes(sender, receiver)
            return works, works and merges
    except OSError as error:
        _logger.info("no segmentation offload: %s", error)
        return False, False


def set_option(sock: socket.socket, option: int, value: int) -> bool:
    """Return whether the kernel knows an option of UDP and took it."""
    try:
        sock.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True


def stride_of(ancillary: list[tuple[int, int, bytes]], size: int) -> int:
    """Return the size of each of the datagrams that the kernel merged; the last may be shorter."""
    for level, kind, payload in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            return max(int(STRIDE.unpack(payload)[0]), 1)
    return size


def dropped(sock: socket.socket) -> int:
    """Return how many datagrams found the receive buffer full: what SO_RXQ_OVFL counts.

    That option would attach it to each datagram; here it is read when somebody asks. 0 where the
    system does not tell.
    """
    if sys.platform != "linux" or sock.fileno() < 0:
        return 0
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
    except OSError:
        return 0
    return int(_MEMINFO.unpack(packed)[_DROPS]) if len(packed) == _MEMINFO.size else 0


def loopback() -> socket.socket:
    """Return a socket to try things with; it waits for a fifth of a second."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(_PROBE_SECONDS)
    return sock


def _passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether a train arrives as it was sent, merged or cut; its last datagram is shorter."""
    train = b"".join(bytes([number]) * _PROBE_BYTES for number in range(_PROBE_DATAGRAMS))[:-1]
    control = [(SOL_UDP, UDP_SEGMENT, SEGMENT.pack(_PROBE_BYTES))]
    sender.sendmsg([train], control, 0, receiver.getsockname())
    came = b""
    while len(came) < len(train):
        data, ancillary, _, _ = receiver.recvmsg(len(train), ANCILLARY_BYTES)
        if stride_of(ancillary, len(data)) != min(_PROBE_BYTES, len(data)):
            return False
        came += data
    return came == train
