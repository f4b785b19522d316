"""Referrals: whom the contacts that answer may send us to (shell: it reads the clock).

What a node says of others is a hint: it may not send us to this machine's own addresses, nor to
anybody who failed us a moment ago.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from bytestag.crypto.identity import Address, unpack_address, unpack_addresses
from bytestag.dht.reachability import is_eligible, is_loopback
from bytestag.dht.routing import Contact
from bytestag.errors import PacketError
from bytestag.events.runtime import Runtime
from bytestag.network.packets import Reply

SILENT_REMEMBERED_MAX = 2048


class Referrals:
    """Reads the contacts and addresses in replies."""

    def __init__(self, runtime: Runtime, *, is_local: bool) -> None:
        self._runtime = runtime
        self._is_local = is_local
        self._silent: OrderedDict[Address, float] = OrderedDict()

    def contacts(
        self, referrer: Address, reply: Reply, wants: Callable[[bytes], bool]
    ) -> list[Contact]:
        """Return the contacts in a reply whose IDs are wanted and whom the referrer may name."""
        found = []
        for node_id, packed in _split(reply):
            if not wants(node_id):
                continue
            try:
                address = unpack_address(packed)
            except PacketError:
                continue
            if self._may_name(referrer, address) and not self.is_silent(address):
                found.append(Contact(node_id, address))
        return found

    def addresses(self, referrer: Address, packed: bytes) -> list[Address]:
        """Return the addresses of a provider that a node named, and may name; maybe none."""
        try:
            return [a for a in unpack_addresses(packed) if self._may_name(referrer, a)]
        except PacketError:
            return []

    def _may_name(self, referrer: Address, address: Address) -> bool:
        """Only a node on our own machine may send us to loopback addresses."""
        if is_loopback(address[0]) and not is_loopback(referrer[0]):
            return False
        return is_eligible(address[0], is_local=self._is_local)

    # --- Silence ---------------------------------------------------------------------------------

    def is_silent(self, address: Address) -> bool:
        """Whether somebody at this address failed us a moment ago."""
        until = self._silent.get(address)
        return until is not None and until > self._runtime.monotonic()

    def has_failed(self, address: Address, seconds: float) -> None:
        """Take nobody's word for this address for a while."""
        self._silent[address] = self._runtime.monotonic() + seconds
        self._silent.move_to_end(address)
        if len(self._silent) > SILENT_REMEMBERED_MAX:
            self._silent.popitem(last=False)

    def has_answered(self, address: Address) -> None:
        """Somebody is there after all."""
        self._silent.pop(address, None)


def _split(reply: Reply) -> Iterator[tuple[bytes, bytes]]:
    """Yield (node ID, packed IP and port) of each contact."""
    for packed, step in ((reply.contacts4, 26), (reply.contacts6, 38)):
        for start in range(0, len(packed), step):
            yield packed[start : start + 20], packed[start + 20 : start + step]
