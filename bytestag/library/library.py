"""Library: the content that a name stands for, from the store here or from elsewhere (shell)."""

from __future__ import annotations

import io
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.errors import BytestagError, Corrupt, NotFound, UsageError
from bytestag.hashing import sha1
from bytestag.keys import KeyBytes
from bytestag.library.config import LibraryConfig
from bytestag.library.describing import Described, describe_directory, describe_file
from bytestag.library.directories import (
    Directory,
    Making,
    Names,
    check_agrees,
    check_file,
    check_made,
    directory_link,
    is_directory,
)
from bytestag.library.files import buffered, place
from bytestag.library.forks import begin_anew_after_forks
from bytestag.library.incoming import arriving
from bytestag.library.names import is_pointer, pointer_link, read_name, read_pointer
from bytestag.library.progress import Report, no_report
from bytestag.models.directory import DirectoryManifest, FileEntry
from bytestag.recent import Recent
from bytestag.store.content import Content, ContentStore
from bytestag.tables.landing import Exists
from bytestag.uri import MD5_SCHEMES, Link

if TYPE_CHECKING:
    from bytestag.library.elsewhere import Elsewhere

DIRECTORIES_KEPT = 32
DESCRIBED_KEPT = 1024


class Library:
    """What one process can read. Thread-safe; a forked child opens its own."""

    def __init__(self, config: LibraryConfig | None = None) -> None:
        self.config = config or LibraryConfig.from_environment()
        self._lock = threading.RLock()
        begin_anew_after_forks(self)
        self._store: ContentStore | None = None
        self._elsewhere: Elsewhere | None = None
        self._directories: Recent[str, Directory] = Recent(DIRECTORIES_KEPT)
        self._described: Recent[str, Described] = Recent(DESCRIBED_KEPT)

    # --- Life ------------------------------------------------------------------------------------

    @property
    def store(self) -> ContentStore:
        """The content store of the user, or the configured one."""
        with self._lock:
            if self._store is None:
                self._store = ContentStore.of_user(self.config.store_dir)
            return self._store

    @property
    def elsewhere(self) -> Elsewhere:
        """Whom to ask for what is not here; chosen when it is needed first."""
        with self._lock:
            if self._elsewhere is None:
                from bytestag.library.elsewhere import elsewhere

                self._elsewhere = elsewhere(self.config)
            return self._elsewhere

    def close(self) -> None:
        """Let go of the store and the network; idempotent, and what is asked later opens anew."""
        with self._lock:
            outside, self._elsewhere = self._elsewhere, None
            store, self._store = self._store, None
        if outside is not None:
            outside.close()
        if store is not None:
            store.close()

    def after_fork(self) -> None:
        """Open anew in a forked child: threads and databases do not survive a fork, locks stay."""
        self._lock = threading.RLock()
        self._store = self._elsewhere = None

    # --- Here ------------------------------------------------------------------------------------

    def locate(self, link: Link) -> Content:
        """Return what the store has of a file. Raises NotFound, and never asks the network."""
        if link.path:
            return self._entry(self._known_directory(link).at_file(link.path))
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
        check_agrees(entry, content.size, content.blake3)
        return content

    def _cut(self, link: Link) -> Content:
        """Return a chunk from the whole file that is here (kachery-p2p's ``chunkOf``)."""
        assert link.chunk_of is not None
        whole, start, end = link.chunk_of
        found = self.store.find(whole)
        data = self.store.read(found, start, end) if end <= found.size else b""
        if sha1(data) != link.digest:
            raise NotFound("the bytes that chunkOf= names are others")
        return self.store.add_bytes(data)

    def _known_directory(self, link: Link) -> Directory:
        """Return the directory around a path, without asking anybody. Raises NotFound."""
        whole = replace(link, path=())
        with self._lock:
            known = self._directories.get(str(whole))
        if known is not None:
            return known
        packed = self.store.read(self.locate(whole))
        return self._remember(whole, Directory(DirectoryManifest.from_bytes(packed), is_here=True))

    def _remember(self, whole: Link, directory: Directory) -> Directory:
        with self._lock:
            self._directories.put(str(whole), directory)
        return directory

    def named(self, name: str | os.PathLike[str]) -> Link | Path:
        """Return the link or path that a name is; what a ``.prvdir`` says is remembered.

        Raises what :func:`bytestag.library.names.read_name` does.
        """
        found = read_name(name)
        if isinstance(found, Link) or not is_pointer(found):
            return found
        from bytestag.models.prv import PrvDirectory

        pointer = read_pointer(found)
        link = pointer_link(found, pointer)
        if isinstance(pointer, PrvDirectory):
            self._remember(link, Directory(pointer.manifest(), is_here=True))
        return link

    # --- Here or elsewhere -----------------------------------------------------------------------

    def describe(self, link: Link) -> Described:
        """Return ``type``, ``size``, ``sha1`` and, where known, ``blake3``, ``path``, ``origin``.

        Raises NotFound, Unreachable, Timeout, Corrupt, FormatError, UsageError.
        """
        if link.kind == "d" or link.path:
            found = self._directory(link).at(link.path)
            if isinstance(found, DirectoryManifest):
                return describe_directory(found, link)
            try:
                here: Content | None = self._entry(found)
            except NotFound:
                here = None
            blake3 = found.b3 or (here.blake3 if here is not None else b"")
            return describe_file(found.sha1, found.size, blake3, here)
        try:
            content = self.locate(link)
        except NotFound:
            return self._describe_elsewhere(link)
        return describe_file(content.sha1, content.size, content.blake3, content)

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
        return self._directory(link).at_directory(link.path)

    def _directory(self, link: Link) -> Directory:
        """Return the directory around a path."""
        whole = replace(link, path=())
        try:
            return self._known_directory(whole)
        except NotFound:
            return self._remember(whole, Directory(self.elsewhere.manifest(whole), is_here=False))

    def _below(self, link: Link, path: Names) -> Link:
        return self._direct(replace(link, path=(*link.path, *path)))

    def _direct(self, link: Link) -> Link:
        """Return the link of a file itself if its directory was read here: nobody need know it."""
        if not link.path:
            return link
        try:
            directory = self._known_directory(link)
        except NotFound:
            return link
        if not directory.is_here:
            return link
        entry = directory.at_file(link.path)
        return replace(
            link,
            scheme="bytestag" if entry.info_b3 else "sha1",
            digest=KeyBytes(entry.sha1),
            name=link.path[-1],
            kind="f",
            b3=entry.info_b3,
            ib3=b"",
            path=(),
        )

    def read(self, link: Link, start: int = 0, end: int | None = None) -> bytes:
        """Return the bytes of a file from ``start`` to before ``end``; its end cuts them.

        Only the parts that are touched travel. Raises what :meth:`describe` does.
        """
        if start < 0 or (end is not None and end < start):
            raise UsageError(f"{start} to {end} is no range of bytes")
        check_file(link)
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
        data = self.elsewhere.read(self._direct(link), start, end)
        if len(data) != end - start:
            raise Corrupt("what came is shorter than the file is said to be")
        if len(data) == size and sha1(data).hex() != self.describe(link)["sha1"]:
            raise Corrupt("all parts fit, but the whole does not")
        return data

    def open(self, link: Link) -> io.BufferedReader:
        """Return a file object; of a file that is elsewhere only what is read travels."""
        check_file(link)
        try:
            return self.store.open(self.locate(link))
        except NotFound:
            pass
        described = self.describe(link)
        if described["type"] != "file":
            raise is_directory()
        return buffered(
            lambda start, end: self.read(link, start, end), described["size"], str(link)
        )

    def load(self, link: Link, dest: Path | None = None, report: Report = no_report) -> Path:
        """Have a file in the store, and at ``dest`` if given; return its path.

        Raises what :meth:`describe` does, and NoSpace or StorageError.
        """
        check_file(link)
        try:
            content = self.locate(link)
        except NotFound:
            content = self._fetch(link, report)
            if link.path:
                self._directory(link)
                content = self.locate(link)  # as the directory says that it is
        report(content.size, content.size, 0)
        if dest is None:
            return content.path
        return self._copy(content, dest)

    def load_directory(self, link: Link, dest: Path, report: Report = no_report) -> Path:
        """Make the directory ``dest``, or go on with one that was begun; return it.

        Raises what :meth:`describe` does; FormatError for unsafe names; Incomplete; UsageError if
        something else is there.
        """
        directory = self._directory(link)
        making = Making(self.store, directory.at_directory(link.path), dest)
        contents: list[tuple[Names, Content]] = []
        missing: list[tuple[Names, FileEntry]] = []
        for path, entry in making.entries:
            try:
                contents.append((path, self._entry(entry)))
            except NotFound:
                missing.append((path, entry))
        if missing and self.config.local_only:
            self.elsewhere.describe(self._below(link, missing[0][0]))
        total, done = sum(entry.size for _, entry in making.entries), 0
        try:
            for size in making.make(contents):
                done += size
                report(done, total, 0)
            if missing and not directory.is_here:  # what is made already is seen to be there
                self.elsewhere.fetch(directory_link(link), dest, report)
            for path, entry in missing if directory.is_here else ():
                before = done

                def tell(got: int, _: int, sources: int, before: int = before) -> None:
                    report(before + got, total, sources)

                target = dest.joinpath(*path)
                was_there = os.path.lexists(target)
                self.elsewhere.fetch(self._below(link, path), target, tell)
                check_made(entry, target, is_ours=not was_there)
                done += entry.size
        except BytestagError as error:
            if error.code != Exists.code:
                raise
            raise UsageError(error.message, hint="name a directory that is to be made") from error
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
            return self._fetch_named(self._direct(link), report)
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
            raise is_directory()
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
