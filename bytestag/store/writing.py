"""Writer: makes objects and links (shell).

Bytes go to a file on its way, are hashed as they are written, get their name, and then their row. A
process that dies in between leaves a whole object without a row, which is hashed when it is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bytestag.errors import BytestagError, Corrupt, UsageError
from bytestag.one_pass import Tick
from bytestag.store.belief import Believer
from bytestag.store.copying import (
    SMALL_BYTES,
    copy_file,
    hash_bytes,
    hash_file,
    hash_path,
    open_source,
    source_error,
)
from bytestag.store.index import LINK, MEMO, Index, ObjectRow, PlaceRow
from bytestag.store.objects import Objects, write_error
from bytestag.store.values import Content, Hashes, Stamp

_Rows = tuple[ObjectRow, PlaceRow | None]


class Writer:
    """Stores what it is given."""

    def __init__(
        self, objects: Objects, index: Index, believer: Believer, now_ns: Callable[[], int]
    ) -> None:
        self._objects = objects
        self._index = index
        self._believer = believer
        self._now_ns = now_ns

    def file(
        self, path: str | os.PathLike[str], *, wants_md5: bool, use_hard_links: bool, tick: Tick
    ) -> Content:
        """Store a copy of a file, or another name of it."""
        place = os.path.abspath(path)
        known = self.known(place, wants_md5=wants_md5)
        if known is not None:
            return known
        object_row, place_row = self.copied(place, wants_md5, use_hard_links, tick, sync=None)
        self._index.put([object_row], [place_row] if place_row else [])
        return self._believer.content_of(object_row)

    def known(self, place: str, *, wants_md5: bool) -> Content | None:
        """Return the object of a file that is as it was when it was stored."""
        row = self._index.place(os.fsencode(place))
        if row is None or (wants_md5 and not row.md5):
            return None
        try:
            if Stamp.of(os.stat(place)) != row.stamp:
                return None
        except OSError:
            return None
        now = self._now_ns()
        self._index.touch([row.sha1], now)  # first, so that a collector sees it
        content = self._believer.own(row.sha1)
        return None if content is None or (wants_md5 and not content.md5) else content

    def copied(
        self, place: str, wants_md5: bool, use_hard_links: bool, tick: Tick, *, sync: bool | None
    ) -> _Rows:
        """Make an object of a file; return the rows to be written."""
        now = self._now_ns()
        source, before = open_source(place)
        try:
            if use_hard_links:
                rows = self._hard_linked(source, place, wants_md5, tick)
                if rows is not None:
                    return rows
            if before.st_size <= SMALL_BYTES:
                try:
                    buffer = _read_all(source, before.st_size)
                except OSError as error:
                    raise source_error(error, place) from error
                hashes = hash_bytes(buffer, wants_md5=wants_md5)
                tick(hashes.size)
                stamp = self._written(buffer, hashes.sha1, sync)
            else:
                hashes, stamp = self._streamed(source, place, wants_md5, tick, sync)
        finally:
            os.close(source)
        memo = None
        if hashes.size == before.st_size:  # what changes from now on has another stamp than this
            memo = _place(place, Stamp.of(before).settled(now), hashes, MEMO)
        return self._row(hashes, stamp, place.rpartition("/")[2], now), memo

    def buffer(self, buffer: bytes, name: str, *, wants_md5: bool) -> Content:
        """Store bytes at hand."""
        hashes = hash_bytes(buffer, wants_md5=wants_md5)
        row = self._row(hashes, self._written(buffer, hashes.sha1, None), name)
        self._index.put([row])
        return self._believer.content_of(row)

    def link(self, path: str | os.PathLike[str], *, wants_md5: bool, tick: Tick) -> Content:
        """Offer a file where it lies."""
        row = self.linked(os.path.abspath(path), wants_md5, tick)
        self._index.put(places=[row])
        is_pinned = self._index.is_pinned(row.sha1)
        place = Path(os.path.abspath(path))
        return Content(
            row.sha1, row.size, place, row.blake3, row.md5, "link", is_pinned, place.name
        )

    def linked(self, place: str, wants_md5: bool, tick: Tick) -> PlaceRow:
        """Return the row of a file that is offered where it lies."""
        row = self._index.place(os.fsencode(place))
        if row is not None and (row.md5 or not wants_md5):
            with suppress(OSError):
                if Stamp.of(os.stat(place)) == row.stamp:
                    return row._replace(kind=LINK)
        hashes, stamp = hash_path(place, self._now_ns, wants_md5=wants_md5, tick=tick)
        return _place(place, stamp, hashes, LINK)

    def incoming(self, sha1: bytes, size: int | None, name: str) -> Incoming:
        """Return a file to be filled from elsewhere."""
        path, fd = self._objects.temporary(0o600)
        os.close(fd)
        return Incoming(self, Path(path), sha1, size, name)

    def adopt(self, incoming: Incoming) -> Content:
        """Make an object of a filled file. Raises Corrupt."""
        source, status = open_source(incoming.path)
        try:
            if status.st_nlink != 1:
                raise UsageError("the file that came has another name as well")
            hashes = hash_file(source)
            if hashes.sha1 != incoming.sha1 or incoming.size not in (None, hashes.size):
                raise Corrupt(f"what came is not {incoming.sha1.hex()}")
            with suppress(OSError):
                os.fchmod(source, 0o444)  # who may enter the store is the directory's affair
            stamp = self._objects.settle(source, hashes.size)
            self._objects.adopt(os.fspath(incoming.path), hashes.sha1, sync=True)
        except OSError as error:
            raise write_error(error, self._objects.directory) from error
        finally:
            os.close(source)
        row = self._row(hashes, stamp, incoming.name)
        self._index.put([row])
        return self._believer.content_of(row)

    # --- Inside ----------------------------------------------------------------------------------

    def _written(self, buffer: bytes, sha1: bytes, sync: bool | None) -> Stamp:
        """Make an object of bytes, unless it is there; return its stamp."""
        path = self._objects.path(sha1)
        present = self._present(sha1, path)
        if present is not None:
            return present
        temporary, fd = self._objects.temporary()
        try:
            written = os.write(fd, buffer)
            while written < len(buffer):
                written += os.write(fd, memoryview(buffer)[written:])
            stamp = self._objects.settle(fd, len(buffer), sync=sync)
            self._objects.name(temporary, path, sync=sync is None and len(buffer) >= SMALL_BYTES)
        except BaseException as error:
            _discard(temporary)
            if isinstance(error, OSError) and not isinstance(error, BytestagError):
                raise write_error(error, self._objects.directory) from error
            raise
        finally:
            os.close(fd)
        return stamp

    def _streamed(
        self, source: int, place: str, wants_md5: bool, tick: Tick, sync: bool | None
    ) -> tuple[Hashes, Stamp]:
        temporary, fd = self._objects.temporary()
        try:
            hashes = copy_file(source, fd, wants_md5=wants_md5, tick=tick)
            present = self._present(hashes.sha1, self._objects.path(hashes.sha1))
            if present is not None:
                _discard(temporary)
                return hashes, present
            stamp = self._objects.settle(fd, hashes.size, sync=sync)
            self._objects.adopt(temporary, hashes.sha1, sync=sync is None)
        except BaseException as error:
            _discard(temporary)
            if isinstance(error, OSError) and not isinstance(error, BytestagError):
                raise write_error(error, self._objects.directory) from error
            raise
        finally:
            os.close(fd)
        return hashes, stamp

    def _hard_linked(self, source: int, place: str, wants_md5: bool, tick: Tick) -> _Rows | None:
        """Make an object that is another name of the file; None where that is not possible."""
        temporary, fd = self._objects.temporary()
        os.close(fd)
        os.unlink(temporary)
        try:
            os.link(place, temporary)
            if not os.path.samestat(os.fstat(source), os.lstat(temporary)):
                return None
        except OSError:
            return None
        try:
            now = self._now_ns()
            hashes = hash_file(source, wants_md5=wants_md5, tick=tick)
            stamp = Stamp.of(os.fstat(source)).settled(now)
            present = self._present(hashes.sha1, self._objects.path(hashes.sha1))
            if present is None:
                self._objects.adopt(temporary, hashes.sha1, sync=True)
                _discard(temporary)  # renaming one name of a file to another does nothing
            row = self._row(hashes, present or stamp, os.path.basename(place))
            return row, _place(place, stamp, hashes, MEMO)
        except OSError as error:
            raise source_error(error, place) from error
        finally:
            _discard(temporary)

    def _present(self, sha1: bytes, path: str) -> Stamp | None:
        """Return the stamp of an object that is there, and say that it is used."""
        if not os.access(path, os.F_OK):
            return None
        row = self._index.object_row(sha1)
        if row is None or self._index.touch([sha1], self._now_ns()):
            return None
        try:
            stamp = Stamp.of(os.stat(path))
        except OSError:
            return None
        return stamp if stamp == row.stamp else None

    def _row(self, hashes: Hashes, stamp: Stamp, name: str, now: int | None = None) -> ObjectRow:
        now = self._now_ns() if now is None else now
        if not name.isascii():
            name = name.encode("utf-8", "replace").decode("utf-8")
        return ObjectRow(hashes.sha1, *stamp, hashes.blake3, hashes.md5, name, now)


class Incoming:
    """A file that is being filled with content that comes from elsewhere."""

    def __init__(
        self, writer: Writer, path: Path, sha1: bytes, size: int | None, name: str
    ) -> None:
        self._writer = writer
        self.path = path
        self.sha1 = sha1
        self.size = size
        self.name = name

    def commit(self) -> Content:
        """Make it an object. Raises Corrupt if it is not what was expected."""
        return self._writer.adopt(self)

    def close(self) -> None:
        """Remove what was not committed; idempotent."""
        _discard(os.fspath(self.path))


def _place(path: str, stamp: Stamp, hashes: Hashes, kind: int) -> PlaceRow:
    return PlaceRow(os.fsencode(path), *stamp, hashes.sha1, hashes.blake3, hashes.md5, kind)


def _read_all(source: int, size: int) -> bytes:
    """Read a file to its end: at once, if it has the size that it had."""
    buffer = os.read(source, size + 1)
    while len(buffer) != size and (piece := os.read(source, SMALL_BYTES)):
        buffer += piece
    return buffer


def _discard(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
