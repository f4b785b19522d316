"""Heap: memory that was freed is kept for what comes next (shell over mallopt(3)).

glibc gives back at once what was freed of larger pieces, and the next one of 256 KiB has its pages
cleared again, one fault each: 0.4 s for each GiB that is served. So a node keeps some.
"""

from __future__ import annotations

import contextlib

from bytestag.config import MIB

KEPT_BYTES = 64 * MIB
"""So much may lie free at the end of a heap."""
PIECE_BYTES_MAX = 32 * MIB
"""Larger pieces are mapped for themselves, and given back; glibc takes no more."""
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def keep_freed() -> None:
    """Let this process keep freed memory; does nothing where the C library is another."""
    import ctypes  # only who moves values pays for it

    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, PIECE_BYTES_MAX)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
