"""The Python door: store and load content by name, as kachery did, with honest failures.

::

    import bytestag

    uri = bytestag.store_file("results.csv")        # 'sha1://…/results.csv'
    path = bytestag.load_file(uri)                  # a path in the store, fetched if need be
    part = bytestag.load_bytes(uri, start=0, end=100)
    with bytestag.open_file(uri) as file: ...       # seeks; only what is read travels

What is here is read from the store; else the running node is asked, or a client of our own. Every
function is synchronous and may be called from threads, notebooks and running loops;
:mod:`bytestag.aio` has the same as coroutines. Nothing returns None for a failure: all raise
:class:`NotFound`, :class:`Unreachable`, :class:`Timeout`, :class:`Corrupt`, :class:`UsageError`
and the others of :mod:`bytestag.errors`, with a hint. A *name* is a link of any form, a path, or a
``.prv`` or ``.prvdir`` file, which stands for what it describes; ``progress`` is True, or is called
with the bytes done and those there are.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bytestag.errors import Corrupt, FormatError, UsageError
from bytestag.library.config import LibraryConfig
from bytestag.library.describing import Described, describe_path
from bytestag.library.files import copy
from bytestag.library.library import Library
from bytestag.library.progress import Progress, Report, reporting
from bytestag.library.telling import Teller
from bytestag.models.directory import DirectoryManifest
from bytestag.store.content import Content
from bytestag.uri import Link

Name = str | os.PathLike[str]
COPIED_BYTES = 4 * 1024 * 1024
NPY_MAGIC = b"\x93NUMPY"

_library: Library | None = None
_teller = Teller()


# --- Configuration -------------------------------------------------------------------------------


def library() -> Library:
    """Return the library that the functions here use."""
    global _library
    if _library is None:
        _library = Library()
        _call_at_exit(close)
    return _library


def get_config() -> LibraryConfig:
    """Return what is configured: by :func:`set_config`, else by the environment."""
    return library().config


def set_config(**changes: Any) -> None:
    """Change what is configured: ``store_dir``, ``known_nodes``, ``local_only``, ``timeout`` …

    The fields are those of :class:`~bytestag.library.config.LibraryConfig`. Raises UsageError.
    """
    global _library
    changed = library().config.changed(**changes)
    close()
    _library = Library(changed)


@contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Change what is configured for the length of a ``with`` block, for the whole process.

    kachery called it ``config``: that is :func:`bytestag.api.config`.
    """
    before = get_config()
    set_config(**changes)
    try:
        yield
    finally:
        close()
        global _library
        _library = Library(before)


config = using


def close() -> None:
    """Let go of the store and the network; what is called later opens them again."""
    _teller.flush()
    if _library is not None:
        _library.close()


def _call_at_exit(function: Callable[[], None]) -> None:
    """Have a function called when the program ends, while threads still take work.

    ``atexit`` is too late: then no thread pool does.
    """
    import concurrent.futures.thread  # noqa: F401 - what is registered later is called earlier

    try:
        getattr(threading, "_register_atexit", atexit.register)(function)
    except RuntimeError:  # the program ends already
        atexit.register(function)


# --- Storing -------------------------------------------------------------------------------------


def store_file(
    path: Name, basename: str | None = None, *, algorithm: str = "sha1", progress: Progress = False
) -> str:
    """Copy a file into the store; return its URI, ``sha1://H/name`` (or ``md5://H/name``)."""
    with reporting(progress, _size_of(path)) as report:
        content = library().store.add_file(
            Path(path),
            algorithms=_algorithms(algorithm),
            use_hard_links=get_config().use_hard_links,
            tick=_ticks(report, _size_of(path)),
        )
    return uri_of(content, basename or Path(path).name, algorithm)


def link_file(path: Name, basename: str | None = None, *, algorithm: str = "sha1") -> str:
    """Have the store know a file where it is, without a copy; return its URI.

    A file that changes or goes is not served under its old name any more. A running node serves it.
    """
    from bytestag.events.runtime import system_runtime

    content = library().store.add_file(
        Path(path), algorithms=_algorithms(algorithm), is_linked=True
    )
    if get_config().use_daemon:
        _teller.note(get_config().state_dir, system_runtime().monotonic())
    return uri_of(content, basename or Path(path).name, algorithm)


def store_bytes(data: bytes, basename: str = "file.dat", *, algorithm: str = "sha1") -> str:
    """Store bytes; return their URI."""
    content = library().store.add_bytes(data, name=basename, algorithms=_algorithms(algorithm))
    return uri_of(content, basename, algorithm)


def store_text(text: str, basename: str = "file.txt", *, algorithm: str = "sha1") -> str:
    """Store text as UTF-8; return its URI."""
    return store_bytes(text.encode("utf-8"), basename, algorithm=algorithm)


def store_object(value: Any, basename: str = "file.json", *, indent: int | None = None) -> str:
    """Store a value as JSON, as kachery wrote it; return its URI. Raises UsageError."""
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"not JSON: {error}", hint="store arrays with store_npy") from error
    return store_text(text, basename)


def store_npy(array: Any, basename: str = "file.npy") -> str:
    """Store a numpy array in the NPY format, without pickle; return its URI."""
    import numpy as np

    buffer = io.BytesIO()
    try:
        np.save(buffer, array, allow_pickle=False)
    except ValueError as error:
        raise UsageError(f"the array cannot be stored: {error}", hint="objects are not") from error
    return store_bytes(buffer.getvalue(), basename)


def store_dir(
    path: Name, *, label: str | None = None, git_annex: bool = False, progress: Progress = False
) -> str:
    """Store a directory as a snapshot; return its URI, ``sha1dir://H.label``."""
    root = Path(os.path.abspath(path))
    with reporting(progress, 0) as report:
        _, content = library().store.add_directory(
            root, git_annex=git_annex, tick=_ticks(report, 0)
        )
    return str(Link("sha1dir", content.sha1, label or root.name, "d"))


def uri_of(content: Content, name: str, algorithm: str = "sha1") -> str:
    """Return the link that is printed for something stored."""
    return str(Link(algorithm, getattr(content, algorithm), name))


# --- Loading -------------------------------------------------------------------------------------


def load_file(name: Name, dest: Name | None = None, *, progress: Progress = False) -> str:
    """Return the path of a file's content: in the store, or ``dest`` if given.

    What is not here is fetched, compared with its hash and kept.
    """
    found = library().named(name)
    if isinstance(found, Path):
        _check_file(found)
        return str(copy(found, Path(dest)) if dest is not None else found)
    with reporting(progress, 0) as report:
        return str(library().load(found, Path(dest) if dest is not None else None, report))


def load_bytes(name: Name, start: int = 0, end: int | None = None) -> bytes:
    """Return the bytes of a file from ``start`` to before ``end``; only what it needs travels."""
    found = library().named(name)
    if isinstance(found, Link):
        return library().read(found, start, end)
    _check_file(found)
    if start < 0 or (end is not None and end < start):
        raise UsageError(f"{start} to {end} is no range of bytes")
    with found.open("rb") as file:
        file.seek(start)
        return file.read(-1 if end is None else end - start)


def load_text(name: Name) -> str:
    """Return a file as text. Raises Corrupt if it is not UTF-8."""
    try:
        return _whole(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"not UTF-8 text: {error.reason} at {error.start}") from error


def load_object(name: Name) -> Any:
    """Return the value of a JSON file. Raises FormatError if it is none."""
    try:
        return json.loads(_whole(name))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from error


def load_npy(name: Name) -> Any:
    """Return the numpy array of an NPY file, without pickle. Raises FormatError."""
    import numpy as np

    data = _whole(name)
    if not data.startswith(NPY_MAGIC):
        raise FormatError("not an NPY file")
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a wrong header gives ValueError, TokenError, MemoryError …
        raise FormatError(f"the array cannot be loaded: {error}") from error


def load_dir(name: Name, dest: Name, *, progress: Progress = False) -> str:
    """Make the directory ``dest``, or go on with one that was begun; return its path."""
    found = _link(name)
    with reporting(progress, 0) as report:
        return str(library().load_directory(found, Path(os.path.abspath(dest)), report))


def open_file(name: Name) -> io.BufferedReader:
    """Return a file object, read-only and binary: seek, tell, readline, iteration."""
    found = library().named(name)
    if isinstance(found, Link):
        return library().open(found)
    _check_file(found)
    return io.BufferedReader(io.FileIO(found))


def pooch_downloader(url: str, output_file: Any, _pooch: Any) -> None:
    """Be pooch's downloader: ``pooch.retrieve(url, hash, downloader=bytestag.pooch_downloader)``.

    ``output_file`` is a path or a binary file open for writing.
    """
    if hasattr(output_file, "write"):
        with open_file(url) as file:
            shutil.copyfileobj(file, output_file, COPIED_BYTES)
    else:
        load_file(url, output_file)


# --- Looking -------------------------------------------------------------------------------------


def read_dir(name: Name, *, recursive: bool = True) -> dict[str, Any]:
    """Return a directory as kachery's JSON, ``{"files": {…}, "dirs": {…}}``; no file is fetched."""
    manifest = library().manifest(_link(name))
    return _tree(manifest, recursive=recursive)


def get_file_info(name: Name) -> Described:
    """Return ``type``, ``size``, ``sha1``, and where known ``blake3``, ``path``, ``origin``."""
    found = library().named(name)
    if isinstance(found, Link):
        return library().describe(found)
    _check_file(found)
    return describe_path(found)


def find(name: Name) -> Described:
    """Return where a file is: ``here`` (path or None), ``holders``, ``providers``."""
    return library().find(_link(name))


# --- Inside --------------------------------------------------------------------------------------


def _whole(name: Name) -> bytes:
    """Return all bytes of a file, compared with its hash if it was fetched."""
    found = library().named(name)
    path = found if isinstance(found, Path) else library().load(found)
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise Corrupt(f"the file cannot be read: {error.strerror}") from error


def _link(name: Name) -> Link:
    found = library().named(name)
    if isinstance(found, Path):
        raise UsageError(f"{str(found)!r} is a path, not a link")
    return found


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a directory, not a file")


def _algorithms(algorithm: str) -> tuple[str, ...]:
    if algorithm not in ("sha1", "md5"):
        raise UsageError(f"{algorithm!r} is no algorithm", hint="sha1 or md5")
    return ("sha1",) if algorithm == "sha1" else ("sha1", "md5")


def _size_of(path: Name) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # whoever opens it says why


def _ticks(report: Report, total: int) -> Callable[[int], None]:
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done += count
        report(done, max(total, done), 0)

    return tick


def _tree(manifest: DirectoryManifest, *, recursive: bool) -> dict[str, Any]:
    below = {
        name: _tree(manifest.dirs[name], recursive=True) if recursive else {}
        for name in sorted(manifest.dirs)
    }
    files = {name: manifest.files[name].to_json() for name in sorted(manifest.files)}
    return {"files": files, "dirs": below}
