"""Seeds: small random histories with every fault, each judged from outside (composition).

::

    python -m bytestag.sim.seeds 17 18 100-199 --jobs 2

prints a trace for each, and exits with the status of the first failure. A seed decides on the
nodes, the network, what users do and what breaks; in the end all is healed and judged.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from bytestag.config import DAY, HOUR
from bytestag.errors import BytestagError
from bytestag.sim.checkers import CheckFailed, Judge, Stuck
from bytestag.sim.cluster import Cluster, Node
from bytestag.sim.conditions import Conditions
from bytestag.sim.loop import Deadlock
from bytestag.sim.nat import NatBox, NatKind
from bytestag.sim.workload import get, put, random_values
from bytestag.sim.world import Leak, World, run
from bytestag.tables.base import KVPID

NODES_MIN, NODES_MAX = 6, 30
RUNNING_MIN = 4
STEPS_MIN, STEPS_MAX = 12, 30
PAUSE_SECONDS = 15.0
LONG_PAUSE_SECONDS = HOUR
UNDER_WAY_SECONDS = 900.0
"""Whatever users began ends within this time after all is healed."""
KEEP_SECONDS = (0, 2 * HOUR, DAY)
SIZES = (10, 800, 5_000, 60_000)
CHANCE_OF_FAULT = 0.6


@dataclass(frozen=True, slots=True)
class Played:
    """What one seed came to."""

    seed: int
    trace: str
    nodes: int
    promises: int
    read: int
    """Promised values that had a holder in the end, and were read."""
    converged_seconds: float
    virtual_seconds: float


def play(seed: int) -> Played:
    """Play one seed. Raises Wrong, Lost or Stuck."""
    replay = f"python -m bytestag.sim.seeds {seed}"

    async def main(world: World) -> Played:
        return await History(world, seed, replay).play()

    try:
        return run(main, seed)
    except (Deadlock, Leak) as error:
        raise Stuck(str(error), replay) from error


class History:
    """What happens in one seed."""

    def __init__(self, world: World, seed: int, replay: str) -> None:
        self._world = world
        self._seed = seed
        self._rng = random.Random(f"history {seed}")
        self._cluster = Cluster(world)
        self._judge = Judge(self._cluster, replay, is_reachable=self._is_reachable)
        self._hidden: set[int] = set()
        """Numbers of nodes behind a NAT, or that move: nobody needs to find what they hold."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None

    def _is_reachable(self, node: Node) -> bool:
        return node.number not in self._hidden

    async def play(self) -> Played:
        """Let it happen, heal everything, and judge."""
        began = self._world.loop.time()
        await self._begin()
        for _ in range(self._rng.randint(STEPS_MIN, STEPS_MAX)):
            await self._step()
            self._judge.check_bounds()
            self._judge.check_lifetimes()
        await self._heal()
        converged = await self._judge.check_converged(self._rng)
        await self._end_what_is_under_way()
        read = await self._judge.check_readable(self._rng)
        await self._judge.check_idle()
        self._judge.check_bounds()
        self._judge.check_lifetimes()
        for node in self._cluster.running:
            await self._judge.stop(node)
        self._judge.check_nothing_waits()
        return Played(
            self._seed,
            self._world.network.trace,
            len(self._cluster.nodes),
            len(self._judge.promises),
            read,
            converged,
            self._world.loop.time() - began,
        )

    # --- Beginning and end -----------------------------------------------------------------------

    async def _begin(self) -> None:
        rng, network = self._rng, self._world.network
        network.conditions.latency = 10 ** rng.uniform(-2.0, -0.8)
        await self._cluster.start_many(rng.randint(NODES_MIN, NODES_MAX))
        for kind in rng.sample(list(NatKind), rng.randint(0, 2)):
            number = len(self._cluster.nodes)
            network.put_behind(NatBox(kind, f"192.0.2.{number}"), [f"192.168.{number}.2"])
            self._hidden.add(number)
            await self._cluster.start(host=f"192.168.{number}.2", roams=True)
        if rng.random() < CHANCE_OF_FAULT:
            self._hidden.add(len(self._cluster.nodes))
            await self._cluster.start(roams=True)
        if rng.random() < CHANCE_OF_FAULT:
            await self._cluster.start(is_client=True, cache_bytes=0)
        network.conditions = self._bad(network.conditions.latency)

    def _bad(self, latency: float) -> Conditions:
        """Return conditions in which about half of what can go wrong does."""

        def chance(most: float) -> float:
            return self._rng.uniform(0, most) if self._rng.random() < CHANCE_OF_FAULT else 0.0

        return Conditions(
            latency=latency,
            jitter=chance(latency),
            loss=chance(0.1),
            duplication=chance(0.1),
            reordering=chance(0.2),
            corruption=chance(0.02),
            uplink_bytes_per_second=chance(1.0) and self._rng.uniform(50_000, 1_000_000),
        )

    async def _heal(self) -> None:
        network = self._world.network
        network.heal()
        network.end_overrides()
        network.conditions = Conditions(latency=network.conditions.latency)
        for node in self._cluster.running:
            self._cluster.thaw(node)

    async def _end_what_is_under_way(self) -> None:
        if self._under_way:
            _, left = await asyncio.wait(self._under_way, timeout=UNDER_WAY_SECONDS)
            if left:
                raise self._judge.failure(Stuck, f"it does not end: {sorted(map(repr, left))}")
        await asyncio.sleep(0)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._world.loop.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error

    # --- What happens ----------------------------------------------------------------------------

    async def _step(self) -> None:
        """Do one thing, and wait a while."""
        rng = self._rng
        happenings = {
            self._put: 5,
            self._get: 5,
            self._crash: 2,
            self._stop: 1,
            self._return: 3,
            self._freeze: 2,
            self._thaw: 2,
            self._partition: 2,
            self._heal_partition: 2,
            self._worsen: 1,
            self._move: 1,
        }
        chosen = rng.choices(list(happenings), list(happenings.values()))[0]
        await chosen()
        is_long = rng.random() < 0.1
        await asyncio.sleep(rng.expovariate(1 / (LONG_PAUSE_SECONDS if is_long else PAUSE_SECONDS)))
        if self._error is not None:
            raise self._error

    def _awake(self) -> list[Node]:
        return [node for node in self._cluster.running if not node.is_frozen]

    async def _put(self) -> None:
        node = self._rng.choice(self._awake())
        values = random_values(self._rng.randint(1, 6), self._rng.choice(SIZES), self._rng)
        self._judge.published(values)
        self._start(self._put_later(node, values))

    async def _put_later(self, node: Node, values: dict[KVPID, bytes]) -> None:
        rng = random.Random(f"{self._seed} {min(values)}")
        copies, keep = rng.randint(2, 8), rng.choice(KEEP_SECONDS)
        try:
            outcome = await put(node, values, copies=copies, keep_seconds=keep)
        except BytestagError:
            return
        if outcome.copies_min:
            granted = (outcome.granted_hours_min or 0) * HOUR if keep else 0
            self._judge.acknowledged(values, min(keep, granted))

    async def _get(self) -> None:
        if self._judge.promises:
            kvpid = self._rng.choice(sorted(self._judge.promises))
            self._start(self._get_later(self._rng.choice(self._awake()), kvpid))

    async def _get_later(self, node: Node, kvpid: KVPID) -> None:
        try:
            value = await get(node, kvpid)
        except BytestagError:  # while things are broken that may be
            return
        self._judge.delivered(kvpid, value)

    async def _crash(self) -> None:
        count = min(self._rng.randint(1, 4), len(self._awake()) - RUNNING_MIN)
        if count > 0:
            self._cluster.crash(*self._rng.sample(self._cluster.running, count))

    async def _stop(self) -> None:
        if len(self._awake()) > RUNNING_MIN:
            await self._judge.stop(self._rng.choice(self._awake()))

    async def _return(self) -> None:
        gone = [node for node in self._cluster.nodes if not node.is_running]
        if gone:
            with_state = self._rng.random() < 0.8
            await self._cluster.come_back(self._rng.choice(gone), with_state=with_state)

    async def _freeze(self) -> None:
        if len(self._awake()) > RUNNING_MIN:
            self._cluster.freeze(self._rng.choice(self._awake()))

    async def _thaw(self) -> None:
        for node in self._cluster.running:
            self._cluster.thaw(node)

    async def _partition(self) -> None:
        hosts = [node.host for node in self._cluster.nodes]
        cut = self._rng.sample(hosts, self._rng.randint(1, len(hosts) // 2))
        others = [host for host in hosts if host not in cut]
        self._world.network.partition(cut, others, one_way=self._rng.random() < 0.3)

    async def _heal_partition(self) -> None:
        self._world.network.heal()

    async def _worsen(self) -> None:
        hosts = [node.host for node in self._rng.sample(self._cluster.nodes, 3)]
        bad = Conditions(latency=0.5, loss=self._rng.uniform(0.1, 0.6))
        self._world.network.override(hosts[:1], hosts[1:], bad)

    async def _move(self) -> None:
        roamers = [n for n in self._cluster.nodes if n.options.address[0] != n.host]
        roamers = [n for n in roamers if not n.host.startswith("192.168.")]
        if roamers:
            self._cluster.move(self._rng.choice(roamers))


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the seeds of the command line; return the exit status of the first failure."""
    parser = argparse.ArgumentParser(prog="python -m bytestag.sim.seeds", description=__doc__)
    parser.add_argument("seeds", type=_range, nargs="+", metavar="SEED|FIRST-LAST")
    parser.add_argument("--jobs", type=int, default=1, help="how many are played at one time")
    given = parser.parse_args(arguments)
    seeds = [seed for part in given.seeds for seed in part]
    status = 0
    for ended in _ends(seeds, given.jobs):
        if isinstance(ended, CheckFailed):
            print(f"{type(ended).__name__}: {ended}", file=sys.stderr)
            status = status or ended.exit_status
        else:
            print(ended, flush=True)
    return status


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _ends(seeds: Sequence[int], jobs: int) -> Iterator[Played | CheckFailed]:
    """Yield how each seed ends, in their order."""
    if jobs <= 1:
        yield from map(_end, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_end, seeds)


def _end(seed: int) -> Played | CheckFailed:
    logging.getLogger("bytestag").setLevel(logging.ERROR)  # nodes warn of what we do to them
    try:
        return play(seed)
    except CheckFailed as failure:
        return failure


if __name__ == "__main__":
    sys.exit(main())
