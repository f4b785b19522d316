"""``share`` by a node of its own: it ends with the command (composition)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from bytestag.cli.output import Output
from bytestag.cli.running import Stop, run, until_stopped
from bytestag.cli.screens import ShareScreen
from bytestag.client import Client
from bytestag.daemon.nodes import open_node
from bytestag.daemon.serving import default_order, join
from bytestag.daemon.settings import NodeSettings
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.gateway.shares import forget_others
from bytestag.gateway.sharing import ShareJob


def share_here(
    output: Output,
    screen: ShareScreen,
    paths: list[Path],
    until_copies: int,
    settings: NodeSettings,
) -> int:
    """Share paths until it is stopped, or until every value has so many copies."""

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
            self._client.sharing.watch()
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
