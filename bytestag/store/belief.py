"""Which files are believed to have the content they are asked for (shell).

A file whose stamp is the recorded one is believed; any other is hashed. A damaged object is set
aside, a changed link forgotten, and neither is served under its old name.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from bytestag.errors import BytestagError, StorageError
from bytestag.store import caches
from bytestag.store.copying import hash_path
from bytestag.store.index import LINK, MEMO, Index, ObjectRow, PlaceRow
from bytestag.store.objects import Objects
from bytestag.store.values import Content, Hashes, Stamp

USED_RESOLUTION_NS = 600 * 1_000_000_000  # so that looking does not write each time


class Believer:
    """Finds content and sees that it is what its name says."""

    def __init__(
        self,
        objects: Objects,
        index: Index,
        seconds: Sequence[Path],
        kachery: Sequence[Path],
        now_ns: Callable[[], int],
    ) -> None:
        self._objects = objects
        self._index = index
        self._seconds = [Objects(directory, now_ns) for directory in seconds]
        self._kachery = kachery
        self._now_ns = now_ns

    def find(self, digest: bytes, algorithm: str) -> Content | None:
        """Return what has this hash."""
        if algorithm == "sha1":
            return self._with_sha1(digest)
        for sha1 in self._index.with_md5(digest):
            for content in self._all_with_sha1(sha1):
                if content.md5 == digest:  # of some it was never asked for
                    return content
        return self._elsewhere(digest, algorithm)

    def confirm(self, content: Content) -> Content | None:
        """Return the content again if its file is still what it was; None if it is not."""
        if content.origin == "object":
            return self.own(content.sha1)
        row = self._known(os.fsencode(content.path), MEMO, None)
        if row is None or row.sha1 != content.sha1:
            return None
        return self._content(row, content.origin)

    def holds(self, sha1: bytes) -> ObjectRow | None:
        """Return the row of an object that is there, without a look at more than its stamp."""
        row = self._index.object_row(sha1)
        status = _status(self._objects.path(sha1)) if row else None
        return row if row and status and row.stamp == Stamp.of(status) else None

    def _with_sha1(self, sha1: bytes) -> Content | None:
        return next(self._all_with_sha1(sha1), None)

    def _all_with_sha1(self, sha1: bytes) -> Iterator[Content]:
        for find in (self.own, self.link, lambda digest: self._elsewhere(digest, "sha1")):
            content = find(sha1)
            if content is not None:
                yield content

    # --- Our own ---------------------------------------------------------------------------------

    def own(self, sha1: bytes, *, is_used: bool = True) -> Content | None:
        """Return an object of the store."""
        status = _status(self._objects.path(sha1))
        row = self._index.object_row(sha1)
        if status is None:
            return None
        now = self._now_ns()
        if row is not None and row.stamp == Stamp.of(status):
            if is_used and now - row.used >= USED_RESOLUTION_NS:
                with suppress(StorageError):
                    self._index.touch([sha1], now)
        else:
            row = self._again(sha1, row, now)
        return None if row is None else self.content_of(row)

    def _again(self, sha1: bytes, row: ObjectRow | None, now: int) -> ObjectRow | None:
        """Hash an object that is not as it was recorded; set it aside if it is damaged."""
        found = self.hashed(self._objects.path(sha1), wants_md5=bool(row and row.md5))
        if found is None:
            return None
        hashes, stamp = found
        if hashes.sha1 != sha1:
            self._objects.set_aside(sha1)
            with suppress(StorageError):
                self._index.forget_object(sha1)
            return None
        name = row.name if row else ""
        row = ObjectRow(sha1, *stamp, hashes.blake3, hashes.md5, name, now)
        with suppress(StorageError):  # a memo: a full disk does not make content unreadable
            self._index.put([row])
        return row

    def content_of(self, row: ObjectRow) -> Content:
        """Return the content that a row describes."""
        return Content(
            row.sha1,
            row.size,
            Path(self._objects.path(row.sha1)),
            row.blake3,
            row.md5,
            "object",
            self._index.is_pinned(row.sha1),
            row.name,
        )

    # --- The user's ------------------------------------------------------------------------------

    def link(self, sha1: bytes) -> Content | None:
        """Return a file of the user's that has this content."""
        for row in self._index.links(sha1):
            content = self.still(row)
            if content is not None:
                return content
        return None

    def still(self, row: PlaceRow) -> Content | None:
        """Return the content of a linked file; forget the link if it has it no more."""
        now = self._known(row.path, row.kind, row)
        if now is None or now.sha1 != row.sha1:
            if now is None and _status(os.fsdecode(row.path)) is None:
                with suppress(StorageError):
                    self._index.forget_place(row.path)
            return None
        return self._content(now, "link")

    # --- Others' ---------------------------------------------------------------------------------

    def _elsewhere(self, digest: bytes, algorithm: str) -> Content | None:
        for path, origin in self._candidates(digest, algorithm):
            row = self._known(os.fsencode(path), MEMO, None, wants_md5=algorithm == "md5")
            if row is not None and digest == (row.sha1 if algorithm == "sha1" else row.md5):
                return self._content(row, origin)
        return None

    def _candidates(self, digest: bytes, algorithm: str) -> Iterator[tuple[str, str]]:
        if algorithm == "sha1":
            for second in self._seconds:
                path = second.path(digest)
                if _status(path) is not None:
                    yield path, "second"
        for path in caches.candidates(self._kachery, digest, algorithm):
            yield path, "kachery"

    def _content(self, row: PlaceRow, origin: str) -> Content:
        path = Path(os.fsdecode(row.path))
        name = path.name if origin == "link" else ""
        is_pinned = self._index.is_pinned(row.sha1)
        return Content(row.sha1, row.size, path, row.blake3, row.md5, origin, is_pinned, name)

    # --- Inside ----------------------------------------------------------------------------------

    def _known(
        self, path: bytes, kind: int, row: PlaceRow | None, *, wants_md5: bool = False
    ) -> PlaceRow | None:
        """Return what a file is now, from its row if that still holds; None if unreadable."""
        status = _status(os.fsdecode(path))
        if status is None:
            return None
        row = row or self._index.place(path)
        if row is not None and row.stamp == Stamp.of(status) and (row.md5 or not wants_md5):
            return row
        found = self.hashed(path, wants_md5=wants_md5 or bool(row and row.md5))
        if found is None:
            return None
        hashes, stamp = found
        if kind == LINK and row is not None and row.sha1 != hashes.sha1:
            kind = MEMO  # what the file is now was never offered
        now = PlaceRow(path, *stamp, hashes.sha1, hashes.blake3, hashes.md5, kind)
        with suppress(StorageError):
            self._index.put(places=[now])
        return now

    def hashed(self, path: str | bytes, *, wants_md5: bool = False) -> tuple[Hashes, Stamp] | None:
        """Hash a file; None if that is not possible now."""
        try:
            hashes, stamp = hash_path(path, self._now_ns, wants_md5=wants_md5)
        except BytestagError:
            return None
        return hashes, stamp


def _status(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None
