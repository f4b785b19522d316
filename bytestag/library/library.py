"""Library: the content that a name stands for, from the store here or from elsewhere (shell)."""

from __future__ import annotations

import io
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytestag.errors import BytestagError, Corrupt, FormatError, NotFound, UsageError
from bytestag.hashing import sha1
from bytestag.library.config import LibraryConfig
from bytestag.library.files import buffered, make_directory, place
from bytestag.library.incoming import arriving
from bytestag.library.progress import Report, no_report
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.models.safe_names import check_tree
from bytestag.recent import Recent
from bytestag.store import places
from bytestag.store.content import Content, ContentStore
from bytestag.store.copying import hash_path
from bytestag.uri import MD5_SCHEMES, Link

if TYPE_CHECKING:
    from bytestag.library.elsewhere import Elsewhere

DIRECTORIES_KEPT = 32
DESCRIBED_KEPT = 1024

Described = dict[str, Any]


class Library:
    """What one process can read. Thread-safe; a forked child opens its own."""

    def __init__(self, config: LibraryConfig | None = None) -> None:
        self.config = config or LibraryConfig.from_environment()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._store: ContentStore | None = None
        self._elsewhere: Elsewhere | None = None
        self._manifests: Recent[str, DirectoryManifest] = Recent(DIRECTORIES_KEPT)
        self._described: Recent[str, Described] = Recent(DESCRIBED_KEPT)

    # --- Life ------------------------------------------------------------------------------------

    @property
    def store(self) -> ContentStore:
        """The content store of the user, or the configured one."""
        with self._lock:
            self._check_process()
            if self._store is None:
                where = self.config.store_dir or places.directory()
                self._store = ContentStore(
                    where, seconds=places.seconds(), kachery=places.kachery()
                )
            return self._store

    @property
    def elsewhere(self) -> Elsewhere:
        """Whom to ask for what is not here; chosen when it is needed first."""
        with self._lock:
            self._check_process()
            if self._elsewhere is None:
                from bytestag.library.elsewhere import elsewhere

                self._elsewhere = elsewhere(self.config)
            return self._elsewhere

    def close(self) -> None:
        """Let go of the store and the network; idempotent, and what is asked later opens anew."""
        with self._lock:
            self._check_process()
            outside, self._elsewhere = self._elsewhere, None
            store, self._store = self._store, None
        if outside is not None:
            outside.close()
        if store is not None:
            store.close()

    def _check_process(self) -> None:
        """Open anew in a forked child: threads and databases do not survive a fork."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._store = self._elsewhere = None
            self._lock = threading.RLock()

    # --- Here ------------------------------------------------------------------------------------

    def locate(self, link: Link) -> Content:
        """Return what the store has of a file. Raises NotFound, and never asks the network."""
        if link.path:
            return self._entry(self._known_manifest(link).at_file(link.path))
        if link.scheme in MD5_SCHEMES:
            return self.store.find(link.digest, "md5")
        try:
            return self.store.find(link.key)
        except NotFound:
            if link.chunk_of is None:
                raise
            return self._cut(link)

    def _entry(self, entry: FileEntry) -> Content:
        """Return the file that a directory names. Raises NotFound, FormatError."""
        content = self.store.find(entry.sha1)
        if content.size != entry.size:
            raise FormatError(
                f"the directory says that {entry.sha1.hex()} has {entry.size:,} bytes, but it has "
                f"{content.size:,}",
                hint="whoever made the directory made it wrong: ask for another link",
            )
        return content

    def _cut(self, link: Link) -> Content:
        """Return a chunk from the whole file that is here (kachery-p2p's ``chunkOf``)."""
        assert link.chunk_of is not None
        whole, start, end = link.chunk_of
        data = self.store.read(self.store.find(whole), start, end)
        if sha1(data) != link.digest:
            raise NotFound("the bytes that chunkOf= names are others")
        return self.store.add_bytes(data)

    def _known_manifest(self, link: Link) -> _Directory:
        """Return the directory around a path, without asking anybody. Raises NotFound."""
        whole = replace(link, path=())
        with self._lock:
            known = self._manifests.get(str(whole))
        if known is None:
            known = DirectoryManifest.from_bytes(self.store.read(self.locate(whole)))
        return _Directory(known)

    # --- Here or elsewhere -----------------------------------------------------------------------

    def describe(self, link: Link) -> Described:
        """Return ``type``, ``size``, ``sha1`` and, where known, ``blake3``, ``path``, ``origin``.

        Raises NotFound, Unreachable, Timeout, Corrupt, FormatError, UsageError.
        """
        if link.kind == "d" or link.path:
            found = _Directory(self.manifest(replace(link, path=()))).at(link.path)
            if isinstance(found, DirectoryManifest):
                return _describe_directory(found, link)
            try:
                here: Content | None = self._entry(found)
            except NotFound:
                here = None
            blake3 = found.b3 or (here.blake3 if here is not None else b"")
            return _describe_file(found.sha1, found.size, blake3, here)
        try:
            content = self.locate(link)
        except NotFound:
            return self._describe_elsewhere(link)
        return _describe_file(content.sha1, content.size, content.blake3, content)

    def _describe_elsewhere(self, link: Link) -> Described:
        name = str(link)
        with self._lock:
            known = self._described.get(name)
        if known is None:
            known = self.elsewhere.describe(link)
            with self._lock:
                self._described.put(name, known)
        return known

    def manifest(self, link: Link) -> DirectoryManifest:
        """Return the directory that a link names; its files are not fetched.

        Raises what :meth:`describe` does; UsageError if the link names a file.
        """
        whole = replace(link, path=())
        name = str(whole)
        with self._lock:
            known = self._manifests.get(name)
        if known is None:
            try:
                known = self._known_manifest(whole).manifest
            except NotFound:
                known = self.elsewhere.manifest(whole)
            with self._lock:
                self._manifests.put(name, known)
        return _Directory(known).at_directory(link.path)

    def read(self, link: Link, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file from ``start`` to before ``end``; its end cuts them.

        Only the parts that are touched travel. Raises what :meth:`describe` does.
        """
        if start < 0 or (end is not None and end < start):
            raise UsageError(f"{start} to {end} is no range of bytes")
        try:
            here: Content | None = self.locate(link)
        except NotFound:
            here = None
        size = here.size if here is not None else self.describe(link)["size"]
        end = size if end is None else min(end, size)
        if start >= end:
            return b""
        if here is not None:
            return self.store.read(here, start, end)
        data = self.elsewhere.read(link, start, end)
        if len(data) == size and sha1(data).hex() != self.describe(link)["sha1"]:
            raise Corrupt("all parts fit, but the whole does not")
        return data

    def open(self, link: Link) -> io.BufferedReader:
        """Return a file object; of a file that is elsewhere only what is read travels."""
        try:
            return self.store.open(self.locate(link))
        except NotFound:
            pass
        described = self.describe(link)
        if described["type"] != "file":
            raise _is_directory()
        return buffered(
            lambda start, end: self.read(link, start, end), described["size"], str(link)
        )

    def load(self, link: Link, dest: Path | None = None, report: Report = no_report) -> Path:
        """Have a file in the store, and at ``dest`` if given; return its path.

        Raises what :meth:`describe` does, and NoSpace or StorageError.
        """
        try:
            content = self.locate(link)
        except NotFound:
            content = self._fetch(link, report)
        report(content.size, content.size, 0)
        if dest is None:
            return content.path
        return self._copy(content, dest)

    def load_directory(self, link: Link, dest: Path, report: Report = no_report) -> Path:
        """Make the directory ``dest``, which must not exist or be empty; return it.

        Raises what :meth:`describe` does; FormatError for unsafe names; Incomplete.
        """
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise UsageError(f"{str(dest)!r} exists", hint="name a directory that is to be made")
        manifest = self.manifest(link)
        entries = list(manifest.entries())
        check_tree((path for path, _ in entries), manifest.empty_directories())
        here: dict[bytes, Content] = {}
        for _, entry in entries:
            try:
                here[entry.sha1] = self._entry(entry)
            except NotFound:
                self.elsewhere.fetch(_directory_link(link), dest, report)
                return dest
        total, done = sum(entry.size for _, entry in entries), 0
        make_directory(dest)
        for path, _ in manifest.directories():
            dest.joinpath(*path).mkdir(exist_ok=True)
        for path, entry in entries:
            self._copy(here[entry.sha1], dest.joinpath(*path))
            done += entry.size
            report(done, total, 0)
        return dest

    def _copy(self, content: Content, dest: Path) -> Path:
        """Copy a content; not the user's file that holds it, if that changes meanwhile."""

        def write(temporary: Path) -> None:
            shutil.copyfile(content.path, temporary)
            if content.origin != "object" and self.store.believer.confirm(content) is None:
                raise NotFound(f"{str(content.path)!r} changed while it was copied")

        return place(write, dest)

    def find(self, link: Link) -> Described:
        """Return where a file is: ``here`` its path or None, ``holders`` and ``providers``.

        Raises NotFound or Unreachable if it is nowhere.
        """
        here: str | None = None
        try:
            here = str(self.locate(link).path)
        except (NotFound, UsageError):
            pass
        found: Described = {"link": str(link), "holders": [], "providers": []}
        try:
            found |= self.elsewhere.find(link)
        except BytestagError:
            if here is None:
                raise
        return {**found, "here": here}

    # --- Fetching --------------------------------------------------------------------------------

    def _fetch(self, link: Link, report: Report) -> Content:
        """Bring a file into the store; what has come of an earlier try is gone on with."""
        if link.scheme in MD5_SCHEMES:
            raise NotFound(
                f"{link.digest.hex()} is not in the store",
                hint="an md5:// link is found in local stores only: ask for its sha1:// link",
            )
        try:
            return self._fetch_named(link, report)
        except BytestagError:
            if link.chunk_of is None:
                raise
        whole, start, end = link.chunk_of
        data = self.read(Link("sha1", whole, hints=link.hints), start, end)
        if sha1(data) != link.digest:
            raise Corrupt("the bytes that chunkOf= names are others")
        return self.store.add_bytes(data)

    def _fetch_named(self, link: Link, report: Report) -> Content:
        described = self._describe_elsewhere(link)
        if described["type"] != "file":
            raise _is_directory()
        digest = bytes.fromhex(described["sha1"])
        name = link.path[-1] if link.path else link.name

        def keep(arrived: Path) -> Content:
            with self.store.receive(digest, described["size"], name) as received:
                os.replace(arrived, received.path)
                return received.commit()

        with arriving(self.store.directory, digest) as arrived:
            with suppress(NotFound):  # whom we waited for brought it
                return self.store.find(digest)
            with suppress(FileNotFoundError, Corrupt):  # who brought it was killed
                return keep(arrived)
            self.elsewhere.fetch(link, arrived, report)
            return keep(arrived)


class _Directory:
    """Looking into a directory, with errors that people understand."""

    def __init__(self, manifest: DirectoryManifest) -> None:
        self.manifest = manifest

    def at(self, path: tuple[str, ...]) -> FileEntry | DirectoryManifest:
        try:
            return self.manifest.at(path)
        except KeyError:
            raise NotFound(
                f"{'/'.join(path)!r} is not in the directory", hint="bytestag ls LINK lists it"
            ) from None

    def at_file(self, path: tuple[str, ...]) -> FileEntry:
        found = self.at(path)
        if isinstance(found, DirectoryManifest):
            raise _is_directory()
        return found

    def at_directory(self, path: tuple[str, ...]) -> DirectoryManifest:
        found = self.at(path)
        if isinstance(found, FileEntry):
            raise UsageError(f"{'/'.join(path)!r} is a file, not a directory")
        return found


def describe_path(path: Path) -> Described:
    """Return what ``describe`` does of a file of the user's; it is not kept.

    Raises NotFound, NotPermitted, StorageError; UsageError for what is no file.
    """
    hashes, _stamp = hash_path(path, lambda: 0)  # the stamp is for who keeps it
    named = {"sha1": hashes.sha1.hex(), "blake3": hashes.blake3.hex(), "path": str(path)}
    return {"type": "file", "size": hashes.size, **named, "origin": "path"}


def _describe_file(digest: bytes, size: int, blake3: bytes, content: Content | None) -> Described:
    found: Described = {"type": "file", "size": size, "sha1": digest.hex(), "blake3": blake3.hex()}
    if content is not None:
        found |= {"path": str(content.path), "origin": content.origin}
    return found


def _describe_directory(manifest: DirectoryManifest, link: Link) -> Described:
    sizes = [entry.size for _, entry in manifest.entries()]
    digest = sha1(manifest.to_bytes()) if link.path else link.digest
    size = sum(sizes)
    return {"type": "directory", "size": size, "sha1": digest.hex(), "files": len(sizes)}


def _is_directory() -> UsageError:
    return UsageError("the link names a directory, not a file", hint="bytestag ls LINK lists it")


def _directory_link(link: Link) -> Link:
    return link if link.kind == "d" or link.path else replace(link, kind="d")
