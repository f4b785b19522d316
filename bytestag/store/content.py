"""ContentStore: content under its hash, on this machine alone (shell).

What is stored is copied once and named by its SHA-1; a file may also be offered in its place, by
link, and content of read-only second stores and of old kachery caches is found where it lies.
Everything found is what its name says: see :mod:`bytestag.store.belief`. Nothing here knows of
nodes or networks. Threads and processes may use one store together.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.errors import NotFound, UsageError
from bytestag.one_pass import Tick, no_tick
from bytestag.store.belief import Believer
from bytestag.store.index import Index, ObjectRow
from bytestag.store.objects import Objects
from bytestag.store.reading import open_content, read_content
from bytestag.store.values import DIGEST_BYTES, INT_MAX, MTIME_UNKNOWN, Content, Problem
from bytestag.store.writing import Incoming, Writer

if TYPE_CHECKING:
    from bytestag.models.directory import DirectoryManifest

__all__ = ["Content", "ContentStore", "Incoming", "Problem"]

Contents = list[Content]
Problems = list[Problem]


class ContentStore:
    """The store of one directory."""

    def __init__(
        self,
        directory: Path,
        *,
        seconds: Sequence[Path] = (),
        kachery: Sequence[Path] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is read or made before it is needed.

        ``seconds`` are stores that are read and never written, ``kachery`` the caches of kachery,
        kachery-p2p, kachery-cloud and kbucket.
        """
        self.directory = Path(os.path.abspath(directory))
        self._wall = wall
        self.objects = Objects(self.directory, self.now_ns)
        self.index = Index(self.directory / "index.sqlite", self.found_rows)
        self.believer = Believer(self.objects, self.index, seconds, kachery, self.now_ns)
        self.writer = Writer(self.objects, self.index, self.believer, self.now_ns)

    @classmethod
    def of_user(cls, directory: Path | None = None) -> ContentStore:
        """Return the store in a directory, or where the environment says, with its relatives.

        See :mod:`bytestag.store.places`.
        """
        from bytestag.store import places

        where = directory or places.directory()
        return cls(where, seconds=places.seconds(), kachery=places.kachery())

    def now_ns(self) -> int:
        """Return the time of day."""
        return int(self._wall() * 1e9)

    # --- Storing ---------------------------------------------------------------------------------

    def add_file(
        self,
        path: str | os.PathLike[str],
        *,
        algorithms: Sequence[str] = ("sha1",),
        is_linked: bool = False,
        use_hard_links: bool = False,
        tick: Tick = no_tick,
    ) -> Content:
        """Store a file; with ``is_linked`` offer it where it lies, without a copy.

        With ``use_hard_links`` the object is another name of the file, where both lie on one file
        system. It saves the space, but whoever writes to the file then damages the object: that is
        noticed by its stamp, and the content is lost.

        Raises NotFound, NotPermitted or UsageError for the file, NoSpace or StorageError for the
        store.
        """
        wants_md5 = _wants_md5(algorithms)
        if is_linked:
            return self.writer.link(path, wants_md5=wants_md5, tick=tick)
        return self.writer.file(path, wants_md5=wants_md5, use_hard_links=use_hard_links, tick=tick)

    def add_bytes(
        self, data: bytes, *, name: str = "", algorithms: Sequence[str] = ("sha1",)
    ) -> Content:
        """Store bytes at hand. Raises NoSpace or StorageError."""
        return self.writer.buffer(data, _base_name(name), wants_md5=_wants_md5(algorithms))

    def add_directory(
        self,
        path: str | os.PathLike[str],
        *,
        git_annex: bool = False,
        is_linked: bool = False,
        tick: Tick = no_tick,
        warn: Callable[[Path, str], object] = lambda path, what: None,
    ) -> tuple[DirectoryManifest, Content]:
        """Store a directory: its files and a manifest of them; return the manifest and its object.

        Links are followed, empty directories kept, what is neither file nor directory is passed
        over with a warning. Files that are as they were last time are not read again. With
        ``git_annex`` the directories ``.git`` and ``.datalad`` are left out, and an annexed file
        that is absent but whose MD5 the store knows is taken from there.

        Raises UsageError for names that are one name in Unicode form NFC, NotFound for an annexed
        file that is absent, and what ``add_file`` raises.
        """
        from bytestag.store.trees import add_tree

        return add_tree(self, path, git_annex=git_annex, is_linked=is_linked, tick=tick, warn=warn)

    @contextmanager
    def receive(self, sha1: bytes, size: int | None = None, name: str = "") -> Iterator[Incoming]:
        """Give a file to write content into that comes from elsewhere.

        ``commit`` of what is given makes it an object; without it, the file is removed at the end.
        """
        incoming = self.writer.incoming(_checked(sha1, "sha1"), size, _base_name(name))
        try:
            yield incoming
        finally:
            incoming.close()

    # --- Reading ---------------------------------------------------------------------------------

    def find(self, digest: bytes, algorithm: str = "sha1") -> Content:
        """Return what has this hash. Raises NotFound."""
        content = self.believer.find(_checked(digest, algorithm), algorithm)
        if content is None:
            raise NotFound(f"{algorithm} {digest.hex()} is not in the store")
        return content

    def __contains__(self, digest: object) -> bool:
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES["sha1"]:
            return False
        return self.believer.find(digest, "sha1") is not None

    def open(self, content: Content) -> io.BufferedReader:
        """Open a content for reading. Raises NotFound if it is gone or has changed."""
        return open_content(self, content)

    def read(self, content: Content, start: int = 0, end: int | None = None) -> bytes:
        """Return bytes of a content, the end exclusive.

        Raises UsageError for a range outside of it and NotFound if it is gone or has changed.
        """
        return read_content(self, content, start, end)

    def list(self) -> Iterator[Content]:
        """Yield the store's objects by hash, then the links; nothing of second stores or caches."""
        for row in self.index.objects():
            content = self.believer.own(row.sha1, is_used=False)
            if content is not None:
                yield content
        yield from self.links()

    def links(self) -> Iterator[Content]:
        """Yield what is offered where it lies, as far as it has not changed."""
        for place in self.index.all_links():
            content = self.believer.still(place)
            if content is not None:
                yield content

    @property
    def used_bytes(self) -> int:
        """Bytes of the store's own objects."""
        return self.index.used_bytes()

    # --- Keeping ---------------------------------------------------------------------------------

    def remove(self, digest: bytes) -> None:
        """Remove an object and forget the links of a content; the user's files stay.

        Raises NotFound, or NotPermitted if it is pinned or lies in a store that is only read.
        """
        from bytestag.store.keeping import remove

        remove(self, _checked(digest, "sha1"))

    def pin(self, digest: bytes) -> None:
        """Keep a content, and what it names if it is a directory, from ``collect``.

        Raises NotFound.
        """
        self.index.set_pin(self.find(digest).sha1, is_pinned=True)

    def unpin(self, digest: bytes) -> None:
        """Let a content go when its time comes."""
        self.index.set_pin(_checked(digest, "sha1"), is_pinned=False)

    def verify(
        self,
        digests: Iterable[bytes] | None = None,
        on_each: Callable[[Content], object] = lambda content: None,
    ) -> Problems:
        """Hash objects and links anew, all unless told which; return what is wrong.

        Damaged objects are moved to ``bad``, links whose file has changed are forgotten.
        """
        from bytestag.store.keeping import verify

        return verify(self, digests, on_each)

    def collect(
        self,
        *,
        bytes_max: int | None = None,
        unused_seconds: float | None = None,
        is_dry: bool = False,
    ) -> Contents:
        """Remove what was not used for so long, and the oldest until so few bytes are left.

        Never what is pinned, nor what a pinned directory names. Files on their way that nobody will
        finish go as well. Returns what was removed, or would be with ``is_dry``.
        """
        from bytestag.store.keeping import collect

        return collect(self, bytes_max, unused_seconds, is_dry=is_dry)

    def close(self) -> None:
        """Close the index; idempotent."""
        self.index.close()

    # --- Inside ----------------------------------------------------------------------------------

    def found_rows(self) -> Iterator[ObjectRow]:
        """Yield rows, to be hashed before they are believed, of what lies in the store."""
        with suppress(OSError):
            for sha1, status in self.objects.all():
                used = status.st_mtime_ns & INT_MAX
                yield ObjectRow(sha1, status.st_size, MTIME_UNKNOWN, 0, b"", b"", "", used)


def _wants_md5(algorithms: Sequence[str]) -> bool:
    for algorithm in algorithms:
        if algorithm not in ("sha1", "md5", "blake3"):
            raise UsageError(f"{algorithm!r} is no algorithm", hint="sha1, md5 or blake3")
    return "md5" in algorithms


def _checked(digest: bytes, algorithm: str) -> bytes:
    """Return a digest that can be one. Raises UsageError."""
    length = DIGEST_BYTES.get(algorithm)
    if length is None:
        raise UsageError(f"{algorithm!r} is no algorithm", hint="sha1 or md5")
    if not isinstance(digest, bytes) or len(digest) != length:
        raise UsageError(f"a {algorithm} has {length} bytes")
    return digest


def _base_name(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2][:255]
