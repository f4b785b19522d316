"""fsspec: every tool that reads files reads our links (shell over fsspec).

Registered by entry point for ``sha1``, ``sha1dir`` and ``bytestag``::

    pandas.read_csv("sha1dir://H.ds001/participants.tsv", sep="\\t")

Paths keep their scheme, so that a file and a directory are told apart. A query is dropped from
paths, where fsspec would take ``?`` for a pattern, and kept as the file system's option ``query``.
Read-only; content never changes, so listings and hashes are remembered. Interface:
https://filesystem-spec.readthedocs.io/en/latest/api.html
"""

from __future__ import annotations

import asyncio
import datetime
import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import unquote

from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem, get_loop
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.spec import AbstractBufferedFile

from bytestag.errors import NotFound, UsageError
from bytestag.library.config import LibraryConfig
from bytestag.library.library import Library
from bytestag.models.directory import DirectoryManifest
from bytestag.uri import DIRECTORY_SCHEMES, Link

P = ParamSpec("P")
R = TypeVar("R")

BLOCK_BYTES = 1024 * 1024
"""Four parts: what one small read asks for."""
MERGED_GAP_BYTES = 64 * 1024
THREADS = 8
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_libraries: dict[LibraryConfig, Library] = {}


class BytestagFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Links as files. Options are the fields of :class:`~bytestag.library.config.LibraryConfig`.

    Raises FileNotFoundError for what nobody holds, TimeoutError and ConnectionError with the
    reason, and OSError (EROFS) for whatever would write.
    """

    protocol = ("sha1", "sha1dir", "bytestag")
    root_marker = ""
    async_impl = True
    mirror_sync_methods = True

    def __init__(
        self,
        *args: Any,
        query: str = "",
        asynchronous: bool = False,
        loop: Any = None,
        **options: Any,
    ) -> None:
        known = LibraryConfig.__dataclass_fields__
        told = {name: value for name, value in options.items() if name in known}
        rest = {name: value for name, value in options.items() if name not in known}
        super().__init__(*args, asynchronous=asynchronous, loop=loop, **rest)
        self._pid = os.getpid()
        self.query = query
        self._config = LibraryConfig.from_environment().changed(**told)
        self._pool: ThreadPoolExecutor | None = None
        self._pool_pid = 0

    # --- Paths -----------------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        location, query = _split(os.fspath(path))
        scheme, _, rest = location.partition("://")
        rest = rest.strip("/")
        if scheme == "sha1" and "/" not in rest:
            label = next((f[6:] for f in query.split("&") if f.startswith("label=")), "")
            label = label or (query if query and "=" not in query else "")
            rest += f"/{unquote(label)}" if label else ""
        return f"{scheme}://{rest}" if rest else location.rstrip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        query = _split(os.fspath(path))[1]
        return {"query": query} if "=" in query else {}

    @classmethod
    def _parent(cls, path: str) -> str:
        scheme, _, rest = cls._strip_protocol(path).partition("://")
        parent = rest.rpartition("/")[0]
        return f"{scheme}://{parent or rest}"

    def unstrip_protocol(self, name: str) -> str:
        """Return the path itself: it has its scheme."""
        return str(self._strip_protocol(name))

    def _link(self, path: str) -> Link:
        """Return the link of a path. Raises FileNotFoundError if it is none."""
        scheme, _, rest = self._strip_protocol(path).partition("://")
        authority, *segments = rest.split("/")
        try:
            link = Link.parse(f"{scheme}://{authority}" + (f"?{self.query}" if self.query else ""))
            if scheme in DIRECTORY_SCHEMES:
                return replace(link, path=tuple(filter(None, segments)))
            if segments:
                link = replace(link, name=unquote(segments[0]))
            if len(segments) > 1 and scheme == "bytestag":
                link = replace(link, path=tuple(filter(None, segments[1:])))
        except UsageError as error:
            raise NotFound(f"{path[:200]!r}: {error.message}", hint=error.hint) from error
        return link

    # --- Work in threads -------------------------------------------------------------------------

    @property
    def library(self) -> Library:
        """The library of this file system; file systems with equal options share one."""
        found = _libraries.get(self._config)
        if found is None:
            found = _libraries.setdefault(self._config, Library(self._config))
        return found

    @property
    def loop(self) -> Any:
        """The loop of this process: in a forked child another one than where we were made."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else get_loop()
        return super().loop

    async def _do(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._pool is None or self._pool_pid != os.getpid():
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="bytestag-fs")
            self._pool_pid = os.getpid()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    # --- Looking ---------------------------------------------------------------------------------

    async def _info(self, path: str, **_options: Any) -> dict[str, Any]:
        return await self._do(self._info_of, self._strip_protocol(path))

    def _info_of(self, path: str) -> dict[str, Any]:
        found = self.library.describe(self._existing(path))
        return _entry(path, found["type"], found["size"], found.get("sha1"), found.get("blake3"))

    def _existing(self, path: str) -> Link:
        """Return the link of a path; in a directory names may be percent-encoded, as in URLs."""
        link = self._link(path)
        if not link.path or not any("%" in name for name in link.path):
            return link
        try:
            self.library.manifest(replace(link, path=())).at(link.path)
        except KeyError:
            return replace(link, path=tuple(unquote(name) for name in link.path))
        return link

    async def _ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        entries = await self._do(self._listing, self._strip_protocol(path))
        return entries if detail else sorted(entry["name"] for entry in entries)

    def _listing(self, path: str) -> list[dict[str, Any]]:
        link = self._existing(path)
        info = self._info_of(path)
        if info["type"] == "file":
            return [info]
        manifest = self.library.manifest(link)
        return list(_entries(path, manifest))

    # --- Reading ---------------------------------------------------------------------------------

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: Any
    ) -> bytes:
        return await self._do(self._bytes_of, self._strip_protocol(path), start, end)

    def _bytes_of(self, path: str, start: int | None, end: int | None) -> bytes:
        link = self._existing(path)
        if (start or 0) < 0 or (end is not None and end < 0):
            size = self._info_of(path)["size"]
            start = max(size + start, 0) if start is not None and start < 0 else start
            end = max(size + end, 0) if end is not None and end < 0 else end
        first = start or 0
        if end is not None and end <= first:
            return b""
        return self.library.read(link, first, end)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **_options: Any,
    ) -> list[Any]:
        """Read ranges; those of one file that lie near each other travel together."""
        if not isinstance(starts, list | tuple):
            starts = [starts] * len(paths)
        if not isinstance(ends, list | tuple):
            ends = [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("as many paths as starts and ends")
        gap = MERGED_GAP_BYTES if max_gap is None else max_gap
        ranges = list(zip(map(self._strip_protocol, paths), starts, ends, strict=True))
        results: list[Any] = [None] * len(ranges)

        async def read(group: list[int]) -> None:
            path = ranges[group[0]][0]
            low = ranges[group[0]][1]
            high = max(ranges[number][2] for number in group)
            data = await self._cat_file(path, low, high)
            for number in group:
                _, start, end = ranges[number]
                results[number] = data[start - low : end - low]

        async def guarded(group: list[int]) -> None:
            try:
                if len(group) == 1:
                    path, start, end = ranges[group[0]]
                    results[group[0]] = await self._cat_file(path, start, end)
                else:
                    await read(group)
            except Exception as error:
                if on_error == "raise":
                    raise
                for number in group:
                    results[number] = error

        await asyncio.gather(*(guarded(group) for group in _grouped(ranges, gap)))
        return results

    async def _get_file(
        self, rpath: str, lpath: str, callback: Any = DEFAULT_CALLBACK, **_options: Any
    ) -> None:
        path = self._strip_protocol(rpath)
        info = await self._info(path)
        if info["type"] == "directory":
            await self._do(os.makedirs, lpath, exist_ok=True)
            return
        callback.set_size(info["size"])
        await self._do(self._load, path, Path(lpath))
        callback.absolute_update(info["size"])

    def _load(self, path: str, dest: Path) -> None:
        dest.absolute().parent.mkdir(parents=True, exist_ok=True)
        self.library.load(self._existing(path), dest)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **options: Any,
    ) -> BytestagFile:
        if mode != "rb":
            raise _read_only()
        return BytestagFile(
            self,
            self._strip_protocol(path),
            mode,
            block_size or BLOCK_BYTES,
            cache_options=cache_options,
            **options,
        )

    async def open_async(self, path: str, mode: str = "rb", **_options: Any) -> BytestagStream:
        """Return an asynchronous file, read from its start."""
        if mode != "rb":
            raise _read_only()
        path = self._strip_protocol(path)
        return BytestagStream(self, path, mode, size=(await self._info(path))["size"])

    # --- What never changes ----------------------------------------------------------------------

    def created(self, path: str) -> datetime.datetime:
        """The epoch: content has no date."""
        return EPOCH

    modified = created

    def ukey(self, path: str) -> str:
        """The SHA-1: it changes when the content does."""
        return str(self.info(path)["sha1"])

    def checksum(self, path: str) -> int:
        return int(self.ukey(path), 16)

    # --- What is not done ------------------------------------------------------------------------

    async def _refuse(self, *_args: Any, **_options: Any) -> Any:
        raise _read_only()

    _rm_file = _cp_file = _pipe_file = _put_file = _mkdir = _makedirs = _rm = _refuse

    def touch(self, path: str, truncate: bool = True, **options: Any) -> None:
        raise _read_only()

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        raise _read_only()


class BytestagFile(AbstractBufferedFile):  # type: ignore[misc]
    """A file that is read where it is needed."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(self.fs._bytes_of(self.path, start, end))


class BytestagStream(AbstractAsyncStreamedFile):  # type: ignore[misc]
    """A file that is read with ``await``."""

    def __init__(self, fs: BytestagFileSystem, path: str, mode: str, size: int) -> None:
        self.fs = fs
        self.path = path
        self.mode = mode
        self.size = size
        self.loc = 0
        self.closed = False

    async def read(self, length: int = -1) -> bytes:
        end = self.size if length < 0 else min(self.loc + length, self.size)
        data = b"" if end <= self.loc else await self.fs._cat_file(self.path, self.loc, end)
        self.loc += len(data)
        return data

    async def close(self) -> None:
        self.closed = True


def _split(text: str) -> tuple[str, str]:
    """Return the location and the query of a URL; in a directory ``?`` may be a pattern's."""
    location, _, query = text.partition("?")
    is_pattern = "=" not in query and not location.startswith("sha1://")
    return (text, "") if is_pattern else (location, query)


def _entries(path: str, manifest: DirectoryManifest) -> Iterator[dict[str, Any]]:
    for name in sorted(manifest.dirs):
        yield _entry(f"{path}/{name}", "directory", 0, None, None)
    for name in sorted(manifest.files):
        entry = manifest.files[name]
        yield _entry(f"{path}/{name}", "file", entry.size, entry.sha1.hex(), entry.b3.hex())


def _entry(
    name: str, type_: str, size: int, sha1: str | None, blake3: str | None
) -> dict[str, Any]:
    return {
        "name": name,
        "type": type_,
        "size": size if type_ == "file" else 0,
        "sha1": sha1,
        "blake3": blake3 or None,
        "created": None,
        "islink": False,
    }


def _grouped(ranges: list[tuple[str, Any, Any]], gap: int) -> Iterator[list[int]]:
    """Yield the numbers of ranges that are read together: of one file, near each other."""
    plain = []
    for number, (_, start, end) in enumerate(ranges):
        if start is None or end is None or start < 0 or end < start:
            yield [number]
        else:
            plain.append(number)
    plain.sort(key=lambda number: ranges[number])
    group: list[int] = []
    high = 0
    for number in plain:
        path, start, end = ranges[number]
        if group and (path != ranges[group[0]][0] or start > high + gap):
            yield group
            group = []
        high = max(high, end) if group else end
        group.append(number)
    if group:
        yield group


def _read_only() -> OSError:
    return OSError(errno.EROFS, "content is found by its hash: it is stored, not written to")
