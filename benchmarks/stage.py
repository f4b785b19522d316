"""Stage: the nodes of one trial, all joined or born when spoken to, and what is noted of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from benchmarks.report import Row
from bytestag.client import Client
from bytestag.config import K
from bytestag.crypto.identity import Address
from bytestag.errors import BytestagError
from bytestag.keys import KeyBytes
from bytestag.sim.census import Census
from bytestag.sim.checkers import Judge
from bytestag.sim.cluster import Cluster, Node
from bytestag.sim.population import Population
from bytestag.sim.world import World
from bytestag.tables.base import KVPID
from bytestag.tables.stores import Stores

if TYPE_CHECKING:
    from benchmarks.trials import Record

FULL_NODES_MAX = 10_000
"""Above, nodes are born when spoken to, unless the parameters say otherwise."""
JOINING = 10
JOINING_SHARE = 1 / 50
"""So many join at one time, or as many as this share of those that are there."""
KNOWN = 2
"""Nodes through which others join: one may go off meanwhile."""
SETTLING_SECONDS = 30.0
RETURNING_SECONDS = 600.0
"""Within it whoever came back in the last moment of a churn has joined."""
STOPPED = 10
"""Nodes that stop in order at the end, to see that nothing is left of them."""
LEAKS_NODES_MAX = 1000
"""To look for futures that are left is to look at all objects: seconds, and memory, for more."""
RESPONSE, DATA_PLANE = 0x01, 0x41
ACK_BYTES_MAX = 60
Progress = Callable[[str, int, int], None]
"""Is told what is done, how much of it, of how much."""


def silent(what: str, done: int, of: int) -> None:
    """Tell nobody."""


class Peer:
    """A node of a population; it is used as a :class:`Node` of a cluster is."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def node_id(self) -> KeyBytes:
        return self.client.identity.node_id

    @property
    def stores(self) -> Stores:
        return self.client.stores

    async def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Await work that the node does."""
        return await work


def as_node(node: Node | Peer) -> Node:
    """Return it for a workload, which asks nothing of a node that a :class:`Peer` has not."""
    return cast(Node, node)


class Stage:
    """The network of one trial."""

    def __init__(
        self, world: World, parameters: dict[str, Any], record: Record, progress: Progress
    ) -> None:
        self.world = world
        self.parameters = parameters
        self.rng = random.Random(f"{world.seed} stage")
        self.progress = progress
        self.began = world.loop.time()
        self.cluster: Cluster | None = None
        self.population: Population | None = None
        self.checker = Judge(Cluster(world))
        """Is told what is acknowledged and what is delivered."""
        self._record = record
        self._stack = contextlib.AsyncExitStack()

    def __getattr__(self, name: str) -> Any:
        """Return a parameter."""
        try:
            return self.parameters[name]
        except KeyError:
            raise AttributeError(name) from None

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.cluster is not None and error is None:  # in order it would take long, for nothing
            self.cluster.crash(*self.cluster.running)
        await self._stack.__aexit__(type_, error, traceback)
        if error is None and self.nodes <= LEAKS_NODES_MAX:
            self.checker.check_nothing_waits()

    async def judge_end(self) -> None:
        """Look at what the scenario leaves. Raises Wrong, Lost or Stuck.

        Containers of all nodes are within their bounds, what was acknowledged and has a holder can
        be read, and of nodes that stop in order nothing is left.
        """
        self.checker.check_bounds(self.population.clients if self.population is not None else ())
        if self.cluster is None:
            return
        if self.checker.promises and any(node.lives > 1 for node in self.cluster.nodes):
            await asyncio.sleep(RETURNING_SECONDS)
        await self.checker.check_readable(self.rng)
        for node in await self.some(STOPPED):
            assert isinstance(node, Node)
            await self.checker.stop(node)

    # --- What is noted ---------------------------------------------------------------------------

    def row(
        self, name: str, value: float, unit: str, op: str = "<=", target: float | None = None
    ) -> None:
        """Add a figure."""
        self._record.rows.append(Row(name, round(value, 4), unit, op, target))

    def judge(self, name: str, op: str, target: float) -> None:
        """Give a row that was added a target."""
        row = next(row for row in self._record.rows if row.name == name)
        self._record.rows[self._record.rows.index(row)] = Row(name, row.value, row.unit, op, target)

    def times(self, name: str, seconds: Sequence[float]) -> None:
        """Add the median and the 95th percentile of times, and their curve."""
        self.row(f"{name}_p50", percentile(seconds, 50), "s")
        self.row(f"{name}_p95", percentile(seconds, 95), "s")
        ordered = sorted(seconds)
        step = max(1, len(ordered) // 200)
        self.series(name, [[s, (i + 1) / len(ordered)] for i, s in enumerate(ordered)][::step])

    def series(self, name: str, points: Iterable[Sequence[float]]) -> None:
        """Add a curve."""
        self._record.series[name] = [[round(number, 6) for number in point] for point in points]

    @property
    def now(self) -> float:
        """Virtual seconds since the trial began."""
        return self.world.loop.time() - self.began

    @property
    def sent(self) -> tuple[int, int]:
        """Datagrams and bytes that were sent so far."""
        return self.world.network.counters["sent"], self.world.network.bytes_sent

    # --- Making the network ----------------------------------------------------------------------

    @property
    def is_population(self) -> bool:
        wanted = self.parameters.get("population", 0)
        return bool(wanted) if wanted >= 0 else self.nodes > FULL_NODES_MAX

    async def populate(self, *, dead_share: float = 0.0) -> None:
        """Make the network: all nodes join, or a population of which a share is dead."""
        if not self.is_population:
            await self.join(self.nodes)
            return
        census = Census(
            self.nodes, self.world.seed, lambda done, of: self.progress("census", done, of)
        )
        self.population = await self._stack.enter_async_context(
            Population(self.world, census, dead_share=dead_share)
        )

    async def join(self, nodes: int, **options: Any) -> list[Node]:
        """Let nodes join, a few at a time, each few through two that are there already."""
        if self.cluster is None:
            changes: dict[str, object] = {}
            if "repair_minutes" in self.parameters:
                changes["repair_seconds"] = round(60 * self.parameters["repair_minutes"])
            self.cluster = await self._stack.enter_async_context(
                Cluster(self.world, None, **changes)
            )
            self.checker = Judge(self.cluster)
        cluster = self.cluster
        started: list[Node] = []
        while len(started) < nodes:
            if not cluster.nodes:
                started.append(await cluster.start(**options))
            running = cluster.running
            known = [n.address for n in self.rng.sample(running, min(KNOWN, len(running)))]
            at_once = max(JOINING, round(JOINING_SHARE * len(running)))
            count = min(at_once, nodes - len(started))
            if count:
                started += await cluster.start_many(count, at_once=at_once, known=known, **options)
            self.progress("joining", len(started), nodes)
        return started

    # --- Nodes -----------------------------------------------------------------------------------

    @property
    def running(self) -> list[Node]:
        """The nodes of a cluster that run."""
        assert self.cluster is not None
        return self.cluster.running

    async def some(self, count: int) -> list[Node | Peer]:
        """Return live nodes at random, other ones if there are so many."""
        if self.population is None:
            return list(self.rng.sample(self.running, min(count, len(self.running))))
        chosen: dict[int, Peer] = {}
        while len(chosen) < min(count, self.nodes // 2):
            index = self.rng.randrange(self.nodes)
            if index not in chosen and not self.population.is_dead(index):
                chosen[index] = Peer(await self.population.wake(index))
        return list(chosen.values())

    def release(self, node: Node | Peer) -> None:
        """Say that a node of :meth:`some` is not needed any more."""
        if self.population is not None:
            index = self.population.census.index_of(node.client.address)
            assert index is not None
            self.population.release(index)

    def closest_ids(self, key: bytes, count: int = K, *, exclude: bytes = b"") -> list[bytes]:
        """Return the IDs of the live nodes that are truly closest to a key."""
        if self.population is None:
            assert self.cluster is not None
            near: list[bytes] = [n.node_id for n in self.cluster.true_closest(key, count + 1)]
        else:
            census = self.population.census
            near = [census.node_id(i) for i in self.population.closest(key, count + 1)]
        return [node_id for node_id in near if node_id != exclude][:count]

    def closest_stores(self, key: bytes, count: int, *, exclude: bytes) -> Sequence[Stores | None]:
        """Return what the live nodes closest to a key keep; None of one that never kept a thing."""
        if self.population is None:
            assert self.cluster is not None
            near = self.cluster.true_closest(key, count + 1)
            return [node.stores for node in near if node.node_id != exclude][:count]
        population = self.population
        chosen = population.closest(key, count + 1)
        others = [i for i in chosen if population.census.node_id(i) != exclude]
        return [population.stores(index) for index in others[:count]]

    def placed(self, kvpid: KVPID, count: int, *, exclude: bytes) -> float:
        """Return the share of the nodes closest to a value, its publisher apart, that have it."""
        near = self.closest_stores(kvpid.key, count, exclude=exclude)
        return sum(stores is not None and kvpid in stores.cache for stores in near) / len(near)

    def is_held(self, kvpid: KVPID) -> bool:
        """Whether a live node has a value."""
        if self.population is not None:
            near = self.closest_stores(kvpid.key, 8 * K, exclude=b"")
            return any(stores is not None and kvpid in stores.cache for stores in near)
        return any(kvpid in node.stores.cache for node in self.running)

    def kill(self, share: float) -> None:
        """Let a share of all nodes die in this instant."""
        if self.population is not None:
            self.population.kill(share)
            return
        assert self.cluster is not None
        running = self.running
        self.cluster.crash(*self.rng.sample(running, round(share * len(running))))

    def count_sent(self, node: Node | Peer) -> Callable[[], tuple[int, int]]:
        """Count what a node sends from now on; call the result for (requests, datagrams).

        Requests are the datagrams that ask or bring something: no replies, and none in a session
        that have room for an acknowledgement alone.
        """
        endpoint = node.client.protocol.endpoint
        assert endpoint is not None
        requests, datagrams, send = 0, 0, endpoint.send

        def counting(datagram: bytes, address: Address) -> None:
            nonlocal requests, datagrams
            datagrams += 1
            is_ack = datagram[0] == DATA_PLANE and len(datagram) <= ACK_BYTES_MAX
            requests += datagram[0] != RESPONSE and not is_ack
            send(datagram, address)

        endpoint.send = counting  # type: ignore[method-assign]
        return lambda: (requests, datagrams)


async def attempt(work: Coroutine[Any, Any, Any], clock: Callable[[], float]) -> tuple[Any, float]:
    """Return what work came to, None if it failed as nodes may fail, and how long it took."""
    began = clock()
    try:
        return await work, clock() - began
    except BytestagError:
        return None, clock() - began


def percentile(numbers: Iterable[float], percent: float) -> float:
    """Return the smallest of the numbers that so many percent do not exceed; 0 of none."""
    ordered = sorted(numbers)
    if not ordered:
        return 0.0
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]


def wall() -> float:
    """Return real seconds."""
    return time.perf_counter()
