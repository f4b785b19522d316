"""``bytestag share``: links now, copies soon, a word when it is safe to leave (composition)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.options import COPIES_MAX, NETWORK, PUBLISHING, command, node_settings, option
from bytestag.cli.output import Output
from bytestag.cli.screens import ShareScreen
from bytestag.errors import BytestagError, UsageError

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.client import Client
    from bytestag.daemon.settings import NodeSettings
    from bytestag.events.runtime import Runtime
    from bytestag.gateway.sharing import ShareJob


@command(
    "Share files and directories in place. Prints one link for each PATH, then pushes copies to "
    "donors, says when it is safe to leave, and stays until it is stopped.",
    click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path)),
    option(
        "--until-copies",
        type=click.IntRange(1, COPIES_MAX),
        metavar="N",
        help="Leave once every value has N copies on donors.",
    ),
    *PUBLISHING,
    *NETWORK,
)
def share(output: Output, paths: tuple[Path, ...], until_copies: int | None, **values: Any) -> int:
    from bytestag.cli.door import Door

    settings = node_settings(values)
    settings = replace(settings, copies=max(settings.copies, until_copies or 0))
    absolute = list(dict.fromkeys(path.expanduser().absolute() for path in paths))
    for path in absolute:
        if not path.exists():
            raise UsageError(f"there is no {str(path)!r} to share")
    screen = ShareScreen(output, settings.copies)
    door = Door.find(settings.state_directory)
    if door is not None:
        from bytestag.cli.share_through import share_through

        return share_through(door, output, screen, absolute, until_copies or 0, settings)
    return _share_here(output, screen, absolute, until_copies or 0, settings)


def _share_here(
    output: Output,
    screen: ShareScreen,
    paths: list[Path],
    until_copies: int,
    settings: NodeSettings,
) -> int:
    from bytestag.cli.running import run, until_stopped
    from bytestag.daemon.nodes import open_node
    from bytestag.gateway.shares import forget_others

    async def main(runtime: Runtime, stop: Stop) -> int:
        async with open_node(settings, runtime, is_donor=False, note=output.note) as client:
            await forget_others(client, paths)
            sharing = _Sharing(output, screen, client, settings)
            is_done = await until_stopped(stop, sharing.run(paths, until_copies))
        if is_done:
            return 0
        is_shared = len(sharing.jobs) == len(paths)
        return 0 if is_shared and not until_copies else stop.exit_status

    return run(main)


class _Sharing:
    """Shares by a node of one's own."""

    def __init__(
        self, output: Output, screen: ShareScreen, client: Client, settings: NodeSettings
    ) -> None:
        self._output = output
        self._screen = screen
        self._client = client
        self._settings = settings
        self.jobs: list[ShareJob] = []

    async def run(self, paths: list[Path], until_copies: int) -> None:
        """Share until all has so many copies; for ever if that is 0."""
        from bytestag.daemon.serving import default_order, join
        from bytestag.gateway.sharing import ShareJob

        order = default_order(self._settings)
        contacts = await join(self._client, self._output.warn)
        if not contacts:
            self._output.warn("no peers are known: the link works only while this runs")
        async with asyncio.TaskGroup() as group:
            tasks = []
            for path in paths:
                job = ShareJob(self._client, replace(order, path=path), self._screen.show)
                await job.hash()
                self.jobs.append(job)
                tasks += [group.create_task(job.publish()), group.create_task(job.follow())]
            self._client.watch()
            if not until_copies:
                await asyncio.Event().wait()
            await self._reach(until_copies)
            for task in tasks:
                task.cancel()

    async def _reach(self, copies: int) -> None:
        """Wait for all shares; the first failure is raised after the last word of each."""
        results = await asyncio.gather(
            *(job.reach(copies) for job in self.jobs), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, BytestagError):
                raise failure
        if failures:
            raise failures[0]
