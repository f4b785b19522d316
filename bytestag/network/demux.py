"""Demux: the first byte of a datagram decides who takes it (shell)."""

from __future__ import annotations

from collections import Counter

from bytestag.crypto.identity import Address
from bytestag.network.rpc import RPC
from bytestag.network.sessions import Sessions


class Demux:
    """The receiver of a node's endpoint: 00 and 01 are RPC, 40 to 7f are sessions."""

    def __init__(self, rpc: RPC, sessions: Sessions) -> None:
        self._rpc = rpc
        self._sessions = sessions
        self.counters: Counter[str] = Counter()

    def datagram_received(self, datagram: memoryview, address: Address) -> None:
        if not datagram:
            self.counters["empty datagram"] += 1
            return
        first = datagram[0]
        if first & 0xC0 == 0x40:
            self._sessions.datagram_received(datagram, address)
        elif first <= 1:
            self._rpc.datagram_received(datagram, address)
        else:
            self.counters["unknown first byte"] += 1

    def burst_received(self, view: memoryview, stride: int, address: Address) -> None:
        firsts = view[::stride].tobytes()
        are_alike = firsts.count(view[0]) == len(firsts)
        if are_alike and view[0] & 0xC0 == 0x40 and stride > 1:
            self._sessions.burst_received(view, stride, address)
            return
        for start in range(0, len(view), stride):
            self.datagram_received(view[start : start + stride], address)

    def wakeup_ended(self) -> None:
        self._sessions.wakeup_ended()
