"""Burst: datagrams that are sent with one call (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Burst:
    """Buffers to send as one: ``segment_bytes`` each, the last may be shorter (2 a datagram)."""

    buffers: list[bytes | memoryview]
    segment_bytes: int
    is_cut: bool = False
    """Whether it must not be left to the kernel to cut it: on this path it arrives spoilt."""
