"""Places: where parts of shared files lie that readers will ask for next (shell).

Whoever reads a large file asks for its parts in order. When one had to be searched for, the places
of those that follow it are read with it; the bytes are verified each time all the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bytestag.config import RUN_BYTES_MAX
from bytestag.recent import Recent
from bytestag.tables.base import KVPRecord
from bytestag.tables.file_hashing import open_file

PLACES_MAX = 4096
PLACES_AHEAD = 256


class Place(NamedTuple):
    """A part where it lies."""

    record: KVPRecord
    path: bytes
    offset: int


class Places:
    """The places of parts by their SHA-1, those used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: Recent[bytes, Place] = Recent(PLACES_MAX)
        self._changes = 0

    @property
    def changes(self) -> int:
        """To be read before the places are, and given to :meth:`learn`."""
        return self._changes

    def get(self, sha1: bytes) -> Place | None:
        """Return where a part with this SHA-1 lies."""
        with self._lock:
            return self._places.get(sha1)

    def learn(self, places: Iterable[Place], changes: int) -> None:
        """Remember places, unless something changed since they were read."""
        with self._lock:
            if changes == self._changes:
                for place in places:
                    self._places.put(place.record.index, place)

    def clear(self) -> None:
        """Forget all: what is shared changes."""
        with self._lock:
            self._changes += 1
            self._places.clear()


def read_places(path: bytes, places: Sequence[Place]) -> list[memoryview]:
    """Return what is at some places of a file now; nothing for all if it cannot be read.

    Places that follow each other are read at one go; what readers ask for at one go is freed when
    they have it.
    """
    try:
        with open_file(path) as file:
            return [part for run in _runs(places) for part in _read_run(file.fileno(), run)]
    except OSError:
        return [memoryview(b"")] * len(places)


def _runs(places: Sequence[Place]) -> Iterator[list[Place]]:
    run: list[Place] = []
    end = size = 0
    for place in places:
        if place.offset != end or size + place.record.size > RUN_BYTES_MAX:
            if run:
                yield run
            run, size = [], 0
        run.append(place)
        size += place.record.size
        end = place.offset + place.record.size
    if run:
        yield run


def _read_run(fd: int, run: Sequence[Place]) -> list[memoryview]:
    begin = run[0].offset
    size = run[-1].offset + run[-1].record.size - begin
    whole = memoryview(os.pread(fd, size, begin))
    return [whole[p.offset - begin :][: p.record.size] for p in run]
