"""Recent: what was used last, up to so many (pure)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that forgets the least recently used when there are more than ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return what is kept; it counts as used."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: K, value: V) -> V | None:
        """Keep a value; return the one that made room for it, if one had to."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        return self._kept.popitem(last=False)[1] if len(self._kept) > self._most else None

    def pop(self, key: K) -> V | None:
        """Forget a value; return it, if it was kept."""
        return self._kept.pop(key, None)

    def clear(self) -> list[V]:
        """Forget all; return what was kept."""
        kept = list(self._kept.values())
        self._kept.clear()
        return kept
