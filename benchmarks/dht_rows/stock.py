"""The stock package ``kademlia``, unmodified, in the virtual world that our nodes run in.

Its ``Server`` asks its loop for a datagram endpoint and for time, nothing else; both are virtual
here. Chance is Python's global one, seeded; message identities are the system's, so runs are alike,
not equal. Links carry datagrams of any length: what stock nodes send is up to 8 KiB.

Stores of unmodified nodes set off stores (``welcome_if_new``), which may never end: after
``DATAGRAMS_MAX`` datagrams nothing is delivered any more and the network counts as stormed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kademlia.crawling import NodeSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node
from kademlia.utils import digest

from bytestag.crypto.identity import Address
from bytestag.sim.cluster import host_of
from bytestag.sim.conditions import Conditions
from bytestag.sim.endpoint import VirtualEndpoint
from bytestag.sim.world import World
from bytestag.sim.world import run as run_world

R = TypeVar("R")

PORT = 4000
DATAGRAMS_MAX = 1_000_000
JOINING_SHARE = 1 / 50
SETTLING_SECONDS = 30.0


class StockServer(Server):
    """An unmodified node, and where it is."""

    place: Address


class _Receiver:
    """Hands what arrives to an asyncio protocol."""

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def datagram_received(self, datagram: memoryview, address: Address) -> None:
        self._protocol.datagram_received(bytes(datagram), address)

    def burst_received(self, view: memoryview, stride: int, address: Address) -> None:
        for start in range(0, len(view), stride):
            self.datagram_received(view[start : start + stride], address)

    def wakeup_ended(self) -> None:
        """Nothing was put off."""


class _Transport:
    """What a stock node asks of asyncio's."""

    def __init__(self, endpoint: VirtualEndpoint, network: StockNetwork) -> None:
        self._endpoint = endpoint
        self._network = network

    def sendto(self, datagram: bytes, address: Address) -> None:
        if self._network.may_send():
            self._endpoint.send(datagram, (address[0], address[1]))

    def close(self) -> None:
        self._endpoint.close()


class StockNetwork:
    """Stock nodes that know each other."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.servers: list[StockServer] = []
        self.rng = random.Random(f"{seed} stock")
        self.has_stormed = False
        self._sent = 0
        world.loop.create_datagram_endpoint = self._open  # type: ignore[assignment, method-assign]

    def may_send(self) -> bool:
        """Count a datagram; return False once there were too many."""
        self._sent += 1
        self.has_stormed = self._sent > DATAGRAMS_MAX
        return not self.has_stormed

    @property
    def sent(self) -> int:
        """Datagrams so far."""
        return self._sent

    async def _open(self, factory: Callable[[], Any], local_addr: Address, **_: Any) -> Any:
        protocol = factory()
        endpoint = await self.world.network.open_endpoint(local_addr, _Receiver(protocol))
        transport = _Transport(endpoint, self)
        protocol.connection_made(transport)
        return transport, protocol

    async def join(self, nodes: int) -> None:
        """Let nodes join as ours do: a few at a time, each few through two that are there."""
        while len(self.servers) < nodes:
            known = [s.place for s in self.rng.sample(self.servers, min(2, len(self.servers)))]
            at_once = max(10, round(JOINING_SHARE * len(self.servers))) if self.servers else 1
            count = min(at_once, nodes - len(self.servers))
            await asyncio.gather(*(self._start(known) for _ in range(count)))
        await asyncio.sleep(SETTLING_SECONDS)

    async def _start(self, known: list[Address]) -> None:
        server = StockServer(node_id=self.rng.randbytes(20))
        server.place = (host_of(len(self.servers)), PORT)
        self.servers.append(server)
        await server.listen(PORT, server.place[0])
        if known:
            await server.bootstrap(known)

    def kill(self, share: float) -> None:
        """Let a share of all nodes die in this instant."""
        for server in self.rng.sample(self.servers, round(share * len(self.servers))):
            server.stop()
            self.servers.remove(server)

    def closest(
        self, key: bytes, count: int, *, without: Server | None = None
    ) -> list[StockServer]:
        """Return the live nodes that are truly closest to a digest."""
        goal = int.from_bytes(key, "big")
        others = [server for server in self.servers if server is not without]
        return sorted(others, key=lambda s: s.node.long_id ^ goal)[:count]

    async def look_up(self) -> tuple[float, bool]:
        """Look up a random key by a random node; return (seconds, is the closest first)."""
        server = self.rng.choice(self.servers)
        target = Node(self.rng.randbytes(20))
        began = self.world.loop.time()
        nearest = server.protocol.router.find_neighbors(target)
        found: list[Node] = []
        if nearest:
            crawl = NodeSpiderCrawl(server.protocol, target, nearest, server.ksize, server.alpha)
            found = await crawl.find()
        best = self.closest(target.id, 1, without=server)[0]
        return self.world.loop.time() - began, bool(found) and found[0].id == best.node.id

    async def set(self, key: str, value: bytes) -> bool:
        """Set a value by a random node."""
        try:
            return bool(await self.rng.choice(self.servers).set(key, value))
        except ValueError:  # all candidates were evicted
            return False

    async def get(self, key: str) -> bytes | None:
        """Get a value by a random node; None if it was not found."""
        found: bytes | None = await self.rng.choice(self.servers).get(key)
        return found

    def placed(self, key: str, count: int) -> float:
        """Return the share of the nodes closest to a key that have its value."""
        dkey = digest(key)
        return sum(dkey in server.storage.data for server in self.closest(dkey, count)) / count


def run(
    play: Callable[[StockNetwork], Coroutine[Any, Any, R]], seed: int, latency: float = 0.05
) -> R:
    """Play something with stock nodes in a fresh world."""
    logging.disable(logging.CRITICAL)
    random.seed(seed)

    async def main(world: World) -> R:
        world.loop.set_exception_handler(lambda loop, context: None)
        network = StockNetwork(world, seed)
        try:
            return await play(network)
        finally:
            for server in network.servers:
                server.stop()
            mine = asyncio.current_task()
            left = [task for task in asyncio.all_tasks() if task is not mine]
            for task in left:
                task.cancel()
            with contextlib.suppress(Exception):
                await asyncio.gather(*left, return_exceptions=True)

    return run_world(main, seed, Conditions(latency=latency, mtu_bytes=9000))
