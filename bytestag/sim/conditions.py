"""Conditions: what a network does to datagrams (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from bytestag.crypto.identity import Address

MTU_BYTES = 1472
"""Ethernet's 1,500 less the headers of IPv4 and UDP; longer datagrams are dropped."""
QUEUE_BYTES = 256 * 1024
"""A second of 2 Mbit/s: home routers queue that much."""
REORDERED_LATENCIES = 2.0
Place = str | Address
"""A host, or one address of it."""


@dataclass(slots=True)
class Conditions:
    """Of a network or of some of its links; chances in 0..1, times in seconds. May be changed."""

    latency: float = 0.05
    """Median of one way."""
    spread: float = 0.5
    """Sigma of the lognormal latency of paths; 0 gives all paths the same."""
    jitter: float = 0.0
    """Up to this is added to each datagram: it reorders those that follow one another closely."""
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Chance that a datagram takes up to two latencies longer than those around it."""
    corruption: float = 0.0
    """Chance that one bit is flipped."""
    uplink_bytes_per_second: float = 0.0
    """What each host can send in all; 0 is without limit. It is looked at when a host sends first;
    :meth:`bytestag.sim.network.VirtualNetwork.set_uplink` changes it later."""
    queue_bytes: int = QUEUE_BYTES
    """What may wait at a host's uplink; more is dropped."""
    mtu_bytes: int = MTU_BYTES
