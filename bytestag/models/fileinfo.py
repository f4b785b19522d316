"""FileInfo: the parts of a file with their hashes (pure).

Up to 4,096 parts it is the JSON of 2012 with BLAKE3 beside each SHA-1, and a reader of 2012 can
read it. Above, version 2 names *list values* instead: packed entries of SHA-1 and BLAKE3, 5,041
to a value, all full but the last. An empty file has no parts. A FileInfo that exists is valid: the
number of parts fits the size, and all sizes add up to it.

Names in the JSON: ``!`` type, ``hash`` SHA-1 and ``b3`` BLAKE3 of the file, ``parts`` and
``parts_b3`` those of its parts, ``lists`` (SHA-1 ‖ BLAKE3) of the list values, ``size``,
``part_bytes`` unless it is 256 KiB, ``filename`` the path it had, in components. ``needs`` names
features that a reader must know; other names are kept as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bytestag.config import LIST_PARTS_MAX, PART_BYTES, VALUE_BYTES_MAX
from bytestag.errors import FormatError
from bytestag.hashing import BLAKE3_BYTES, SHA1_BYTES, blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models import canonical
from bytestag.models.canonical import JsonObject, b64, unb64
from bytestag.models.parts import (
    ENTRY_BYTES,
    LIST_ENTRIES_MAX,
    ListEntry,
    PartEntry,
    PartList,
    check_part_bytes,
    count_parts,
    list_layout,
    place,
)

__all__ = ["FileInfo", "ListEntry", "PartEntry", "PartList", "build", "check_needs", "count_parts"]

TYPE = "BytestagFileInfo"
LISTS_MAX = 13_000  # what a root of 1 MiB has room for
FILE_BYTES_MAX = LISTS_MAX * LIST_ENTRIES_MAX * PART_BYTES  # 17 TB
NAMES_MAX = 64
NAME_BYTES_MAX = 1024
RESERVED_FEATURES = frozenset({"enc", "parity", "pack"})
SUPPORTED_FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FileInfo:
    """The description of one file. ``parts`` (version 1) or ``lists`` (version 2) is set."""

    hash: KeyBytes
    """SHA-1 of the file."""
    size: int | None
    """None only in descriptions of 2012."""
    blake3: bytes = b""
    """BLAKE3 of the file; empty only in descriptions of 2012."""
    parts: tuple[PartEntry, ...] = ()
    lists: tuple[ListEntry, ...] = ()
    part_bytes: int = PART_BYTES
    filename: tuple[str, ...] = ()
    """Path components it had where it was shared; a hint, never to be written to unchecked."""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What a later version wrote; kept."""

    def __post_init__(self) -> None:
        _check_hashes(self)
        _check_layout(self)
        _check_filename(self.filename)
        check_needs(self.extra)

    # --- Parts -----------------------------------------------------------------------------------

    @property
    def part_count(self) -> int:
        """How many parts the file has, in either version."""
        return len(self.parts) if self.size is None else count_parts(self.size, self.part_bytes)

    def part_range(self, number: int) -> tuple[int, int]:
        """Return offset and size of a part."""
        if not 0 <= number < self.part_count:
            raise IndexError(f"there is no part {number}")
        offset = number * self.part_bytes
        end = offset + self.part_bytes
        return offset, self.part_bytes if self.size is None else min(end, self.size) - offset

    def part_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield offset and size of each part."""
        return map(self.part_range, range(self.part_count))

    def list_parts(self, number: int, value: bytes) -> list[PartEntry]:
        """Return the parts that list value ``number`` names. Raises FormatError if it lies."""
        entry = self.lists[number]
        if len(value) != entry.length * ENTRY_BYTES:
            raise FormatError(f"a list of {entry.length:,} parts has {len(value):,} bytes")
        if sha1(value) != entry.sha1 or blake3(value) != entry.blake3:
            raise FormatError(f"list value {number} has the wrong hash")
        return PartList.unpack(value, entry.first, self.part_bytes, self.size)

    # --- Bytes -----------------------------------------------------------------------------------

    @property
    def id(self) -> KeyBytes:
        """SHA-1 of the canonical bytes."""
        return KeyBytes(sha1(self.to_bytes()))

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.dump(self.to_json())

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        fields: JsonObject = {**self.extra, "!": TYPE, "hash": self.hash.base64}
        if self.blake3:
            fields["b3"] = b64(self.blake3)
        if self.size is not None:
            fields["size"] = self.size
        if self.filename:
            fields["filename"] = list(self.filename)
        if self.part_bytes != PART_BYTES:
            fields["part_bytes"] = self.part_bytes
        if self.lists:
            fields["lists"] = [b64(entry.sha1 + entry.blake3) for entry in self.lists]
            return fields
        fields["parts"] = [b64(part.sha1) for part in self.parts]
        if self.parts and self.parts[0].blake3:
            fields["parts_b3"] = [b64(part.blake3) for part in self.parts]
        return fields

    @classmethod
    def from_bytes(cls, buffer: bytes) -> FileInfo:
        """Read a FileInfo of either version. Raises FormatError on anything else."""
        return cls.from_json(canonical.load_object(buffer, bytes_max=VALUE_BYTES_MAX))

    @classmethod
    def from_json(cls, value: object) -> FileInfo:
        """Read a FileInfo from a parsed JSON object."""
        if not isinstance(value, dict) or value.get("!") != TYPE:
            raise FormatError("this is not a FileInfo")
        fields = {name: item for name, item in value.items() if name != "!"}
        check_needs(fields)
        hash_ = KeyBytes(unb64(fields.pop("hash", None), SHA1_BYTES))
        blake3_ = fields.pop("b3", None)
        size = canonical.take_int(fields, "size")
        part_bytes = canonical.take_int(fields, "part_bytes")
        part_bytes = PART_BYTES if part_bytes is None else part_bytes
        check_part_bytes(part_bytes)
        filename = canonical.take_list(fields, "filename", NAMES_MAX)
        return cls(
            hash=hash_,
            size=size,
            blake3=b"" if blake3_ is None else unb64(blake3_, BLAKE3_BYTES),
            parts=_take_parts(fields, part_bytes, size),
            lists=_take_lists(fields, part_bytes, size),
            part_bytes=part_bytes,
            filename=tuple(filename or ()),
            extra=fields,
        )


def build(
    file_sha1: bytes,
    file_blake3: bytes,
    size: int,
    entries: Iterable[Sequence[Any]],
    filename: Sequence[str] = (),
    part_bytes: int = PART_BYTES,
) -> tuple[FileInfo, list[bytes]]:
    """Return the description of a file and the list values that belong to it.

    ``entries`` begin with SHA-1 and BLAKE3 of each part, in the order of the file. The list values
    are to be published with the description; there are none up to 4,096 parts.
    """
    check_part_bytes(part_bytes)
    count = count_parts(size, part_bytes)
    hashes = ((entry[0], entry[1]) for entry in entries)
    common: JsonObject = {
        "hash": KeyBytes(file_sha1),
        "size": size,
        "blake3": file_blake3,
        "part_bytes": part_bytes,
        "filename": tuple(filename),
    }
    if count <= LIST_PARTS_MAX:
        return FileInfo(parts=tuple(place(hashes, 0, part_bytes, size)), **common), []
    values, lists = [], []
    for first, length in list_layout(count):
        value = b"".join(a + b for _, (a, b) in zip(range(length), hashes, strict=False))
        if len(value) != length * ENTRY_BYTES:
            raise FormatError(f"{size:,} bytes have {count:,} parts, but fewer are given")
        values.append(value)
        lists.append(ListEntry(sha1(value), blake3(value), first, length))
    if next(hashes, None) is not None:
        raise FormatError(f"{size:,} bytes have {count:,} parts, but more are given")
    return FileInfo(lists=tuple(lists), **common), values


def one_part_bytes(sha1_: bytes, blake3_: bytes, size: int) -> bytes:
    """Return the canonical bytes of a file of one part, without a name: most of all files.

    The same as those of :func:`build`, five times as fast.
    """
    hash_, b3 = b64(sha1_), b64(blake3_)
    return (
        f'{{"!":"{TYPE}","b3":"{b3}","hash":"{hash_}","parts":["{hash_}"],"parts_b3":["{b3}"],'
        f'"size":{size}}}'
    ).encode("ascii")


def check_needs(fields: Mapping[str, Any]) -> None:
    """Raise FormatError if ``needs`` names a feature that this reader does not have."""
    needs = fields.get("needs", [])
    if not isinstance(needs, list) or not all(isinstance(name, str) for name in needs):
        raise FormatError("'needs' is a list of names")
    for name in needs:
        if name not in SUPPORTED_FEATURES:
            kind = "reserved" if name in RESERVED_FEATURES else "unknown"
            raise FormatError(
                f"this file needs the feature {name[:64]!r}, which is {kind} to this version",
                hint="a newer bytestag may read it",
            )


# --- Inside --------------------------------------------------------------------------------------


def _take_parts(fields: JsonObject, part_bytes: int, size: int | None) -> tuple[PartEntry, ...]:
    parts = canonical.take_list(fields, "parts", LIST_PARTS_MAX)
    blake3s = canonical.take_list(fields, "parts_b3", LIST_PARTS_MAX)
    if parts is None:
        if "lists" not in fields or blake3s is not None:
            raise FormatError("'parts' or 'lists' is missing")
        return ()
    if "lists" in fields:
        raise FormatError("both 'parts' and 'lists' are there")
    if blake3s is not None and len(blake3s) != len(parts):
        raise FormatError("'parts' and 'parts_b3' differ in length")
    sha1s = [unb64(text, SHA1_BYTES) for text in parts]
    b3s = [b""] * len(parts) if blake3s is None else [unb64(t, BLAKE3_BYTES) for t in blake3s]
    return tuple(place(zip(sha1s, b3s, strict=True), 0, part_bytes, size))


def _take_lists(fields: JsonObject, part_bytes: int, size: int | None) -> tuple[ListEntry, ...]:
    texts = canonical.take_list(fields, "lists", LISTS_MAX)
    if texts is None:
        return ()
    count = count_parts(size or 0, part_bytes)
    if not texts or len(texts) != -(-count // LIST_ENTRIES_MAX):
        raise FormatError("the number of lists does not fit the size")
    hashes = [unb64(text, ENTRY_BYTES) for text in texts]
    return tuple(
        ListEntry(value[:SHA1_BYTES], value[SHA1_BYTES:], first, length)
        for value, (first, length) in zip(hashes, list_layout(count), strict=True)
    )


def _check_hashes(info: FileInfo) -> None:
    if len(info.blake3) not in (0, BLAKE3_BYTES):
        raise FormatError(f"a BLAKE3 has {BLAKE3_BYTES} bytes, not {len(info.blake3)}")
    if info.lists and not info.blake3:
        raise FormatError("version 2 carries the BLAKE3 of the file")
    has_blake3 = bool(info.parts and info.parts[0].blake3)
    entries: tuple[PartEntry | ListEntry, ...] = info.parts or info.lists
    for entry in entries:
        if len(entry.sha1) != SHA1_BYTES:
            raise FormatError(f"a SHA-1 has {SHA1_BYTES} bytes, not {len(entry.sha1)}")
        if len(entry.blake3) != (BLAKE3_BYTES if has_blake3 or info.lists else 0):
            raise FormatError("each part has a BLAKE3 or none has")


def _check_layout(info: FileInfo) -> None:
    """Check that parts or lists cover the file exactly."""
    check_part_bytes(info.part_bytes)
    if info.size is None:
        if info.lists or len(info.parts) > LIST_PARTS_MAX:
            raise FormatError("the size is missing")
        return
    if not canonical.is_count(info.size):
        raise FormatError("the size is a number from 0 to 2^63 - 1")
    count = count_parts(info.size, info.part_bytes)
    if count > LIST_PARTS_MAX:
        covered = info.lists[-1].first + info.lists[-1].length if info.lists else 0
        if covered != count or info.parts or len(info.lists) > LISTS_MAX:
            raise FormatError(f"{info.size:,} bytes need lists of {count:,} parts")
    elif info.lists or len(info.parts) != count:
        raise FormatError(f"{info.size:,} bytes are {count:,} parts, not {len(info.parts):,}")
    elif sum(part.size for part in info.parts) != info.size:
        raise FormatError("the sizes of the parts do not add up")


def _check_filename(filename: tuple[str, ...]) -> None:
    for name in filename:
        if not canonical.is_text(name) or not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            raise FormatError("'filename' is a list of path components")
    if len(filename) > NAMES_MAX:
        raise FormatError(f"'filename' has more than {NAMES_MAX} components")
