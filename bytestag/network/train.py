"""Train: what was sent together, and what of it has not been acknowledged (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bytestag.network.congestion import Snapshot
from bytestag.network.units import Upload

Segment = tuple[Upload, int, int]
"""Upload, unit, segment."""


@dataclass(slots=True)
class Train:
    """Datagrams that were sent together."""

    segments: list[Segment] | None
    """What each index carries; None for a run of one unit."""
    upload: Upload | None
    unit: int
    first: int
    """The segment of the unit that index 0 is, in a run."""
    pending: int
    sizes: int
    """Bytes of a full segment; the last one may be shorter, which the window may ignore."""
    snapshot: Snapshot

    @property
    def time(self) -> float:
        return self.snapshot.sent

    def waiting(self) -> list[Segment]:
        """Return the segments not acknowledged."""
        if self.segments is not None:
            return [self.segments[index] for index in bits(self.pending)]
        assert self.upload is not None
        return [(self.upload, self.unit, self.first + index) for index in bits(self.pending)]


def bits(bitmap: int) -> Iterator[int]:
    """Yield the numbers of the bits that are set."""
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low
