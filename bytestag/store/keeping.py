"""Removing, verifying and collecting what a store holds (shell).

Whoever removes asks and removes within one transaction that writes. Whoever stores what is there
already first says that it is used; so either the collector sees that, or the other one sees that
the object is gone and stores it again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.errors import BytestagError, FormatError, NotFound, NotPermitted
from bytestag.store.copying import hash_path
from bytestag.store.index import ObjectRow
from bytestag.store.objects import write_error
from bytestag.store.values import Content, Problem

if TYPE_CHECKING:
    import sqlite3

    from bytestag.models.directory import DirectoryManifest
    from bytestag.store.content import ContentStore


def remove(store: ContentStore, sha1: bytes) -> None:
    """Remove an object and forget its links. Raises NotFound or NotPermitted."""
    with store.index.writing() as connection:
        if _is_pinned(connection, sha1):
            raise NotPermitted(f"{sha1.hex()} is pinned", hint="unpin it first")
        query = "UPDATE places SET kind = 0 WHERE sha1 = ? AND kind = 1"
        links = connection.execute(query, (sha1,)).rowcount
        connection.execute("DELETE FROM objects WHERE sha1 = ?", (sha1,))
        was_there = _unlink(store, sha1)
    if not was_there and not links:
        raise _why_not(store, sha1)


def _is_pinned(connection: sqlite3.Connection, sha1: bytes) -> bool:
    return bool(connection.execute("SELECT 1 FROM pins WHERE sha1 = ?", (sha1,)).fetchone())


def _unlink(store: ContentStore, sha1: bytes) -> bool:
    """Remove the file of an object; return whether it was there."""
    try:
        os.unlink(store.objects.path(sha1))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise write_error(error, store.directory) from error
    return True


def _why_not(store: ContentStore, sha1: bytes) -> NotFound | NotPermitted:
    try:
        content = store.find(sha1)
    except NotFound as error:
        return error
    return NotPermitted(f"{str(content.path)!r} lies in a store that is only read")


# --- Verify --------------------------------------------------------------------------------------


def verify(
    store: ContentStore, digests: Iterable[bytes] | None, on_each: Callable[[Content], object]
) -> list[Problem]:
    """Hash objects and links anew; return what is wrong."""
    problems: list[Problem] = []
    wanted = None if digests is None else list(digests)
    for sha1 in _all_objects(store) if wanted is None else wanted:
        problem = _verify_object(store, sha1, on_each)
        if problem is not None:
            problems.append(problem)
    if wanted is None:
        links = store.index.all_links()
    else:
        links = (link for sha1 in wanted for link in store.index.links(sha1))
    for link in links:
        path = os.fsdecode(link.path)
        content = store.believer.still(link._replace(mtime_ns=-1))
        if content is None:
            problems.append(Problem(link.sha1, Path(path), "the linked file changed or is gone"))
        else:
            on_each(content)
    return problems


def _all_objects(store: ContentStore) -> Iterator[bytes]:
    """Yield what lies in the store and what the index says does."""
    seen = set()
    for sha1, _ in store.objects.all():
        seen.add(sha1)
        yield sha1
    for row in store.index.objects():
        if row.sha1 not in seen:
            yield row.sha1


def _verify_object(
    store: ContentStore, sha1: bytes, on_each: Callable[[Content], object]
) -> Problem | None:
    path = store.objects.path(sha1)
    row = store.index.object_row(sha1)
    try:
        hashes, stamp = hash_path(path, store.now_ns, wants_md5=bool(row and row.md5))
    except NotFound:
        if row is None:
            return None  # it may be a link
        store.index.forget_object(sha1)
        return Problem(sha1, Path(path), "the object is gone")
    except BytestagError as error:
        return Problem(sha1, Path(path), error.message)
    is_other = row is not None and row.blake3 not in (b"", hashes.blake3)
    if hashes.sha1 != sha1 or is_other:
        place = store.objects.set_aside(sha1)
        store.index.forget_object(sha1)
        return Problem(sha1, place or Path(path), "the object was damaged")
    used = row.used if row else store.now_ns()
    name = row.name if row else ""
    row = ObjectRow(sha1, *stamp, hashes.blake3, hashes.md5, name, used)
    store.index.put([row])
    on_each(store.believer.content_of(row))
    return None


# --- Collect -------------------------------------------------------------------------------------


def collect(
    store: ContentStore, bytes_max: int | None, unused_seconds: float | None, *, is_dry: bool
) -> list[Content]:
    """Remove what is old or too much; return what that was."""
    if not is_dry:
        for path in store.objects.stale():
            with suppress(OSError):
                path.unlink()
    if bytes_max is None and unused_seconds is None:
        return []
    store.index.put_missing(store.found_rows())
    kept = protected(store)
    rows = sorted(store.index.objects(), key=lambda row: (row.used, row.sha1))
    used_bytes = sum(row.size for row in rows)
    limit = store.now_ns() - int((unused_seconds or 0) * 1e9)
    removed = []
    for row in rows:
        is_old = unused_seconds is not None and row.used <= limit
        is_much = bytes_max is not None and used_bytes > bytes_max and row.size > 0
        if row.sha1 in kept or not (is_old or is_much):
            continue
        if not is_dry and not _removed(store, row):
            continue
        used_bytes -= row.size
        removed.append(store.believer.content_of(row))
    return removed


def protected(store: ContentStore) -> set[bytes]:
    """Return what is pinned and what pinned directories name."""
    kept = store.index.pins()
    for sha1 in list(kept):
        manifest = manifest_of(store, sha1)
        if manifest is not None:
            for _, entry in manifest.entries():
                kept.add(entry.sha1)
                if entry.info:
                    kept.add(entry.info)
    return kept


def manifest_of(store: ContentStore, sha1: bytes) -> DirectoryManifest | None:
    """Return the manifest that a content is; None if it is none."""
    from bytestag.models.directory import MANIFEST_BYTES_MAX, DirectoryManifest

    try:
        content = store.find(sha1)
        if content.size > MANIFEST_BYTES_MAX or store.read(content, 0, 1)[:1] != b"{":
            return None
        return DirectoryManifest.from_bytes(store.read(content))
    except (NotFound, FormatError, BytestagError):
        return None


def _removed(store: ContentStore, row: ObjectRow) -> bool:
    """Remove an object that was not used meanwhile; return whether it was."""
    with store.index.writing() as connection:
        if _is_pinned(connection, row.sha1):
            return False
        query = "DELETE FROM objects WHERE sha1 = ? AND used = ?"
        if not connection.execute(query, (row.sha1, row.used)).rowcount:
            return False
        _unlink(store, row.sha1)
    return True
