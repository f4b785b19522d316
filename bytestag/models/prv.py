"""``.prv`` and ``.prvdir``: small text files that stand for a file or a directory (pure).

kbucket's formats, written with BLAKE3 beside and without what told of the owner::

    {"hints":[…],"original_b3":…,"original_checksum":…,"original_fcs":…,"original_size":…,
     "prv_version":"0.11"}
    {"dirs":{name:{…}},"files":{name:{a .prv}},"hints":[…]}

Hashes are hexadecimal, the checksum is a SHA-1, ``hints`` are addresses to try. Read in any order
and spacing, with kbucket's names of fields or without their ``original_``; ``original_path``, which
kbucket wrote, and everything unknown is passed over and never kept. Names may be listed; whoever
makes files of them goes through :meth:`PrvDirectory.manifest`, which refuses unsafe ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bytestag.config import KIB
from bytestag.errors import FormatError, UsageError
from bytestag.hashing import BLAKE3_BYTES, SHA1_BYTES
from bytestag.keys import KeyBytes
from bytestag.models import canonical
from bytestag.models.canonical import JsonObject, unhex
from bytestag.models.directory import (
    DEPTH_MAX,
    MANIFEST_BYTES_MAX,
    DirectoryManifest,
    FileEntry,
    Path,
    check_count,
    read_name,
)
from bytestag.models.safe_names import check_component
from bytestag.uri import HINTS_READ_MAX, Hint, Link, format_address, parse_address

FILE_SUFFIX, DIRECTORY_SUFFIX = ".prv", ".prvdir"
VERSION = "0.11"
HEAD_BYTES = 1000
_HEAD = f"head{HEAD_BYTES}-"
_FIELDS = ("checksum", "size", "fcs", "b3")
_FILE_BYTES_MAX = 64 * KIB  # six fields and a path of at most 4 KiB
_JSON_DEPTH_MAX = 2 * DEPTH_MAX + 16
_JSON_ITEMS_MAX = 12_000_000  # a million entries of at most eight fields, and room


@dataclass(frozen=True, slots=True)
class PrvFile:
    """What a ``.prv`` says of a file. Hashes that it does not tell are empty."""

    sha1: bytes
    size: int
    head_sha1: bytes = b""
    """SHA-1 of the first 1,000 bytes: tells most wrong files at once."""
    b3: bytes = b""
    """BLAKE3 of the file."""
    hints: tuple[Hint, ...] = ()

    def __post_init__(self) -> None:
        if len(self.sha1) != SHA1_BYTES or len(self.head_sha1) not in (0, SHA1_BYTES):
            raise FormatError(f"a SHA-1 has {SHA1_BYTES} bytes")
        if len(self.b3) not in (0, BLAKE3_BYTES):
            raise FormatError(f"a BLAKE3 has {BLAKE3_BYTES} bytes")
        if not canonical.is_count(self.size):
            raise FormatError("the size of a file is a number from 0 to 2^63 - 1")

    def link(self, name: str = "") -> Link:
        """Return the link that names the same file."""
        return Link("sha1", KeyBytes(self.sha1), name, hints=self.hints)

    def fits(self, size: int, sha1: bytes, b3: bytes) -> bool:
        """Return whether a file of this size and these hashes is the one that is meant."""
        return (self.size, self.sha1) == (size, sha1) and self.b3 in (b"", b3)

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        fields: JsonObject = {
            "original_checksum": self.sha1.hex(),
            "original_size": self.size,
            "prv_version": VERSION,
        }
        if self.head_sha1:
            fields["original_fcs"] = _HEAD + self.head_sha1.hex()
        if self.b3:
            fields["original_b3"] = self.b3.hex()
        return fields | _print_hints(self.hints)

    def to_bytes(self) -> bytes:
        """Return the text of the file."""
        return _dump(self.to_json())

    @classmethod
    def from_json(cls, value: object) -> PrvFile:
        """Read the JSON object. Raises FormatError on anything else."""
        if not isinstance(value, dict):
            raise FormatError("what a .prv says of a file is an object")
        fields = {name: value.get(f"original_{name}", value.get(name)) for name in _FIELDS}
        fcs = canonical.take_text(fields, "fcs") or ""
        head = unhex(fcs.removeprefix(_HEAD), SHA1_BYTES) if fcs.startswith(_HEAD) else b""
        b3 = fields["b3"]
        size = fields["size"]
        if not canonical.is_count(size):
            raise FormatError("'original_size' is a number from 0 to 2^63 - 1")
        return cls(
            unhex(fields["checksum"], SHA1_BYTES),
            size,
            head,
            unhex(b3, BLAKE3_BYTES) if b3 is not None else b"",
            _read_hints(value),
        )

    @classmethod
    def from_bytes(cls, buffer: bytes) -> PrvFile:
        """Read the text of a ``.prv``. Raises FormatError on anything else."""
        return cls.from_json(canonical.load_object(buffer, bytes_max=_FILE_BYTES_MAX))


@dataclass(slots=True)
class PrvDirectory:
    """What a ``.prvdir`` says: files and directories by name."""

    files: dict[str, PrvFile] = field(default_factory=dict)
    dirs: dict[str, PrvDirectory] = field(default_factory=dict)
    hints: tuple[Hint, ...] = ()

    def entries(self, below: Path = ()) -> Iterable[tuple[Path, PrvFile]]:
        """Yield each file with its path: by directory, in the order of names."""
        for name in sorted(self.files):
            yield (*below, name), self.files[name]
        for name in sorted(self.dirs):
            yield from self.dirs[name].entries((*below, name))

    def directories(self, below: Path = ()) -> Iterable[Path]:
        """Yield the path of each directory below this one."""
        for name in sorted(self.dirs):
            yield (*below, name)
            yield from self.dirs[name].directories((*below, name))

    def all_hints(self) -> tuple[Hint, ...]:
        """Return the addresses to try, as many as a link may have."""
        found = dict.fromkeys(self.hints)
        for _, file in self.entries():
            found |= dict.fromkeys(file.hints)
            if len(found) >= HINTS_READ_MAX:
                break
        return tuple(found)[:HINTS_READ_MAX]

    def manifest(self) -> DirectoryManifest:
        """Return the manifest of the same directory. Raises FormatError for an unsafe name."""
        return DirectoryManifest.build(
            ((path, FileEntry(file.sha1, file.size, file.b3)) for path, file in self.entries()),
            self.directories(),
        )

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            "files": {name: file.to_json() for name, file in self.files.items()},
            "dirs": {name: directory.to_json() for name, directory in self.dirs.items()},
        } | _print_hints(self.hints)

    def to_bytes(self) -> bytes:
        """Return the text of the file."""
        return _dump(self.to_json())

    @classmethod
    def from_bytes(cls, buffer: bytes) -> PrvDirectory:
        """Read the text of a ``.prvdir``. Raises FormatError on anything else."""
        value = canonical.load_object(
            buffer,
            bytes_max=MANIFEST_BYTES_MAX,
            depth_max=_JSON_DEPTH_MAX,
            items_max=_JSON_ITEMS_MAX,
        )
        if "dirs" not in value and "files" not in value:
            raise FormatError("this is no .prvdir: it has neither 'files' nor 'dirs'")
        read = _read_directory(value, depth=0)
        check_count(sum(1 for _ in read.entries()) + sum(1 for _ in read.directories()))
        return read

    @classmethod
    def build(
        cls,
        files: Iterable[tuple[Sequence[str], PrvFile]],
        directories: Iterable[Sequence[str]] = (),
        hints: tuple[Hint, ...] = (),
    ) -> PrvDirectory:
        """Make one from paths. Raises FormatError as a manifest does."""
        root = cls(hints=hints)
        for path, file in files:
            check_component(path[-1])
            _directory_at(root, path[:-1]).files[path[-1]] = file
        for path in directories:
            _directory_at(root, path)
        root.manifest()  # refuses a file that is a directory as well
        return root


def read_prv(buffer: bytes) -> PrvFile | PrvDirectory:
    """Read a ``.prv`` or a ``.prvdir``, whatever it is called. Raises FormatError."""
    if len(buffer) <= _FILE_BYTES_MAX:
        value = canonical.load_object(buffer, bytes_max=_FILE_BYTES_MAX, depth_max=_JSON_DEPTH_MAX)
        if "files" not in value and "dirs" not in value:
            return PrvFile.from_json(value)
    return PrvDirectory.from_bytes(buffer)


# --- Inside --------------------------------------------------------------------------------------


def _dump(value: JsonObject) -> bytes:
    text = json.dumps(value, indent=4, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _print_hints(hints: tuple[Hint, ...]) -> JsonObject:
    return {"hints": [format_address(*hint) for hint in hints]} if hints else {}


def _read_hints(fields: JsonObject) -> tuple[Hint, ...]:
    texts = canonical.take_list({"hints": fields.get("hints")}, "hints", HINTS_READ_MAX) or []
    try:
        return tuple(parse_address(str(text)) for text in texts)
    except UsageError as error:
        raise FormatError(f"a hint of a .prv: {error.message}") from error


def _read_directory(value: object, depth: int) -> PrvDirectory:
    if not isinstance(value, dict):
        raise FormatError("a directory is an object")
    if depth > DEPTH_MAX:
        raise FormatError(f"a path has more than {DEPTH_MAX} components")
    files, dirs = value.get("files", {}), value.get("dirs", {})
    if not isinstance(files, dict) or not isinstance(dirs, dict):
        raise FormatError("'files' and 'dirs' are objects")
    read = PrvDirectory(hints=_read_hints(value))
    read.files = {read_name(name): PrvFile.from_json(file) for name, file in files.items()}
    read.dirs = {read_name(name): _read_directory(item, depth + 1) for name, item in dirs.items()}
    if len(read.files.keys() | read.dirs.keys()) != len(files) + len(dirs):
        raise FormatError("a name is there twice in one directory")
    return read


def _directory_at(root: PrvDirectory, path: Sequence[str]) -> PrvDirectory:
    for name in path:
        check_component(name)
        root = root.dirs.setdefault(name, PrvDirectory())
    return root
