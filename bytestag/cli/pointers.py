"""``.prv`` and ``.prvdir`` files where a link is expected: finding and fetching by them
(composition).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytestag.cli.output import Output
from bytestag.cli.screens import FetchScreen
from bytestag.cli.values import count
from bytestag.errors import BytestagError, Corrupt, Incomplete, NotFound

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.daemon.settings import NodeSettings
    from bytestag.events.runtime import Runtime
    from bytestag.gateway.door import Door
    from bytestag.models.prv import PrvDirectory, PrvFile
    from bytestag.uri import Link

Event = dict[str, Any]
_FILE_ERRORS = ("not_found", "corrupt", "format", "unreachable", "timeout")


class Check:
    """Compares what a fetch made with what a .prv says; to be made before the fetch."""

    def __init__(self, prv: PrvFile, path: Path) -> None:
        self._prv = prv
        self._path = path
        self._was_there = os.path.lexists(path)

    def __call__(self) -> None:
        """Compare. Raises Corrupt, and takes the wrong file away if the fetch made it."""
        from bytestag.tables.prv_making import check_fits

        try:
            check_fits(self._prv, self._path)
        except Corrupt:
            if not self._was_there:
                self._path.unlink(missing_ok=True)
            raise


class CheckedScreen(FetchScreen):
    """Shows a fetch, its result only once what was made is checked."""

    def __init__(self, output: Output, on_found: Callable[[], object], check: Check) -> None:
        super().__init__(output, on_found)
        self._check = check

    def show(self, event: Event) -> None:
        if event["type"] == "result":
            self._check()
        super().show(event)


# --- Fetching a directory ------------------------------------------------------------------------


def fetch_directory(
    door: Door | None,
    output: Output,
    screen: FetchScreen,
    prv: PrvDirectory,
    link: Link,
    dest: Path,
    options: tuple[bool, float],
    settings: NodeSettings,
) -> int:
    """Make the directory that a .prvdir describes; ``options`` are force and timeout."""
    if door is not None:
        from bytestag.cli.share_through import Terminated, interruptible

        with interruptible():
            try:
                screen.show(_fetch_each(door, screen, prv, link, dest, options, settings))
            except Terminated:
                return 143
        return 0
    from bytestag.cli.running import run, until_stopped
    from bytestag.daemon.nodes import join_for, open_client
    from bytestag.gateway.events import fetch_result
    from bytestag.gateway.manifests import fetch_manifest

    async def main(runtime: Runtime, stop: Stop) -> int:
        async def work() -> None:
            async with open_client(settings, link, runtime, output.note) as client:
                await join_for(client, link)
                manifest = prv.manifest()
                progress = await fetch_manifest(
                    client, manifest, link, dest, screen.show, is_forced=options[0]
                )
            screen.show(fetch_result(str(dest), progress))

        return 0 if await until_stopped(stop, work()) else stop.exit_status

    return run(main)


def _fetch_each(
    door: Door,
    screen: FetchScreen,
    prv: PrvDirectory,
    link: Link,
    dest: Path,
    options: tuple[bool, float],
    settings: NodeSettings,
) -> Event:
    """Fetch the files one after the other through the running node; return the result."""
    from bytestag.cli.share_through import known_nodes
    from bytestag.models.safe_names import check_tree

    entries = list(prv.entries())
    check_tree((path for path, _ in entries), prv.directories())
    body = {
        "force": options[0],
        "timeout": options[1],
        "known_nodes": known_nodes(settings),
    }
    total = sum(file.size for _, file in entries)
    done: Event = {
        "type": "progress",
        "phase": "found",
        "files": len(entries),
        "files_done": 0,
        "bytes": total,
        "bytes_done": 0,
        "bytes_resumed": 0,
        "sources": 0,
    }
    screen.show(done)
    failures: list[tuple[str, BytestagError]] = []
    _make_directories(dest, prv)
    for path, file in entries:
        where = dest.joinpath(*path)
        named = replace(file.link(path[-1]), hints=link.hints)
        try:
            check = Check(file, where)
            result = _fetch_one(door, {**body, "link": str(named), "dest": str(where)})
            check()
        except BytestagError as error:
            if error.code not in _FILE_ERRORS:
                raise
            failures.append(("/".join(path), error))
            continue
        done["files_done"] += 1
        for key in ("bytes_done", "bytes_resumed"):
            done[key] += result[key]
        done["sources"] = max(done["sources"], result["sources"])
        screen.show({**done, "phase": "fetching"})
    _raise_failures(failures, len(entries))
    return {**done, "type": "result", "ok": True, "path": str(dest), "phase": "done"}


def _fetch_one(door: Door, body: Event) -> Event:
    return [event for event in door.stream("/v1/fetch", body) if event["type"] == "result"][-1]


def _make_directories(dest: Path, prv: PrvDirectory) -> None:
    from bytestag.tables.landing import LandingDirectory

    landing = LandingDirectory(dest)
    try:
        for path in prv.directories():
            os.close(landing.make_directories(path))
    finally:
        landing.close()


def _raise_failures(failures: list[tuple[str, BytestagError]], total: int) -> None:
    if not failures:
        return
    path, error = failures[0]
    if len(failures) == total:
        raise error
    raise Incomplete(
        f"{len(failures)} of {total} files are missing; the first is {path!r}: {error}",
        hint="run the same command again: what has arrived is kept",
    )


# --- Finding a directory -------------------------------------------------------------------------


def find_directory(
    door: Door | None, output: Output, prv: PrvDirectory, link: Link, settings: NodeSettings
) -> int:
    """Say how many hold each file of a .prvdir. Raises NotFound or Incomplete if any is missing."""
    found: list[tuple[str, Event | None]] = []
    if door is not None:
        from bytestag.cli.share_through import known_nodes

        known = " ".join(known_nodes(settings))
        for path, file in prv.entries():
            with _or_none() as result:
                result.append(
                    door.ask("GET", "/v1/find", link=str(file.link(path[-1])), known_nodes=known)
                )
            found.append(("/".join(path), result[0] if result else None))
    else:
        status = _find_here(output, prv, link, settings, found)
        if status:
            return status
    _show_found(output, found)
    return 0


def _find_here(
    output: Output,
    prv: PrvDirectory,
    link: Link,
    settings: NodeSettings,
    found: list[tuple[str, Event | None]],
) -> int:
    from bytestag.cli.running import run, until_stopped
    from bytestag.daemon.nodes import join_for, open_client
    from bytestag.gateway import jobs

    async def main(runtime: Runtime, stop: Stop) -> int:
        async def work() -> None:
            async with open_client(settings, link, runtime, output.note) as client:
                await join_for(client, link)
                for path, file in prv.entries():
                    named = replace(file.link(path[-1]), hints=link.hints)
                    with _or_none() as result:
                        result.append(await jobs.find(client, named))
                    found.append(("/".join(path), result[0] if result else None))

        return 0 if await until_stopped(stop, work()) else stop.exit_status

    return run(main)


@contextmanager
def _or_none() -> Iterator[list[Event]]:
    """Let a file that nobody holds be no error."""
    try:
        yield []
    except BytestagError as error:
        if error.code != NotFound.code:
            raise


def _show_found(output: Output, found: list[tuple[str, Event | None]]) -> None:
    if output.is_json:
        files = [{"path": path, "found": one} for path, one in found]
        output.json({"files": files})
    else:
        for path, one in found:
            holders = len(one["holders"]) if one else 0
            publishers = len(one["providers"]) if one else 0
            output.answer(f"{count(holders, 'holder')}, {count(publishers, 'publisher')}  {path}")
    missing = sum(one is None for _, one in found)
    if missing and missing == len(found):
        raise NotFound("nobody holds any of the files", hint="the owner must run `bytestag share`")
    if missing:
        raise Incomplete(f"nobody holds {missing} of {count(len(found), 'file')}")
