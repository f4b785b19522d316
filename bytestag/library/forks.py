"""What begins anew in a forked child (shell).

There the threads and connections of its parent are not, and a lock that a thread held is held for
ever.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What has threads, connections or locks."""

    def after_fork(self) -> None:
        """Let go of them, in the child."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_anew_after_forks(thing: Forked) -> None:
    """Have a thing told of each fork in the child, as long as it lives."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
