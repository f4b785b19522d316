"""Where kachery and its relatives kept things: read in place, never written (shell).

::

    sha1/aa/bb/cc/H, md5/aa/bb/cc/H    kachery, kachery-p2p, kachery-cloud
    aa/bb/cc/H                         kachery's SHA1_CACHE_DIR and MD5_CACHE_DIR
    a/bc/H                             kbucket, mountaintools
    ….hints.json                       kachery: {"files": [{"stat": {"path", "size", …}}, …]}
    ….link                             kachery-p2p: {"path", "stat": {"size", "mtime"}}
    linked_files/sha1/aa/bb/cc/H       kachery-cloud: {"path", "size", "mtime", "sha1"}

A record of a link is a hint where to look and of which size the file must be. Nothing found here is
believed before it is hashed: kachery-p2p stored downloads without looking.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

RECORD_BYTES_MAX = 1024 * 1024
RECORD_FILES_MAX = 100


def candidates(directories: Sequence[Path], digest: bytes, algorithm: str) -> Iterator[str]:
    """Yield the paths of regular files that may have this hash."""
    name = digest.hex()
    deep = f"{name[:2]}/{name[2:4]}/{name[4:6]}/{name}"
    for directory in map(os.fspath, directories):
        place = f"{directory}/{algorithm}/{deep}"
        for path in (place, f"{directory}/{deep}", f"{directory}/{name[0]}/{name[1:3]}/{name}"):
            if _size(path) is not None:
                yield path
        records = [f"{place}.hints.json", f"{directory}/{deep}.hints.json"]
        if algorithm == "sha1":
            records += [f"{place}.link", f"{directory}/linked_files/sha1/{deep}"]
        for record in records:
            for path, size in _linked(record):
                if _size(path) == size:
                    yield path


def _linked(record: str) -> Iterator[tuple[str, int]]:
    """Yield paths and sizes that a record of a link names; nothing if it cannot be read."""
    if _size(record) is None:
        return
    with suppress(OSError, ValueError, RecursionError):
        with open(record, "rb") as file:
            value = json.loads(file.read(RECORD_BYTES_MAX))
        if not isinstance(value, dict):
            return
        files = value.get("files", [value])
        for item in files[:RECORD_FILES_MAX] if isinstance(files, list) else []:
            if not isinstance(item, dict):
                continue
            told = item.get("stat", item)
            if not isinstance(told, dict):
                continue
            path, size = told.get("path", item.get("path")), told.get("size")
            if isinstance(path, str) and os.path.isabs(path) and type(size) is int:
                yield path, size


def _size(path: str) -> int | None:
    """Return the size of a regular file, links followed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
