"""Storing a directory: its files, and a manifest of them (shell).

The manifest is kachery's, written canonically, so the same tree has the same hash on every machine.
Links are followed; one that leads back to a directory above is refused. Rows are written in
batches, after one call has made the files of the batch last, and only a batch is in memory besides
the manifest itself.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.errors import FormatError, NotFound, StorageError, UsageError
from bytestag.models import safe_names
from bytestag.models.directory import DEPTH_MAX, DirectoryManifest, FileEntry
from bytestag.one_pass import Tick
from bytestag.store.belief import USED_RESOLUTION_NS
from bytestag.store.copying import source_error
from bytestag.store.index import LINK, ObjectRow, PlaceRow
from bytestag.store.values import Content, Stamp

if TYPE_CHECKING:
    from bytestag.store.content import ContentStore

BATCH_ROWS = 10_000  # a few MB; each batch touches most pages of the index
BATCH_BYTES = 256 * 1024 * 1024  # so much may wait to be made last
ANNEX_SKIPPED = frozenset({".git", ".datalad"})
_ANNEX_OBJECT = re.compile(r"(?:\A|/)\.git/annex/objects/")
_ANNEX_MD5 = re.compile(r"\AMD5E?(?:-[smC][0-9]+)*--([0-9a-f]{32})(?:\.|\Z)")

Warn = Callable[[Path, str], object]


def add_tree(
    store: ContentStore,
    path: str | os.PathLike[str],
    *,
    git_annex: bool,
    is_linked: bool,
    tick: Tick,
    warn: Warn,
) -> tuple[DirectoryManifest, Content]:
    """Store a directory; return its manifest and the manifest's object."""
    root = os.path.abspath(path)
    adder = _Adder(store, is_linked=is_linked, tick=tick)
    walker = _Walker(root, git_annex, warn)
    files = (
        (names, adder.entry(listed) if not annexed else adder.absent(listed, annexed))
        for names, listed, annexed in walker.walk()
    )
    try:
        manifest = DirectoryManifest.build(files, walker.empty_directories())
    except FormatError as error:
        raise UsageError(
            f"{root!r} cannot be stored: {error.message}", hint="rename it, or store less at once"
        ) from error
    except BaseException:
        with suppress(StorageError, OSError):  # what was stored need not be stored again
            adder.flush()
        raise
    adder.flush()
    name = os.path.basename(root)
    return manifest, store.add_bytes(manifest.to_bytes(), name=name)


_Found = tuple[tuple[str, ...], os.DirEntry[str], bytes]


class _Walker:
    """Finds the files of a directory, and which directories are empty."""

    def __init__(self, root: str, git_annex: bool, warn: Warn) -> None:
        self._root = root
        self._git_annex = git_annex
        self._warn = warn
        self._empty: list[tuple[str, ...]] = []

    def walk(self) -> Iterator[_Found]:
        """Yield names, entry and, if it is absent, the MD5 of each file."""
        try:
            status = os.stat(self._root)
        except FileNotFoundError as error:
            raise NotFound(f"there is no directory {self._root!r}") from error
        except OSError as error:
            raise source_error(error, self._root) from error
        if not stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{self._root!r} is not a directory")
        yield from self._below((), self._root, frozenset({(status.st_dev, status.st_ino)}))

    def empty_directories(self) -> Iterator[tuple[str, ...]]:
        """Yield the empty directories that the walk met: to be asked when it is over."""
        yield from self._empty

    def _below(
        self, names: tuple[str, ...], place: str, above: frozenset[tuple[int, int]]
    ) -> Iterator[_Found]:
        if len(names) > DEPTH_MAX:
            raise UsageError(f"{place!r} lies deeper than {DEPTH_MAX} directories")
        is_empty = True
        for name, entry in self._entries(place):
            is_file, md5 = self._look(entry)
            if is_file is None and not md5:
                continue
            is_empty = False
            if is_file or md5:
                yield (*names, name), entry, md5
                continue
            status = _status(entry)
            here = status.st_dev, status.st_ino
            if here in above:
                raise UsageError(
                    f"{entry.path!r} is a link that leads back", hint="remove the link"
                )
            yield from self._below((*names, name), entry.path, above | {here})
        if is_empty and names:
            self._empty.append(names)

    def _entries(self, place: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield names in form NFC and entries, by name. Raises UsageError if two are one name."""
        try:
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            raise source_error(error, place) from error
        met: dict[str, str] = {}
        folded: dict[str, str] = {}
        for entry in entries:
            if self._git_annex and entry.name in ANNEX_SKIPPED:
                continue
            if entry.name.endswith(safe_names.INCOMPLETE_SUFFIX):
                self._warn(Path(entry.path), "a file that is not whole")
                continue
            name = entry.name
            if not name.isascii():
                name = unicodedata.normalize("NFC", name)
            other = met.setdefault(name, entry.name)
            if other != entry.name:
                raise UsageError(
                    f"{entry.name!a} and {other!a} in {place!r} are one name in NFC",
                    hint="rename one of them",
                )
            if folded.setdefault(safe_names.fold(name), name) != name:
                self._warn(Path(entry.path), "differs from another name only in case")
            yield name, entry

    def _look(self, entry: os.DirEntry[str]) -> tuple[bool | None, bytes]:
        """Return whether it is a file or a directory, or the MD5 of an annexed file that is absent.

        Neither, with a warning, for anything else. A file is not looked at closer, if the list of
        its directory tells what it is: that is done once it is open.
        """
        md5 = b""
        try:
            if entry.is_file():
                return True, b""
            if entry.is_dir():
                return False, b""
            if self._git_annex and entry.is_symlink():
                md5 = _annexed_md5(os.readlink(entry.path))
            entry.stat()
        except FileNotFoundError:
            if md5:
                return None, md5
            if self._git_annex and _ANNEX_OBJECT.search(os.readlink(entry.path)):
                raise absent(entry.path) from None
            self._warn(Path(entry.path), "a link to nothing")
            return None, b""
        except OSError as error:
            raise source_error(error, entry.path) from error
        self._warn(Path(entry.path), "neither a file nor a directory")
        return None, b""


class _Adder:
    """Stores the files of a directory, a batch of rows at a time."""

    def __init__(self, store: ContentStore, *, is_linked: bool, tick: Tick) -> None:
        self._store = store
        self._is_linked = is_linked
        self._tick = tick
        self._objects: list[ObjectRow] = []
        self._places: list[PlaceRow] = []
        self._used: dict[bytes, str] = {}
        self._waiting_bytes = 0
        self._parent = ""
        self._is_met = True
        """Whether anything in the directory at hand was stored before."""

    def entry(self, listed: os.DirEntry[str]) -> FileEntry:
        """Store a file; return its entry."""
        place = listed.path
        known = self._known(place, listed)
        if known is not None:
            return known
        if self._is_linked:
            row = self._store.writer.linked(place, False, self._tick)
            self._places.append(row)
            self._flush_some(0)
            return FileEntry(row.sha1, row.size)
        object_row, memo = self._store.writer.copied(place, False, False, self._tick, sync=False)
        self._objects.append(object_row)
        if memo is not None:
            self._places.append(memo)
        self._flush_some(object_row.size)
        return FileEntry(object_row.sha1, object_row.size)

    def flush(self) -> None:
        """Make everything last and write the rows."""
        if self._objects:
            self._store.objects.sync_all()
        if self._objects or self._places:
            self._store.index.put(sorted(self._objects), self._places)  # in the order of the tree
        used, self._used = self._used, {}
        self._objects, self._places, self._waiting_bytes = [], [], 0
        if used:
            now = self._store.now_ns()
            for sha1 in self._store.index.touch(used, now):  # collected meanwhile
                self._store.add_file(used[sha1])

    def _flush_some(self, size: int) -> None:
        self._waiting_bytes += size
        waiting = len(self._objects) + len(self._places) + len(self._used)
        if waiting >= BATCH_ROWS or self._waiting_bytes >= BATCH_BYTES:
            self.flush()

    def _known(self, place: str, listed: os.DirEntry[str]) -> FileEntry | None:
        """Return the entry of a file that is as it was when it was stored."""
        parent = place[: place.rfind("/")]
        if parent != self._parent:
            self._parent, self._is_met = parent, self._store.index.knows_of(os.fsencode(parent))
        row = self._store.index.place(os.fsencode(place)) if self._is_met else None
        if row is None or row.stamp != Stamp.of(_status(listed)):
            return None
        if self._is_linked:
            if row.kind != LINK:
                return None
        else:
            held = self._store.believer.holds(row.sha1)
            if held is None:
                return None
            if self._store.now_ns() - held.used >= USED_RESOLUTION_NS:
                self._used[row.sha1] = place
                self._flush_some(0)
        return FileEntry(row.sha1, row.size)

    def absent(self, listed: os.DirEntry[str], md5: bytes) -> FileEntry:
        """Return the entry of an annexed file that is not here, if its content is in the store."""
        try:
            content = self._store.find(md5, "md5")
        except NotFound:
            raise absent(listed.path) from None
        return FileEntry(content.sha1, content.size)


def _status(listed: os.DirEntry[str]) -> os.stat_result:
    try:
        return listed.stat()
    except OSError as error:
        raise source_error(error, listed.path) from error


def absent(place: str) -> NotFound:
    """Return the error for an annexed file whose content is elsewhere."""
    return NotFound(
        f"the content of the annexed file {place!r} is not here",
        hint="fetch it with `git annex get`, then store the directory",
    )


def _annexed_md5(target: str) -> bytes:
    """Return the MD5 that a link into an annex names; nothing if it names none."""
    if not _ANNEX_OBJECT.search(target):
        return b""
    match = _ANNEX_MD5.match(os.path.basename(target))
    return bytes.fromhex(match[1]) if match else b""
