"""A table that holds many keys at a tenth of their memory, to see whether they cost time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

from bytestag.config import DAY
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, KVPRecord
from bytestag.tables.memory import MemoryKVPTable

VALUE = bytes(100)
KEY_BYTES = 20
SOME = 10_000


class CompactTable(MemoryKVPTable):
    """A table in memory with random keys, whose rows are made when somebody looks at them."""

    def __init__(self, keys: int, rng: random.Random, clock: Callable[[], float]) -> None:
        super().__init__(2**40, clock)
        drawn = rng.randbytes(KEY_BYTES * keys)
        self._held = dict.fromkeys(
            drawn[at : at + KEY_BYTES] for at in range(0, len(drawn), KEY_BYTES)
        )
        self._shown = itertools.cycle(
            list(itertools.islice(self._held, 0, None, keys // SOME or 1))
        )
        self._blake3 = blake3(VALUE)
        self._index = KeyBytes.new_hash(VALUE)
        self._began = int(clock())

    def some_key(self) -> bytes:
        """Return a key that is held, another one each time."""
        return next(self._shown)

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        if key not in self._held:
            return []
        kvpid = KVPID(key, self._index)
        return [KVPRecord(kvpid, self._blake3, len(VALUE), self._began, DAY)]

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        if kvpid.key not in self._held:
            raise KeyError(kvpid)
        return VALUE
