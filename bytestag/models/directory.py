"""DirectoryManifest: a snapshot of a directory, in kachery's shape (pure).

::

    {"dirs":{name:{…}},"files":{name:{"b3":…,"info":…,"info_b3":…,"sha1":…,"size":…}}}

Hashes are hexadecimal. Written canonically, so that the same tree has the same hash on every
machine; read in any order and spacing, with only ``sha1`` and ``size``, as kachery wrote it. Names
are held in Unicode form NFC. What is read may be listed, but whoever writes files from it first
asks :mod:`bytestag.models.safe_names`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bytestag.config import MANIFEST_ENTRIES_MAX, MIB
from bytestag.errors import FormatError
from bytestag.hashing import BLAKE3_BYTES, SHA1_BYTES, sha1
from bytestag.keys import KeyBytes
from bytestag.models import canonical
from bytestag.models.canonical import JsonObject, unhex
from bytestag.models.fileinfo import check_needs
from bytestag.models.safe_names import check_component

DEPTH_MAX = 64
MANIFEST_BYTES_MAX = 512 * MIB  # a million entries with all hashes and names of 250 bytes
NAME_BYTES_MAX = 1024  # what is read; what is written has 255
# Each level is two objects, "dirs" and the directory; the rest is room for unknown fields.
_JSON_DEPTH_MAX = 2 * DEPTH_MAX + 16
_JSON_ITEMS_MAX = 16 * MANIFEST_ENTRIES_MAX  # a file of ours is 6, a directory 5

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a directory. Hashes that the manifest does not tell are empty."""

    sha1: bytes
    size: int
    b3: bytes = b""
    """BLAKE3 of the file."""
    info: bytes = b""
    """SHA-1 of its FileInfo."""
    info_b3: bytes = b""
    """BLAKE3 of its FileInfo."""
    extra: Mapping[str, Any] | None = field(default=None, hash=False)
    """What a later version wrote; kept."""

    def __post_init__(self) -> None:
        if len(self.sha1) != SHA1_BYTES or len(self.info) not in (0, SHA1_BYTES):
            raise FormatError(f"a SHA-1 has {SHA1_BYTES} bytes")
        if len(self.b3) not in (0, BLAKE3_BYTES) or len(self.info_b3) not in (0, BLAKE3_BYTES):
            raise FormatError(f"a BLAKE3 has {BLAKE3_BYTES} bytes")
        if type(self.size) is not int or not 0 <= self.size <= canonical.INT_MAX:
            raise FormatError("the size of a file is a number from 0 to 2^63 - 1")

    @property
    def key(self) -> KeyBytes:
        """The SHA-1 as a key."""
        return KeyBytes(self.sha1)

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        fields: JsonObject = dict(self.extra) if self.extra else {}
        fields["sha1"] = self.sha1.hex()
        fields["size"] = self.size
        for name, value in (("b3", self.b3), ("info", self.info), ("info_b3", self.info_b3)):
            if value:
                fields[name] = value.hex()
        return fields

    @classmethod
    def from_json(cls, value: object) -> FileEntry:
        """Read an entry. Raises FormatError on anything else."""
        if not isinstance(value, dict):
            raise FormatError("a file of a directory is an object")
        fields = dict(value)
        check_needs(fields)
        return cls(
            sha1=unhex(fields.pop("sha1", None), SHA1_BYTES),
            size=fields.pop("size", None),
            b3=_take_hash(fields, "b3", BLAKE3_BYTES),
            info=_take_hash(fields, "info", SHA1_BYTES),
            info_b3=_take_hash(fields, "info_b3", BLAKE3_BYTES),
            extra=fields or None,
        )


@dataclass(slots=True)
class DirectoryManifest:
    """A directory: its files, its directories (manifests themselves), and what is unknown."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    dirs: dict[str, DirectoryManifest] = field(default_factory=dict)
    extra: JsonObject | None = None

    # --- Reading ---------------------------------------------------------------------------------

    def entries(self) -> Iterator[tuple[Path, FileEntry]]:
        """Yield each file with its path: by directory, in the order of names."""
        for path, directory in self.directories():
            for name in sorted(directory.files):
                yield (*path, name), directory.files[name]

    def directories(self) -> Iterator[tuple[Path, DirectoryManifest]]:
        """Yield each directory with its path, this one first, as ``()``."""
        stack: list[tuple[Path, DirectoryManifest]] = [((), self)]
        while stack:
            path, directory = stack.pop()
            yield path, directory
            names = sorted(directory.dirs, reverse=True)
            stack.extend(((*path, name), directory.dirs[name]) for name in names)

    def empty_directories(self) -> Iterator[Path]:
        """Yield the paths of directories with nothing in them."""
        return (
            path
            for path, directory in self.directories()
            if path and not directory.files and not directory.dirs
        )

    def at(self, path: Sequence[str]) -> FileEntry | DirectoryManifest:
        """Return what lies at ``path``. Raises KeyError if nothing does."""
        here: FileEntry | DirectoryManifest = self
        for name in path:
            name = unicodedata.normalize("NFC", name)
            if isinstance(here, FileEntry):
                raise KeyError("/".join(path))
            found = here.files.get(name) or here.dirs.get(name)
            if found is None:
                raise KeyError("/".join(path))
            here = found
        return here

    @property
    def file_count(self) -> int:
        """How many files there are in all."""
        return sum(len(directory.files) for _, directory in self.directories())

    @property
    def total_size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for _, entry in self.entries())

    # --- Bytes -----------------------------------------------------------------------------------

    @property
    def hash(self) -> KeyBytes:
        """SHA-1 of the canonical bytes."""
        return KeyBytes(sha1(self.to_bytes()))

    def to_bytes(self) -> bytes:
        """Return the canonical bytes."""
        return canonical.dump(self.to_json())

    def to_json(self) -> JsonObject:
        """Return the JSON object."""
        return {
            **(self.extra or {}),
            "dirs": {name: directory.to_json() for name, directory in self.dirs.items()},
            "files": {name: entry.to_json() for name, entry in self.files.items()},
        }

    @classmethod
    def from_bytes(cls, buffer: bytes) -> DirectoryManifest:
        """Read a manifest, ours or kachery's. Raises FormatError on anything else."""
        value = canonical.load_object(
            buffer,
            bytes_max=MANIFEST_BYTES_MAX,
            depth_max=_JSON_DEPTH_MAX,
            items_max=_JSON_ITEMS_MAX,
        )
        if "dirs" not in value and "files" not in value:
            raise FormatError("this is not a directory manifest")
        manifest = _read(value, depth=0)
        check_count(sum(len(d.files) + len(d.dirs) for _, d in manifest.directories()))
        return manifest

    # --- Making ----------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        files: Iterable[tuple[Sequence[str], FileEntry]],
        empty_directories: Iterable[Sequence[str]] = (),
    ) -> DirectoryManifest:
        """Make a manifest from paths, in any order.

        Raises FormatError for a name that is not safe, a path twice, a file that is a directory as
        well, too deep a path, or too many entries.
        """
        root = cls()
        known: dict[Path, DirectoryManifest] = {(): root}
        count = 0
        for path, entry in files:
            parents, name = tuple(path[:-1]), path[-1] if path else ""
            if len(parents) >= DEPTH_MAX:
                raise FormatError(f"a path has more than {DEPTH_MAX} components")
            check_component(name)
            directory = _make(known, parents)
            if name in directory.files or name in directory.dirs:
                raise FormatError(f"{name!a} is there twice in one directory")
            directory.files[name] = entry
            count += 1
            check_count(count + len(known))
        for path in empty_directories:
            _make(known, tuple(path))
            check_count(count + len(known))
        return root


# --- Inside --------------------------------------------------------------------------------------


def _make(known: dict[Path, DirectoryManifest], path: Path) -> DirectoryManifest:
    """Return the directory at ``path``, made with its parents if need be."""
    directory = known.get(path)
    if directory is not None:
        return directory
    if len(path) > DEPTH_MAX:
        raise FormatError(f"a path has more than {DEPTH_MAX} components")
    parent = _make(known, path[:-1])
    check_component(path[-1])
    if path[-1] in parent.files:
        raise FormatError(f"{path[-1]!a} is a file and a directory")
    directory = known[path] = parent.dirs[path[-1]] = DirectoryManifest()
    return directory


def _read(value: object, depth: int) -> DirectoryManifest:
    if not isinstance(value, dict):
        raise FormatError("a directory is an object")
    check_needs(value)
    fields = dict(value)
    files, dirs = fields.pop("files", {}), fields.pop("dirs", {})
    if not isinstance(files, dict) or not isinstance(dirs, dict):
        raise FormatError("'files' and 'dirs' are objects")
    if depth + bool(files or dirs) > DEPTH_MAX:
        raise FormatError(f"a path has more than {DEPTH_MAX} components")
    manifest = DirectoryManifest(extra=fields or None)
    for name, item in files.items():
        manifest.files[read_name(name)] = FileEntry.from_json(item)
    for name, item in dirs.items():
        manifest.dirs[read_name(name)] = _read(item, depth + 1)
    names = manifest.files.keys() | manifest.dirs.keys()
    if len(names) != len(files) + len(dirs):
        raise FormatError("a name is there twice in one directory")
    return manifest


def read_name(name: str) -> str:
    """Return a name in form NFC; refuse what no path could have as a component."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise FormatError(f"{name[:80]!a} is not a name")
    if name.isascii():
        length = len(name)
    elif canonical.is_text(name):
        name = unicodedata.normalize("NFC", name)
        length = len(name.encode("utf-8"))
    else:
        raise FormatError("a name is not Unicode")
    if length > NAME_BYTES_MAX:
        raise FormatError(f"a name has more than {NAME_BYTES_MAX} bytes")
    return name


def _take_hash(fields: JsonObject, name: str, length: int) -> bytes:
    value = fields.pop(name, None)
    return b"" if value is None else unhex(value, length)


def check_count(count: int) -> None:
    if count > MANIFEST_ENTRIES_MAX:
        raise FormatError(f"more than {MANIFEST_ENTRIES_MAX:,} entries in one manifest")
