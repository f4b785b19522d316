"""Shares of a running node: registered, published, watched, restored after a restart (shell)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bytestag.client import Client
from bytestag.errors import BytestagError, LocalError, StorageError
from bytestag.gateway.events import Emit, Event
from bytestag.gateway.sharing import ShareJob, ShareOrder, link_of

_logger = logging.getLogger(__name__)

REGISTERED = "registered_shares"
SHARES_MAX = 10_000


def registered_paths(client: Client) -> list[Path]:
    """Return what this user asked a node to share for good."""
    state = client.stores.state
    return [Path(path) for path in state.json(REGISTERED, [])] if state is not None else []


async def forget_others(client: Client, paths: Collection[Path]) -> None:
    """Share no longer what an earlier run shared and nobody asks for now.

    What is registered keeps its hashes, and is shared.
    """
    kept = {*paths, *registered_paths(client)}
    table = client.shared_files_table
    for path in await client.runtime.offload(lambda: table.shared_directories):
        if path not in kept:
            await client.sharing.remove(path)


def _new_future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class _Share:
    job: ShareJob
    listeners: list[Emit] = field(default_factory=list)
    hashed: asyncio.Future[None] = field(default_factory=_new_future)
    task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Stop hashing and publishing."""
        self.job.stop()
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()


class Shares:
    """What a node shares. ``group`` owns the publishing; ``order`` says how it is done."""

    def __init__(self, client: Client, group: asyncio.TaskGroup, order: ShareOrder) -> None:
        self._client = client
        self._group = group
        self._order = order
        self._shares: dict[Path, _Share] = {}

    async def restore(self, paths: Iterable[Path], *, is_hashed: bool) -> list[tuple[str, str]]:
        """Share what was registered, and ``paths`` for as long as this node runs.

        What an earlier run shared and nobody asks for now is shared no longer. Return what cannot
        be shared, with the reason.
        """
        client = self._client
        wanted = list(dict.fromkeys([*self.registered(), *paths]))
        await forget_others(client, wanted)
        failed = []
        for path in wanted:
            try:
                if is_hashed:
                    await client.sharing.add(path)
                else:
                    await client.runtime.offload(client.shared_files_table.add_path, path)
            except BytestagError as error:
                failed.append((str(path), error.message))
        return failed

    @property
    def paths(self) -> list[Path]:
        """What is shared."""
        return self._client.sharing.table.shared_directories

    def registered(self) -> list[Path]:
        """Return what was asked for through the door."""
        return registered_paths(self._client)

    def _register(self, path: Path, *, is_shared: bool) -> None:
        state = self._client.stores.state
        assert state is not None, "a node that shares keeps its state"
        paths = [str(known) for known in self.registered() if known != path]
        if is_shared and len(paths) >= SHARES_MAX:
            raise LocalError(f"{SHARES_MAX:,} paths are shared already", hint="share a directory")
        state.set_json(REGISTERED, [*paths, str(path)] if is_shared else paths)

    def list(self) -> list[Event]:
        """Return path and link of each share; the link is null until it is hashed."""
        found: list[Event] = []
        registered = set(self.registered())
        for path in self.paths:
            try:
                root = self._client.shared_files_table.root(path)
                link = str(link_of(self._client, root, replace(self._order, path=path)))
            except KeyError:
                link = None
            found.append({"path": str(path), "link": link, "is_registered": path in registered})
        return found

    async def add(self, order: ShareOrder, emit: Emit) -> ShareJob:
        """Register a path, and begin to hash and publish it; return the job once it is hashed.

        ``emit`` is told of it until :meth:`leave`. The job goes on if the caller does not wait.
        Raises what :meth:`ShareJob.hash` does; then the path is not registered.
        """
        share = _Share(ShareJob(self._client, order, lambda event: _tell(share, event)), [emit])
        offload = self._client.runtime.offload
        was_shared = order.path in await offload(lambda: self.paths)
        await offload(self._client.shared_files_table.add_path, order.path)
        before = self._shares.get(order.path)
        if before is not None:
            before.stop()
            share.listeners += before.listeners
            if not before.hashed.done():
                share.hashed = before.hashed  # who waits for the first waits for this one now
        self._shares[order.path] = share
        await offload(self._register, order.path, is_shared=True)
        share.task = self._group.create_task(self._run(share, was_shared=was_shared))
        await asyncio.shield(share.hashed)
        return self._shares.get(order.path, share).job

    async def _run(self, share: _Share, *, was_shared: bool) -> None:
        path = share.job.path
        try:
            await share.job.hash()
        except BytestagError as error:
            if not was_shared and self._shares.get(path) is share:
                await self.remove(path)
            self._fail(share, error)
            return
        except asyncio.CancelledError:
            self._fail(share, StorageError("sharing was stopped"))
            raise
        share.hashed.set_result(None)
        self._client.sharing.watch()
        async with asyncio.TaskGroup() as group:
            for work in (share.job.publish(), share.job.follow()):
                group.create_task(self._guard(work))

    def _fail(self, share: _Share, error: BytestagError) -> None:
        """Tell whoever waits for the hashes that there are none, unless another makes them."""
        if self._shares.get(share.job.path, share) is not share:
            return
        _logger.info("a path is not shared: %s", error.code)
        if not share.hashed.done():
            share.hashed.set_exception(error)
            share.hashed.exception()  # nobody may be waiting any more

    def leave(self, path: Path, emit: Emit) -> None:
        """Tell ``emit`` no more; the share stays."""
        share = self._shares.get(path)
        if share is not None and emit in share.listeners:
            share.listeners.remove(emit)

    async def remove(self, path: Path) -> bool:
        """Share a path no longer; return whether it was shared."""
        share = self._shares.pop(path, None)
        if share is not None:
            share.stop()
        await self._client.runtime.offload(self._register, path, is_shared=False)
        return await self._client.sharing.remove(path)

    def close(self) -> None:
        """Stop publishing; what is registered stays so."""
        for share in self._shares.values():
            share.stop()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (BytestagError, KeyError) as error:  # KeyError: the path was removed meanwhile
            _logger.warning("! publishing a share: %s", error)


def _tell(share: _Share, event: Event) -> None:
    for emit in share.listeners:
        emit(event)
