"""The memory of a process that runs a node: one heap, and a collector that spares the old (shell).

For programs, not for libraries: it holds for the whole process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

M_ARENA_MAX = -8  # glibc, malloc.h
GC_THRESHOLDS = (10_000, 10, 10)


def share_one_heap() -> None:
    """Have all threads allocate from one heap, where the C library is glibc.

    A heap for each thread gains nothing under the interpreter's lock; what one thread allocates and
    another frees made a publisher of 40,000 rows a third larger (205 MiB, 150 with one heap).
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def collect_less() -> None:
    """Collect garbage when 10,000 objects are new, not 700: most of ours die by themselves."""
    gc.set_threshold(*GC_THRESHOLDS)


def spare_what_exists() -> None:
    """Take what exists for lasting, as when a node is up: it is not searched for garbage again.

    With 100 nodes in a process both together took a third off a put's CPU time, and the slowest
    gets became six times as fast (``python -m benchmarks.dht_report --rows sockets``).
    """
    gc.collect()
    gc.freeze()
