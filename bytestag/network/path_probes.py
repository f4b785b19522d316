"""PathProbes: what of that which we send reaches the peer: how large datagrams, and trains (pure).

Sizes are tried with padded pings (:mod:`bytestag.network.path_mtu`). When nothing of the trains is
acknowledged any more, smaller datagrams are sent. If that is no help, although a single ping
arrives, the kernel or the network card spoils what it cuts, and does not say so (Linux 7.0 to
7.1.4): then trains are cut here.
"""

from __future__ import annotations

from collections.abc import Iterator

from bytestag.network.control import ControlChannel
from bytestag.network.path_mtu import PathMtu
from bytestag.network.trains import TrainSender


class PathProbes:
    """Watches the path that a session is on, and tells its sender."""

    def __init__(
        self, control: ControlChannel, sender: TrainSender, datagram_bytes_max: int
    ) -> None:
        """No datagrams of more than ``datagram_bytes_max`` are tried."""
        self._control = control
        self._sender = sender
        self._mtu = PathMtu(datagram_bytes_max)
        self._stuck_at = -1
        """How much of the trains had been delivered when nothing more of them was."""
        self._lone: int | None = None
        """The number of a ping that was sent because of that."""
        self._is_lone_due = False
        self._has_lone_arrived = False

    def begin_anew(self) -> None:
        """Forget all: another path is in use."""
        self._mtu.begin_anew(self._sender.congestion.delivered)
        self._sender.datagram_bytes = self._mtu.datagram_bytes
        self._sender.is_cutting = False
        self._stuck_at, self._lone, self._is_lone_due = -1, None, False

    def pings_arrived(self) -> None:
        """Look at which pings were acknowledged."""
        arrived = self._control.acked_pings
        if self._mtu.probe in arrived:
            self._mtu.acknowledged()
            self._sender.datagram_bytes = self._mtu.datagram_bytes
        if self._lone in arrived:
            self._has_lone_arrived = True
        arrived.clear()

    def got_stuck(self) -> None:
        """Nothing of the trains was acknowledged in a long time (RFC 8899, 4.3)."""
        delivered = self._sender.congestion.delivered
        if delivered != self._stuck_at:
            self._stuck_at, self._has_lone_arrived = delivered, False
        elif self._has_lone_arrived:  # and smaller datagrams, sent with it, did not
            self._sender.is_cutting = True
        self._is_lone_due = not self._sender.is_cutting
        self._mtu.begin_anew(delivered)
        self._sender.shrink(self._mtu.datagram_bytes)

    def to_send(self, now: float) -> Iterator[bytes]:
        """Yield the datagrams that try what passes, if there is something to send in them."""
        if not self._sender.active:
            return
        mtu = self._mtu
        if self._is_lone_due:
            self._is_lone_due = False
            self._lone, datagram = self._control.ping(0, now)
            yield datagram
        if mtu.probe is not None and not self._control.is_in_flight(mtu.probe):
            mtu.lost()
        if size := mtu.probe_bytes(self._sender.congestion.delivered):
            number, datagram = self._control.ping(size, now)
            mtu.probed(number)
            yield datagram
