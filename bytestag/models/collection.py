"""CollectionInfo: files under one name, with a comment and a time, as in 2012 (pure).

A directory manifest has taken its place; it is read, and written on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bytestag.config import MANIFEST_ENTRIES_MAX, MIB
from bytestag.errors import FormatError
from bytestag.hashing import sha1
from bytestag.keys import KeyBytes
from bytestag.models import canonical
from bytestag.models.canonical import JsonObject
from bytestag.models.fileinfo import FileInfo, check_needs

TYPE = "BytestagCollectionInfo"
COLLECTION_BYTES_MAX = 256 * MIB  # each FileInfo in it is some hundred bytes and its parts


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """Descriptions of files that belong together."""

    files: tuple[FileInfo, ...] = ()
    name: str | None = None
    comment: str | None = None
    timestamp: int | None = None
    """When it was made, in wall clock seconds."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What a later version wrote; kept."""

    def __post_init__(self) -> None:
        if len(self.files) > MANIFEST_ENTRIES_MAX:
            raise FormatError(f"more than {MANIFEST_ENTRIES_MAX:,} files in one collection")
        if self.timestamp is not None and not canonical.is_count(self.timestamp):
            raise FormatError("'timestamp' is a number from 0 to 2^63 - 1")
        for text in (self.name, self.comment):
            if text is not None and not canonical.is_text(text):
                raise FormatError("'name' and 'comment' are texts")

    @property
    def id(self) -> KeyBytes:
        """SHA-1 of the canonical bytes."""
        return KeyBytes(sha1(self.to_bytes()))

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        fields: JsonObject = {
            **self.extra,
            "!": TYPE,
            "files": [info.to_json() for info in self.files],
        }
        optional = {"name": self.name, "comment": self.comment, "timestamp": self.timestamp}
        fields.update((name, value) for name, value in optional.items() if value is not None)
        return canonical.dump(fields)

    @classmethod
    def from_bytes(cls, buffer: bytes) -> CollectionInfo:
        """Read a collection. Raises FormatError on anything else."""
        fields = canonical.load_object(
            buffer, bytes_max=COLLECTION_BYTES_MAX, items_max=16 * MANIFEST_ENTRIES_MAX
        )
        if fields.pop("!", None) != TYPE:
            raise FormatError("this is not a CollectionInfo")
        check_needs(fields)
        files = canonical.take_list(fields, "files", MANIFEST_ENTRIES_MAX)
        if files is None:
            raise FormatError("'files' is missing")
        return cls(
            files=tuple(map(FileInfo.from_json, files)),
            name=canonical.take_text(fields, "name"),
            comment=canonical.take_text(fields, "comment"),
            timestamp=canonical.take_int(fields, "timestamp"),
            extra=fields,
        )
