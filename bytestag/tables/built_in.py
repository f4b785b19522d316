"""The value that every node in the background holds, so that its health can be asked (pure).

It is read as any other: by its link, through the control door or from another node.
"""

from __future__ import annotations

from collections.abc import Iterator

from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, KVPRecord, ReadOnlyKVPTable, Standing
from bytestag.uri import Link

VALUE = b"bytestag: whoever reads this reads from a node that serves.\n"
KEY = KeyBytes(sha1(VALUE))
LINK = Link("sha1", KEY, "health.txt")
_FOREVER = 2**31 - 1


class BuiltInTable(ReadOnlyKVPTable):
    """A table of one value that nobody can change."""

    may_block = False

    def __init__(self) -> None:
        super().__init__()
        self._kvpid = KVPID(KEY, KEY)
        self._record = KVPRecord(
            self._kvpid, blake3(VALUE), len(VALUE), 0, _FOREVER, standing=Standing.ORIGINAL
        )

    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        return [self._record] if key == KEY else []

    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        if kvpid != self._kvpid or not self._record.blake3.startswith(selector):
            raise KeyError(kvpid)
        return VALUE

    def keys(self) -> Iterator[KVPID]:
        yield self._kvpid

    def __len__(self) -> int:
        return 1
