"""Elsewhere: what is not here, read through the running node or by a client of our own (shell)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bytestag.errors import NotFound, Unreachable
from bytestag.gateway.door import Door
from bytestag.library.config import LibraryConfig
from bytestag.library.progress import Report
from bytestag.models.directory import DirectoryManifest
from bytestag.uri import Link, format_address

if TYPE_CHECKING:
    import asyncio

    from bytestag.client import Client
    from bytestag.gateway.reading import OpenLinks

Described = dict[str, Any]
R = TypeVar("R")


class Elsewhere(Protocol):
    """Whoever can be asked for what is not here.

    Every method raises NotFound, Unreachable, Timeout, Corrupt or FormatError.
    """

    def describe(self, link: Link) -> Described:
        """Return ``type``, ``size``, ``sha1`` and more of what a link names."""

    def read(self, link: Link, start: int, end: int) -> bytes:
        """Return bytes of the file that a link names."""

    def manifest(self, link: Link) -> DirectoryManifest:
        """Return the directory that a link names."""

    def fetch(self, link: Link, dest: Path, report: Report) -> None:
        """Make the file or directory ``dest``."""

    def find(self, link: Link) -> Described:
        """Return who holds what a link names."""

    def close(self) -> None:
        """Stop; idempotent."""


class Nowhere:
    """Nobody is asked."""

    def describe(self, link: Link) -> Described:
        raise _only_here(link)

    def read(self, link: Link, start: int, end: int) -> bytes:
        raise _only_here(link)

    def manifest(self, link: Link) -> DirectoryManifest:
        raise _only_here(link)

    def fetch(self, link: Link, dest: Path, report: Report) -> None:
        raise _only_here(link)

    def find(self, link: Link) -> Described:
        raise _only_here(link)

    def close(self) -> None:
        pass


def _only_here(link: Link) -> NotFound:
    return NotFound(
        f"{link.digest.hex()[:12]}… is not in the store",
        hint="the network was not asked: leave out --local-only, or unset BYTESTAG_OFFLINE",
    )


class ThroughDoor:
    """The node that runs."""

    def __init__(self, door: Door, config: LibraryConfig) -> None:
        self._door = door
        self._query = {
            "known_nodes": " ".join(format_address(*node) for node in config.known_nodes),
            "timeout": str(max(round(config.timeout), 1)),
        }
        self._timeout = config.timeout

    @classmethod
    def find_node(cls, config: LibraryConfig) -> ThroughDoor | None:
        """Return the node that runs in the network that is meant, if there is one."""
        door = Door.find(config.state_dir)
        if door is None:
            return None
        if config.network and door.ask("GET", "/v1/status")["network"] != config.network:
            return None
        return cls(door, config)

    def describe(self, link: Link) -> Described:
        return self._door.ask("GET", "/v1/info", link=str(link), **self._query)

    def read(self, link: Link, start: int, end: int) -> bytes:
        return self._door.read_range("/v1/content", start, end, link=str(link), **self._query)

    def manifest(self, link: Link) -> DirectoryManifest:
        packed = self._door.read("/v1/manifest", link=str(link), **self._query)
        return DirectoryManifest.from_bytes(packed)

    def fetch(self, link: Link, dest: Path, report: Report) -> None:
        body = {
            "link": str(link),
            "dest": str(dest),
            "timeout": self._timeout,
            "known_nodes": self._query["known_nodes"].split(),
        }
        for event in self._door.stream("/v1/fetch", body):
            if event["type"] == "progress":
                _pass_on(event, report)

    def find(self, link: Link) -> Described:
        known = self._query["known_nodes"]
        return self._door.ask("GET", "/v1/find", link=str(link), known_nodes=known)

    def close(self) -> None:
        pass


class OwnClient:
    """A client of our own, in a thread of its own, from the first question to :meth:`close`."""

    def __init__(self, config: LibraryConfig) -> None:
        from bytestag.events.reactor import EventReactor
        from bytestag.events.runtime import system_runtime

        self._config = config
        self._runtime = system_runtime()
        self._reactor = EventReactor()
        self._reactor.start()
        self._open: dict[tuple[str, str], asyncio.Future[tuple[Client, OpenLinks]]] = {}

    def describe(self, link: Link) -> Described:
        from bytestag.gateway.reading import described

        async def work() -> Described:
            _, links = await self._client_for(link)
            opened = await links.open(link, self._config.timeout)
            return await self._runtime.offload(described, opened)

        return self._run(work)

    def read(self, link: Link, start: int, end: int) -> bytes:
        async def work() -> bytes:
            _, links = await self._client_for(link)
            file = await links.file(link, self._config.timeout)
            try:
                return await file.read(start, end)
            except BaseException:
                links.forget(link)
                raise

        return self._run(work)

    def manifest(self, link: Link) -> DirectoryManifest:
        async def work() -> DirectoryManifest:
            _, links = await self._client_for(link)
            return await links.directory(link, self._config.timeout)

        return self._run(work)

    def fetch(self, link: Link, dest: Path, report: Report) -> None:
        from bytestag.gateway import jobs

        async def work() -> None:
            client, _ = await self._client_for(link)
            await jobs.fetch(
                client,
                link,
                dest,
                lambda event: _pass_on(event, report),
                first_byte_seconds=self._config.timeout,
            )

        self._run(work)

    def find(self, link: Link) -> Described:
        from bytestag.gateway import jobs

        async def work() -> Described:
            client, _ = await self._client_for(link)
            return await jobs.find(client, link)

        return self._run(work)

    def close(self) -> None:
        self._reactor.stop()
        self._runtime.close()

    # --- Inside ----------------------------------------------------------------------------------

    def _run(self, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """Run work in the loop and wait for it here; what stops us stops it."""
        from bytestag.events.tasks import Task, TaskStopped

        task = Task.wrap(work)
        self._reactor.start_task(task)
        try:
            return task.result()
        except TaskStopped as error:
            raise Unreachable("the library was closed") from error
        except BaseException:
            task.stop()
            raise

    async def _client_for(self, link: Link) -> tuple[Client, OpenLinks]:
        """Return a client in the network of a link that can reach its addresses."""
        import asyncio

        from bytestag.daemon.nodes import join_for
        from bytestag.daemon.settings import client_host, network_config

        settings = self._config.node_settings
        host = settings.host or client_host([*settings.known_nodes, *link.hints])
        key = network_config(settings.network, host, link).network, host
        if key not in self._open:
            self._open[key] = asyncio.get_running_loop().create_future()
            self._reactor.create_task(self._serve(key, link))
        client, links = await asyncio.shield(self._open[key])
        if client.protocol.router.is_empty:
            await join_for(client, link)
        return client, links

    async def _serve(self, key: tuple[str, str], link: Link) -> None:
        """Run a client until the reactor stops."""
        from bytestag.daemon.nodes import open_client
        from bytestag.gateway.reading import OpenLinks

        opening = self._open[key]
        try:
            async with open_client(self._config.node_settings, link, self._runtime) as client:
                links = OpenLinks(client)
                opening.set_result((client, links))
                try:
                    await self._reactor.wait_stopped()
                finally:
                    links.close()
        except Exception as error:
            if opening.done():
                raise
            del self._open[key]
            opening.set_exception(error)
            opening.exception()  # it is no surprise if whoever asked has left


def _pass_on(event: Described, report: Report) -> None:
    report(event["bytes_done"], event["bytes"], event["sources"])


def elsewhere(config: LibraryConfig) -> Elsewhere:
    """Return whom to ask: nobody, the running node, or a client of our own."""
    if config.local_only:
        return Nowhere()
    through = ThroughDoor.find_node(config) if config.use_daemon else None
    return through or OwnClient(config)
