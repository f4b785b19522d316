"""Cluster: real nodes in a virtual world, which start, stop, crash, freeze and come back
(composition).

::

    async def main(world: World) -> None:
        async with Cluster(world) as cluster:
            await cluster.start_many(50)
            node = cluster.nodes[7]
            outcome = await node.run(node.client.dht_network.find_value(key))
            cluster.crash(node)
            await cluster.come_back(node)

Each life of a node is a :class:`bytestag.sim.process.Process`. What outlives it is what lies on a
machine's disk: its key and its tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from bytestag import config as configs
from bytestag.client import Client, ClientOptions
from bytestag.config import Config
from bytestag.crypto.identity import Address, Identity
from bytestag.errors import Unreachable
from bytestag.keys import KeyBytes
from bytestag.sim.endpoint import VirtualEndpoint
from bytestag.sim.process import Process, kill
from bytestag.sim.world import World
from bytestag.tables.base import KVPID
from bytestag.tables.stores import Stores, memory_stores

R = TypeVar("R")

PORT = 4000
EVERYWHERE = "0.0.0.0"  # noqa: S104  # no socket is bound to it
HOSTS_PER_NET = 250
MOVED_NUMBER = 200 * 256 * HOSTS_PER_NET  # from 10.200.0.1 on: no cluster is that large
CACHE_BYTES = 2**30
AT_ONCE = 10
"""Nodes that join at one time: those that join in one instant know nothing of each other."""
NEW_KNOWN = 2
JOIN_ROUNDS_MAX = 5
JOIN_PAUSE_SECONDS = 2.0


class Node:
    """One machine of a cluster, over all its lives."""

    def __init__(
        self,
        world: World,
        number: int,
        identity: Identity,
        stores: Stores,
        options: ClientOptions,
        config: Config,
        host: str,
    ) -> None:
        self.number = number
        self.host = host
        """Where its machine is; changed by :meth:`move`."""
        self.identity = identity
        self.stores = stores
        self.options = options
        self.config = config
        self.lives = 0
        """How often it was started."""
        self.awake_since = 0.0
        """Loop time of its last start or thaw."""
        self.endpoint: VirtualEndpoint | None = None
        self._world = world
        self._client: Client | None = None
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.identity.node_id.base16[:8]} {self.host}>"

    @property
    def address(self) -> Address:
        """Where it is in the network, running or not; behind a NAT this is its inner address."""
        return (self.host, self.options.address[1])

    @property
    def node_id(self) -> KeyBytes:
        return self.identity.node_id

    @property
    def client(self) -> Client:
        """The running node; only while it runs."""
        assert self._client is not None, f"{self!r} does not run"
        return self._client

    @property
    def process(self) -> Process:
        """Its current life; only while it runs."""
        assert self._process is not None, f"{self!r} does not run"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether it was started and neither stopped nor crashed; it may be frozen."""
        return self._client is not None

    @property
    def is_frozen(self) -> bool:
        return self._process is not None and self._process.is_frozen

    async def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Await work that the node does, such as one of its client's methods.

        It ends with the node: raises Killed if that crashes meanwhile. What is called in another
        way belongs to the caller, and a crash would not end it.
        """
        return await self.process.run(work)

    # --- Lives -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin a life; what it knows it has from its tables."""
        assert not self.is_running
        self.lives += 1
        self.awake_since = self._world.loop.time()
        process = Process(self._world.loop)
        runtime = self._world.runtime(f"node {self.number} life {self.lives}")
        network = self._world.network
        options = replace(self.options, open_endpoint=network.opener(self.host))
        client = Client(self.identity, self.stores, options, self.config, runtime)
        self._client, self._process = client, process
        await process.run(client.__aenter__())
        self.endpoint = client._endpoint if isinstance(client._endpoint, VirtualEndpoint) else None

    async def stop(self) -> None:
        """End a life in order; a frozen node goes on first."""
        client, process = self.client, self.process
        self.thaw()
        self._client = self._process = None
        await process.run(client.__aexit__(None, None, None))

    def crash(self) -> Process:
        """Cut the node off; return its process, which is to be killed."""
        process = self.process
        if self.endpoint is not None:
            self.endpoint.close()
        self._client = self._process = self.endpoint = None
        return process

    def move(self, host: str) -> None:
        """Give its machine another address; it is told by nobody but its peers.

        A node that was not started with ``roams`` sticks to the old one in what it says of itself.
        """
        self.host = host
        if self.endpoint is not None:
            self._world.network.move(self.endpoint, host)

    def freeze(self) -> None:
        """Let it stand still, as SIGSTOP would: datagrams queue up, up to a bound."""
        if self.endpoint is not None:
            self.endpoint.hold()
        self.process.freeze()

    def thaw(self) -> None:
        """Let it go on: its timers are late, its datagrams old. Idempotent."""
        if self.is_frozen:
            self.awake_since = self._world.loop.time()
        self.process.thaw()
        if self.endpoint is not None:
            self.endpoint.release()


class Cluster:
    """Starts nodes at 10.x addresses, and stops at the end those that run.

    ``config`` is that of all nodes unless ``base`` says otherwise for one; ``changes`` are fields
    of it.
    """

    def __init__(self, world: World, config: Config | None = None, **changes: object) -> None:
        self.world = world
        self.config = (config or configs.local()).replace(**changes)
        self.nodes: list[Node] = []
        """All that were ever started, in order."""
        self._moves = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for node in reversed(self.running):
            await self.stop(node)

    @property
    def running(self) -> list[Node]:
        """The nodes that were started and neither stopped nor crashed, frozen ones among them."""
        return [node for node in self.nodes if node.is_running]

    # --- Starting --------------------------------------------------------------------------------

    async def start(
        self,
        *,
        known: Iterable[Address] | None = None,
        cache_bytes: int = CACHE_BYTES,
        joins: bool = True,
        stores: Stores | None = None,
        identity: Identity | None = None,
        host: str | None = None,
        port: int = PORT,
        base: Config | None = None,
        roams: bool = False,
        **options: Any,
    ) -> Node:
        """Start one node; it joins through ``known``, or through the first node of the cluster.

        ``cache_bytes`` is the space it gives, 0 makes it no donor. One that ``roams`` is bound to
        0.0.0.0 and learns from others where it is, as behind a NAT or on a machine that moves.
        ``options`` are fields of :class:`bytestag.client.ClientOptions`. Raises Unreachable if it
        joins and nobody answers.
        """
        number = len(self.nodes)
        runtime = self.world.runtime(f"node {number}")
        identity = identity or Identity.generate(runtime.token_bytes)
        stores = stores or memory_stores(cache_bytes, identity.node_id, runtime.wall)
        if known is None:
            known = [first.address for first in self.nodes[:1]]
        host = host or host_of(number)
        made = ClientOptions(
            address=(EVERYWHERE if roams else host, port),
            known_nodes=tuple(known),
            **{"is_donor": cache_bytes > 0, **options},
        )
        config = (base or self.config).replace(cache_bytes=cache_bytes)
        node = Node(self.world, number, identity, stores, made, config, host)
        self.nodes.append(node)
        await node.start()
        if joins and made.known_nodes:
            await node.run(node.client.join())
        return node

    async def start_many(self, count: int, *, at_once: int = AT_ONCE, **options: Any) -> list[Node]:
        """Start nodes, ``at_once`` at a time, the first of a cluster alone; return them."""
        started: list[Node] = []
        if count and not self.nodes:
            started.append(await self.start(**options))
        while len(started) < count:
            size = min(at_once, count - len(started))
            started += await asyncio.gather(*(self.start(**options) for _ in range(size)))
        return started

    async def come_back(
        self,
        node: Node,
        *,
        with_state: bool = True,
        joins: bool = True,
        known: Iterable[Address] | None = None,
    ) -> None:
        """Start a node again, as the same with what it had, or empty and as somebody new.

        It joins through the contacts it remembers and its known nodes; an empty one, whom its known
        nodes may have left, through two others that run as well. It tries a few times, and leaves
        the rest to its upkeep.
        """
        if known is not None:
            node.options = replace(node.options, known_nodes=tuple(known))
        if not with_state:
            runtime = self.world.runtime(f"node {node.number} after life {node.lives}")
            node.identity = Identity.generate(runtime.token_bytes)
            node.stores = memory_stores(
                node.config.cache_bytes, node.identity.node_id, runtime.wall
            )
            others = sorted(self.running, key=lambda n: n.number)
            chosen = runtime.rng.sample(others, min(len(others), NEW_KNOWN)) if not known else []
            met = (*node.options.known_nodes, *(other.address for other in chosen))
            node.options = replace(node.options, known_nodes=tuple(dict.fromkeys(met)))
        await node.start()
        for _ in range(JOIN_ROUNDS_MAX if joins else 0):
            try:
                await node.run(node.client.join())
            except Unreachable:
                await asyncio.sleep(JOIN_PAUSE_SECONDS)
            else:
                return

    # --- Ending ----------------------------------------------------------------------------------

    async def stop(self, node: Node) -> None:
        """Stop a node in order, if it runs."""
        if node.is_running:
            await node.stop()

    def crash(self, *nodes: Node) -> None:
        """Kill nodes, as SIGKILL or a power cut would, in one instant; those that run."""
        kill(self.world.loop, [node.crash() for node in nodes if node.is_running])

    def move(self, node: Node) -> None:
        """Give a node's machine an address that nobody had before."""
        self._moves += 1
        node.move(host_of(MOVED_NUMBER + self._moves))

    def freeze(self, node: Node) -> None:
        """Let a node stand still; idempotent."""
        node.freeze()

    def thaw(self, node: Node) -> None:
        """Let a frozen node go on; idempotent."""
        node.thaw()

    # --- Looking from outside --------------------------------------------------------------------

    def true_closest(
        self, key: bytes, count: int, *, accept: Callable[[Node], bool] = lambda node: True
    ) -> list[Node]:
        """Return the running nodes closest to a key, closest first, by looking at all of them."""
        accepted = [node for node in self.running if accept(node)]
        return sorted(accepted, key=lambda n: n.node_id.distance_int(KeyBytes(key)))[:count]

    def holders(self, kvpid: KVPID) -> list[Node]:
        """Return the running nodes whose table has a value."""
        return [node for node in self.running if kvpid in node.stores.cache]


def host_of(number: int) -> str:
    """Return the host of a cluster's n-th node."""
    block, low = divmod(number, HOSTS_PER_NET)
    return f"10.{block // 256}.{block % 256}.{low + 1}"
