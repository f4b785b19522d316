"""Checkers: judges that look at a cluster from outside and say what is wrong, lost or stuck
(composition).

They know what was promised (which values were acknowledged, until when) and who runs, which no node
knows. A failure ends with the command that replays it.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
from collections.abc import Callable, Iterable, Mapping

from bytestag.client import Client
from bytestag.config import HOUR, K
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.sim.bounds import measured
from bytestag.sim.cluster import Cluster, Node
from bytestag.sim.loop import VirtualLoop
from bytestag.sim.process import Killed, Process
from bytestag.sim.workload import get
from bytestag.tables.base import KVPID, Standing

EXPIRY_GRACE_SECONDS = 900
"""Upkeep expires what is past its time each ten minutes, a tenth later at most."""
GRANTED_GRACE_SECONDS = 2 * HOUR
"""Deposits count in whole hours, and a publisher asks for one more."""
CONVERGED_SECONDS = 60.0
CLOSEST_KNOWN = 3
RETRY_SECONDS = 5.0
IDLE_DATAGRAMS_PER_NODE_HOUR = 2000
SHOWN_MAX = 5


class CheckFailed(AssertionError):
    """A judge's verdict; ``exit_status`` tells its kind to programs."""

    exit_status = 1

    def __init__(self, message: str, replay: str = "") -> None:
        super().__init__(f"{message}\nreplay: {replay}" if replay else message)


class Wrong(CheckFailed):
    """Something happened that must never happen: a wrong byte, a bound exceeded."""

    exit_status = 21


class Lost(CheckFailed):
    """An acknowledged value cannot be read, though it has a holder."""

    exit_status = 22


class Stuck(CheckFailed):
    """Something does not come to its end: the network does not converge, a task is left."""

    exit_status = 23


class Judge:
    """Judges one cluster. ``replay`` is the command that does all of it again.

    ``is_reachable`` says of whom others can find anything: not of a node behind most NATs.
    """

    def __init__(
        self,
        cluster: Cluster,
        replay: str = "",
        *,
        is_reachable: Callable[[Node], bool] = lambda node: True,
    ) -> None:
        self.promises: dict[KVPID, float] = {}
        """Values that were acknowledged, and the wall clock seconds up to which each is kept."""
        self._known: dict[KVPID, bytes] = {}
        self._cluster = cluster
        self._replay = replay
        self._is_reachable = is_reachable
        self._runtime: Runtime = cluster.world.runtime("judge")

    def failure(self, kind: type[CheckFailed], message: str) -> CheckFailed:
        """Return a verdict that says how to replay it."""
        return kind(message, self._replay)

    # --- What was promised -----------------------------------------------------------------------

    def published(self, values: Mapping[KVPID, bytes]) -> None:
        """Somebody publishes values; nothing is promised yet, but no other bytes are right."""
        self._known.update(values)

    def acknowledged(self, values: Mapping[KVPID, bytes], keep_seconds: float) -> None:
        """Each of these values has a holder that said STORED, a moment ago."""
        self.published(values)
        self.promised(values, self._runtime.wall() + keep_seconds)

    def promised(self, kvpids: Iterable[KVPID], until: float = math.inf) -> None:
        """Values were acknowledged some time, whatever their bytes."""
        self.promises |= dict.fromkeys(kvpids, until)

    def delivered(self, kvpid: KVPID, value: bytes) -> None:
        """Bytes were handed to a user. Raises Wrong."""
        if value != self._known.get(kvpid, value) or KeyBytes.new_hash(value) != kvpid.index:
            raise self.failure(Wrong, f"{kvpid.key.base16} was delivered with wrong bytes")

    # --- At any time -----------------------------------------------------------------------------

    def check_bounds(self, others: Iterable[Client] = ()) -> None:
        """Raise Wrong if a container of a running node is larger than it may be.

        ``others`` are clients that no cluster has.
        """
        running = ((node, node.client) for node in self._cluster.running)
        for node, client in (*running, *((client.address, client) for client in others)):
            for size in measured(client):
                if not size.holds:
                    found = f"{size.size} in {size.name} of {node!r}, {size.most} at most"
                    raise self.failure(Wrong, found)

    def check_lifetimes(self) -> None:
        """Raise Wrong if a running node holds a row past its time, or longer than anybody asked.

        Nodes that came back or were thawed a moment ago have their grace from then.
        """
        now = self._runtime.wall()
        for node in self._running():
            awake = self._cluster.world.loop.time() - node.awake_since
            for kvpid in node.stores.cache:
                for record in node.stores.cache.records_by_key(kvpid.key):
                    late = min(now - record.expires, awake)
                    if late > EXPIRY_GRACE_SECONDS and record.standing is not Standing.ORIGINAL:
                        found = f"{node!r} holds a row {late:.0f} s past its time"
                        raise self.failure(Wrong, found)
                    until = self.promises.get(record.kvpid)
                    if until is None or record.standing is not Standing.KEPT:
                        continue
                    if record.expires > until + GRANTED_GRACE_SECONDS:
                        beyond = record.expires - until
                        found = f"{node!r} keeps a row {beyond:.0f} s longer than was asked"
                        raise self.failure(Wrong, found)

    # --- When all is healed ----------------------------------------------------------------------

    async def check_converged(
        self, rng: random.Random, *, seconds: float = CONVERGED_SECONDS, look_ups: int = 6
    ) -> float:
        """Return after how many seconds look-ups find the nodes that are truly closest.

        Raises Stuck if they do not within ``seconds``.
        """
        loop = self._cluster.world.loop
        began = loop.time()
        while True:
            missed = await self._missed_look_ups(rng, look_ups)
            if not missed:
                return loop.time() - began
            if loop.time() - began >= seconds:
                shown = "; ".join(missed[:SHOWN_MAX])
                raise self.failure(Stuck, f"not converged after {seconds:.0f} s: {shown}")
            await asyncio.sleep(min(RETRY_SECONDS, seconds))

    async def _missed_look_ups(self, rng: random.Random, count: int) -> list[str]:
        askers = rng.sample(running := self._running(), min(count, len(running)))
        targets = [rng.randbytes(20) for _ in askers]
        found = await asyncio.gather(*map(self._closest_found, askers, targets))
        missed = []
        for asker, target, ids in zip(askers, targets, found, strict=True):
            closest = self._cluster.true_closest(target, CLOSEST_KNOWN + 1, accept=self._counts)
            truth = [node.node_id for node in closest if node is not asker][:CLOSEST_KNOWN]
            if ids[: len(truth)] != truth:
                missed.append(f"{asker!r} looked for {target.hex()[:8]}")
        return missed

    async def _closest_found(self, asker: Node, target: bytes) -> list[bytes]:
        counted = {node.node_id for node in self._running() if self._counts(node)}
        try:
            outcome = await asker.run(asker.client.dht_network.lookup(target))
        except Killed:
            return []
        return [contact.id for contact in outcome.contacts if contact.id in counted]

    async def check_readable(self, rng: random.Random) -> int:
        """Read each promised value that has a holder, from a random node; return how many.

        One that nobody near its key holds is due only after repairs. Raises Lost, Wrong.
        """
        due = self._due()
        later = [k for k in due if not await self._is_read(k, rng) and not self._is_near(k)]
        if later:
            await asyncio.sleep(2.5 * self._cluster.config.repair_seconds)
        for kvpid in later:
            if kvpid in self._due():
                await self._is_read(kvpid, rng, is_due=True)
        return len(due)

    def _due(self) -> list[KVPID]:
        now = self._runtime.wall()
        return [k for k, until in self.promises.items() if until > now and self._holders(k)]

    async def _is_read(self, kvpid: KVPID, rng: random.Random, *, is_due: bool = False) -> bool:
        holders = self._holders(kvpid)
        readers = self._running()
        error: BytestagError | None = None
        for _ in range(2):
            reader = rng.choice([n for n in readers if n not in holders] or readers)
            try:
                self.delivered(kvpid, await get(reader, kvpid))
                return True
            except BytestagError as failure:
                error = failure
                await asyncio.sleep(RETRY_SECONDS)
        if not self._holders(kvpid) or self.promises[kvpid] <= self._runtime.wall():
            return True
        if not (is_due or self._is_near(kvpid)):
            return False
        found = f"{kvpid.key.base16} is held by {holders}, but {reader!r} cannot read it: {error}"
        raise self.failure(Lost, found)

    async def check_idle(
        self,
        seconds: float = HOUR,
        *,
        datagrams_per_node_hour: float = IDLE_DATAGRAMS_PER_NODE_HOUR,
    ) -> float:
        """Let nobody do anything for a while; return the datagrams sent per node and hour.

        Raises Wrong if there were more than the budget.
        """
        network = self._cluster.world.network
        before = network.counters["sent"]
        await asyncio.sleep(seconds)
        nodes = max(len(self._cluster.running), 1)
        sent = (network.counters["sent"] - before) / nodes / (seconds / HOUR)
        if sent > datagrams_per_node_hour:
            found = f"{sent:.0f} datagrams per node and hour though idle"
            raise self.failure(Wrong, f"{found}, {datagrams_per_node_hour:.0f} at most")
        return sent

    # --- When nodes end --------------------------------------------------------------------------

    async def stop(self, node: Node) -> None:
        """Stop a node, and look at what is left of it. Raises Stuck."""
        process = node.process
        await self._cluster.stop(node)
        self.check_stopped(process)

    def check_stopped(self, process: Process) -> None:
        """Raise Stuck if a process that ended has tasks, or anything is still called for it."""
        tasks = [f"{task.get_name()} {task.get_coro()}" for task in process.tasks]
        if tasks:
            raise self.failure(Stuck, f"tasks are left: {', '.join(tasks[:SHOWN_MAX])}")
        handles = self._cluster.world.loop.waiting_for(process)
        if handles:
            raise self.failure(Stuck, f"it is still called: {handles[:SHOWN_MAX]}")

    def check_nothing_waits(self) -> None:
        """Raise Stuck if a future is awaited that nobody will ever end; when all nodes ended."""
        waiting = _awaited(self._cluster.world.loop)
        if waiting:
            raise self.failure(Stuck, f"futures are left: {waiting[:SHOWN_MAX]}")

    # --- Who counts ------------------------------------------------------------------------------

    def _running(self) -> list[Node]:
        return [node for node in self._cluster.running if not node.is_frozen]

    def _counts(self, node: Node) -> bool:
        return self._is_reachable(node) and not node.is_frozen and not node.options.is_client

    def _holders(self, kvpid: KVPID) -> list[Node]:
        """Return who holds a value, can be found, and has time left for it."""
        now = self._runtime.wall()
        return [
            node
            for node in self._cluster.holders(kvpid)
            if self._counts(node)
            and any(record.expires > now for record in node.stores.cache.records_by_key(kvpid.key))
        ]

    def _is_near(self, kvpid: KVPID) -> bool:
        """Whether a holder is where a look-up must find it."""
        near = self._cluster.true_closest(kvpid.key, K, accept=self._counts)
        return any(node in near for node in self._holders(kvpid))


def _awaited(loop: VirtualLoop) -> list[asyncio.Future[object]]:
    gc.collect()
    current = asyncio.current_task(loop)
    found: Iterable[object] = gc.get_objects()
    return [
        future
        for future in found
        if isinstance(future, asyncio.Future)
        and not future.done()
        and future is not current
        and future.get_loop() is loop
        and future._callbacks
    ]
