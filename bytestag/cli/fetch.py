"""``bytestag fetch``: the file or directory that a link names (composition)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.journal import Journal
from bytestag.cli.options import (
    HINTS,
    NETWORK,
    TIMEOUT,
    absolute_path,
    command,
    node_settings,
    option,
)
from bytestag.cli.output import Output
from bytestag.cli.screens import FetchScreen
from bytestag.errors import Unreachable

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.daemon.settings import NodeSettings
    from bytestag.events.runtime import Runtime
    from bytestag.gateway.door import Door
    from bytestag.models.prv import PrvDirectory, PrvFile
    from bytestag.uri import Link


@command(
    "Make the file or directory that LINK, or a .prv or .prvdir file, names. DEST is its name, or "
    "an existing directory to put it into. Prints the path. Run again, it goes on where it "
    "stopped.",
    click.argument("link"),
    click.argument("dest", required=False, type=click.Path(path_type=Path)),
    option("--force", is_flag=True, help="Replace a file that differs."),
    TIMEOUT,
    HINTS,
    *NETWORK,
)
def fetch(
    output: Output, link: str, dest: Path | None, force: bool, timeout: float, **values: Any
) -> int:
    from bytestag.cli import pointers

    settings = node_settings(values)
    parsed, pointer = read_named(link, settings)
    journal = Journal(settings.state / "fetches")
    path = destination(parsed, dest, journal)

    def on_found() -> None:
        journal.note(parsed.key, path)

    door = door_to(parsed, settings)
    screen = FetchScreen(output, on_found)
    if pointer is not None:
        from bytestag.models.prv import PrvDirectory

        if isinstance(pointer, PrvDirectory):
            return pointers.fetch_directory(
                door, output, screen, pointer, parsed, path, (force, timeout), settings
            )
        screen = pointers.CheckedScreen(output, on_found, pointers.Check(pointer, path))
    if door is not None:
        return _fetch_through(door, screen, parsed, path, force, timeout, settings)
    return _fetch_here(output, screen, parsed, path, force, timeout, settings)


def read_named(text: str, settings: NodeSettings) -> tuple[Link, PrvFile | PrvDirectory | None]:
    """Return the link that the user named, and the .prv or .prvdir file, if it was one.

    The link is without its addresses if they are not wished. Raises UsageError, FormatError; and
    Unreachable if the environment says that the network is not to be asked.
    """
    from bytestag.library import names
    from bytestag.library.config import LibraryConfig
    from bytestag.uri import Link

    if LibraryConfig.from_environment().local_only:
        raise Unreachable(
            "the network is not asked: BYTESTAG_OFFLINE is set",
            hint="unset it; what is here is read by `bytestag load LINK`",
        )
    path, pointer = absolute_path(Path(text)), None
    if "://" in text or not names.is_pointer(path):
        link = Link.parse(text)
    else:
        pointer = names.read_pointer(path)
        link = names.pointer_link(path, pointer)
    _ = link.key  # an md5:// link is refused before anything starts
    return link if settings.has_hints else replace(link, hints=()), pointer


def door_to(link: Link, settings: NodeSettings) -> Door | None:
    """Return the running node, if there is one in the network that is meant."""
    from bytestag.gateway.door import Door
    from bytestag.uri import OPEN_NETWORK

    door = Door.find(settings.state_directory)
    is_open = link.network == OPEN_NETWORK
    wanted = settings.network or ("" if is_open and link.scheme != "bytestag" else link.network)
    if door is not None and wanted and door.ask("GET", "/v1/status")["network"] != wanted:
        return None
    return door


def destination(link: Link, dest: Path | None, journal: Journal) -> Path:
    """Return what is to be made: ``dest``, or the link's name inside it or here.

    A directory that an earlier fetch of this link made is gone on with, not put into.
    Raises FormatError if the link's name is unsafe.
    """
    if dest is not None:
        dest = absolute_path(dest)
        if not dest.is_dir() or journal.has(link.key, dest):
            return dest
    name = link.path[-1] if link.path else link.name
    if name:
        from bytestag.models.safe_names import check_component

        check_component(name)
    return (dest or Path.cwd()) / (name or link.key.base16)


def _fetch_through(
    door: Door,
    screen: FetchScreen,
    link: Link,
    dest: Path,
    force: bool,
    timeout: float,
    settings: NodeSettings,
) -> int:
    from bytestag.cli.share_through import Terminated, interruptible, known_nodes

    body = {
        "link": str(link),
        "dest": str(dest),
        "force": force,
        "timeout": timeout,
        "known_nodes": known_nodes(settings),
    }
    with interruptible():
        try:
            for event in door.stream("/v1/fetch", body):
                screen.show(event)
        except Terminated:
            return 143
    return 0


def _fetch_here(
    output: Output,
    screen: FetchScreen,
    link: Link,
    dest: Path,
    force: bool,
    timeout: float,
    settings: NodeSettings,
) -> int:
    from bytestag.cli.running import run, until_stopped
    from bytestag.daemon.nodes import join_for, open_client
    from bytestag.gateway import jobs
    from bytestag.gateway.events import fetch_result

    async def main(runtime: Runtime, stop: Stop) -> int:
        async def work() -> None:
            async with open_client(settings, link, runtime, output.note) as client:
                await join_for(client, link)
                progress = await jobs.fetch(
                    client,
                    link,
                    dest,
                    screen.show,
                    is_forced=force,
                    first_byte_seconds=timeout,
                )
            screen.show(fetch_result(str(dest), progress))

        return 0 if await until_stopped(stop, work()) else stop.exit_status

    return run(main)
