import asyncio
import contextlib
import random

import pytest

from bytestag.daemon.nodes import open_node
from bytestag.daemon.settings import NodeSettings
from bytestag.events.runtime import system_runtime
from bytestag.gateway.control import ControlDoor
from bytestag.gateway.door import Door
from bytestag.gateway.place import DoorPlace
from bytestag.gateway.shares import Shares
from bytestag.gateway.sharing import ShareOrder


@pytest.fixture
def source(tmp_path):
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "a.txt").write_bytes(b"hello")
    (directory / "big").write_bytes(random.Random(3).randbytes(300_000))
    return directory


class Opened:
    """A node with its door, and a thread's worth of asking."""

    def __init__(self, client, shares, control, door, runtime):
        self.client = client
        self.shares = shares
        self.control = control
        self.door = door
        self.runtime = runtime

    async def ask(self, method, path, /, **query):
        return await self.runtime.offload(self.door.ask, method, path, **query)

    async def stream(self, path, body, stop_at="result"):
        """Return the events up to the first of a type; then hang up."""

        def listen():
            events = []
            stream = self.door.stream(path, body)
            with contextlib.closing(stream):
                for event in stream:
                    events.append(event)
                    if event["type"] == stop_at:
                        break
            return events

        async with asyncio.timeout(30):
            return await self.runtime.offload(listen)


@pytest.fixture
def opened(tmp_path):
    """Run ``await check(opened)`` with a node whose door is open."""

    def run(check, *, is_unix=True, directory=None, name="node", known_nodes=()):
        async def main():
            runtime = system_runtime(8)
            state = directory or tmp_path / name
            settings = NodeSettings(
                host="127.0.0.1",
                state_directory=state,
                cache_bytes=2**26,
                known_nodes=tuple(known_nodes),
            )
            order = ShareOrder(tmp_path, copies=8, keep_seconds=86_400)
            try:
                async with (
                    open_node(settings, runtime, is_donor=True) as client,
                    asyncio.TaskGroup() as group,
                ):
                    shares = Shares(client, group, order)
                    await shares.restore([], is_hashed=False)
                    place = DoorPlace(state / "run")
                    async with ControlDoor(
                        client, shares, order, place, is_unix=is_unix
                    ) as control:
                        await client.join()
                        door = Door.find(state)
                        assert door is not None
                        await check(Opened(client, shares, control, door, runtime))
                    shares.close()
            finally:
                runtime.close()

        asyncio.run(main())

    return run
