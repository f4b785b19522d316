"""Population: nodes of a large network that come to life when somebody talks to them (shell).

::

    async def main(world):
        async with Population(world, Census(10_000_000)) as population:
            client = await population.wake(4711)
            await client.dht_network.lookup(key)

Whoever is sent a datagram is born then: a real :class:`Client` whose real routing table holds what
it would hold in a network that has long been at rest. The buckets follow from the census by the
table's own rule; who is in one is drawn, from a hash of the seed, when it is first looked into. A
node that was left alone for a while is put to sleep when others are born; what it stored is kept,
what it learnt since is not.

What this cannot tell: how tables come to be as they are, and what the nodes do that nobody asked.
Nobody joins, refreshes or repairs by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from types import TracebackType
from typing import NamedTuple, Self

from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.config import Config, K
from bytestag.crypto.identity import DONOR, Address, Card, make_card
from bytestag.dht.routing import SPARES_MAX, Bucket, Contact
from bytestag.errors import Unreachable
from bytestag.hashing import blake3
from bytestag.keys import BIT_SIZE
from bytestag.sim.census import Census
from bytestag.sim.network import VirtualNetwork
from bytestag.sim.world import World
from bytestag.tables.stores import Stores, memory_stores

AWAKE_MAX = 2000
IDLE_SECONDS = 5.0
"""Longer than a call takes to fail, so that nobody who sleeps is waited for."""
SPLIT_EVERY = 5
"""A bucket splits unless its depth is a multiple of this: :mod:`bytestag.dht.routing`."""
DRAWN_REMEMBERED_MAX = 200_000
CARDS_REMEMBERED_MAX = 50_000
LEAVES_REMEMBERED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class _Named:
    """What all contacts of one node have in common; thousands may stand in others' tables."""

    index: int
    node_id: bytes
    address: Address


class SeededContact(Contact):
    """A contact whose card is signed when somebody looks at it."""

    __slots__ = ("_card", "_index", "_make_card")

    def __init__(self, named: _Named, now: float, make_card: Callable[[int], Card]) -> None:
        self._card: Card | None = None
        self._index = named.index
        self._make_card = make_card
        super().__init__(named.node_id, named.address, capabilities=DONOR, last_seen=now)

    @property
    def card(self) -> Card:
        if self._card is None:
            self._card = self._make_card(self._index)
        return self._card

    @card.setter
    def card(self, card: Card | None) -> None:
        self._card = card


class _Leaf(NamedTuple):
    """A bucket's range, as IDs and as ranks."""

    low: int
    high: int
    first: int
    end: int


Draw = Callable[["SeededBucket", int, int], OrderedDict[bytes, Contact]]


class SeededBucket(Bucket):
    """A bucket whose contacts are drawn when somebody looks at them."""

    def __init__(self, leaf: _Leaf, now: float, draw: Draw) -> None:
        super().__init__(leaf.low, leaf.high, K)
        self.last_updated = now
        self.leaf = leaf
        self._draw = draw
        del self.nodes, self.replacement_nodes

    @cached_property
    def nodes(self) -> OrderedDict[bytes, Contact]:  # type: ignore[override]
        return self._draw(self, 0, K)

    @cached_property
    def replacement_nodes(self) -> OrderedDict[bytes, Contact]:  # type: ignore[override]
        return self._draw(self, K, K + SPARES_MAX)


@dataclass(slots=True)
class _Life:
    """One node from its birth until it goes to sleep."""

    born: asyncio.Future[Client]
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    last_seconds: float = 0.0
    """When it was last sent something."""
    is_pinned: bool = False


class PopulatedNetwork(VirtualNetwork):
    """A network that knows whom to wake when nobody is bound to an address."""

    wake: Callable[[Address], bool] = staticmethod(lambda address: False)
    """Is told of each datagram that arrives; returns whether somebody will be there at once."""

    def _deliver(self, destination: Address, when: float) -> None:
        if self.wake(destination) and destination not in self._endpoints:
            self._loop.call_soon(super()._deliver, destination, when)
        else:
            super()._deliver(destination, when)


class Population:
    """The nodes of a census in a world, alive or not.

    It takes the place of the world's network, so make it before anything is bound. ``dead_share``
    of the nodes stand in the others' tables and never answer, as after a power cut.
    """

    def __init__(
        self,
        world: World,
        census: Census,
        settings: Config | None = None,
        *,
        dead_share: float = 0.0,
        awake_max: int = AWAKE_MAX,
    ) -> None:
        self.census = census
        self.config = settings or config.local()
        self.births = 0
        self._world = world
        self._dead_below = int(dead_share * 2**32)
        self._awake_max = awake_max
        self._group = asyncio.TaskGroup()
        self._lives: OrderedDict[int, _Life] = OrderedDict()
        self._stores: dict[int, Stores] = {}
        self._options = ClientOptions(is_donor=True)
        self._named = lru_cache(DRAWN_REMEMBERED_MAX)(self._name)
        self._leaves = lru_cache(LEAVES_REMEMBERED_MAX)(self._make_leaves)
        self._card = lru_cache(CARDS_REMEMBERED_MAX)(self._make_card)
        self._network = PopulatedNetwork(world.loop, world.seed, world.network.conditions)
        self._network.wake = self._wake_at
        assert not world.network.endpoints, "a population comes first"
        world.network = self._network

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._network.wake = lambda address: False
        for life in self._lives.values():
            life.ends.set()
        await self._group.__aexit__(type_, error, traceback)

    # --- Getters ---------------------------------------------------------------------------------

    @property
    def awake(self) -> int:
        """How many nodes are alive now."""
        return len(self._lives)

    @property
    def clients(self) -> list[Client]:
        """The nodes that are alive now."""
        return [life.born.result() for life in self._lives.values() if life.born.done()]

    def is_dead(self, index: int) -> bool:
        """Whether a node never answers."""
        if not self._dead_below:
            return False
        drawn = blake3(f"{self._world.seed} dead {index}".encode())[:4]
        return int.from_bytes(drawn, "big") < self._dead_below

    def closest(self, key: bytes, count: int) -> list[int]:
        """Return the indices of the live nodes that are truly closest to a key, closest first."""
        return self.census.closest(key, count, lambda index: not self.is_dead(index))

    def stores(self, index: int) -> Stores | None:
        """Return what a node keeps, if it ever kept anything."""
        return self._stores.get(index)

    # --- Life ------------------------------------------------------------------------------------

    async def wake(self, index: int) -> Client:
        """Return a live node, which stays awake from now on; raises Unreachable if it is dead."""
        if self.is_dead(index):
            raise Unreachable(f"node {index} is dead")
        life = self._lives.get(index) or self._begin(index)
        life.is_pinned = True
        return await asyncio.shield(life.born)

    def release(self, index: int) -> None:
        """Let a node that was woken go to sleep when it is idle."""
        self._lives[index].is_pinned = False

    def kill(self, share: float) -> None:
        """Let a share of all nodes die in this instant, those that live among them."""
        self._dead_below = int(share * 2**32)
        for index in [index for index in self._lives if self.is_dead(index)]:
            life = self._lives.pop(index)
            endpoint = life.born.result().protocol.endpoint if life.born.done() else None
            if endpoint is not None:
                endpoint.close()  # before it could say goodbye
            life.ends.set()

    def _wake_at(self, address: Address) -> bool:
        """Somebody is sent a datagram."""
        index = self.census.index_of(address)
        if index is None or self.is_dead(index):
            return False
        life = self._lives.get(index) or self._begin(index)
        life.last_seconds = self._world.loop.time()
        self._lives.move_to_end(index)
        return True

    def _begin(self, index: int) -> _Life:
        life = self._lives[index] = _Life(self._world.loop.create_future())
        life.last_seconds = self._world.loop.time()
        if len(self._lives) > self._awake_max:
            self._put_to_sleep()
        self._group.create_task(self._live(index, life), name=f"node {index}")
        return life

    async def _live(self, index: int, life: _Life) -> None:
        self.births += 1
        census = self.census
        runtime = self._world.runtime(f"population {index} {self.births}")
        identity = census.identity(index)
        stores = self._stores.get(index)
        if stores is None:
            stores = memory_stores(self.config.cache_bytes, identity.node_id, runtime.wall)
            stores.state = None  # its contacts would be saved: all of them drawn and signed for
            self._stores[index] = stores
        options = ClientOptions(
            census.address(index), is_donor=True, open_endpoint=self._world.network.open_endpoint
        )
        async with Client(identity, stores, options, self.config, runtime) as client:
            for upkeep in client._tasks:  # it is as if it had been at rest when it was spoken to
                upkeep.cancel()
            self._fill(client, index)
            life.born.set_result(client)
            await life.ends.wait()
        if self._lives.get(index) is None and not (len(stores.cache) or len(stores.providers)):
            self._stores.pop(index, None)

    def _put_to_sleep(self) -> None:
        """End the longest idle lives that nobody needs, until there are few enough."""
        before = self._world.loop.time() - IDLE_SECONDS
        for index, life in list(self._lives.items()):
            if len(self._lives) <= self._awake_max or life.last_seconds > before:
                return
            is_needed = life.is_pinned or not life.born.done() or len(life.born.result().sessions)
            if not is_needed:
                del self._lives[index]
                life.ends.set()

    # --- Tables ----------------------------------------------------------------------------------

    def _fill(self, client: Client, index: int) -> None:
        """Give a newborn the routing table that it would have."""
        own = int.from_bytes(client.identity.node_id, "big")
        now = self._world.loop.time()
        draw = partial(self._draw, index)
        router = client.protocol.router
        router.buckets = [SeededBucket(leaf, now, draw) for leaf in self._leaves_of(own, 0)]
        router._highs = [bucket.range[1] for bucket in router.buckets]

    def _leaves_of(self, own: int, depth: int) -> list[_Leaf]:
        """Return the buckets of the subtree of this depth that holds us: full ones split."""
        prefix = own >> (BIT_SIZE - depth)
        first, end = self.census.ranks(prefix, depth)
        if end - first - 1 <= K:
            return [_leaf(prefix, depth, first, end)]
        ours = self._leaves_of(own, depth + 1)
        sibling = own >> (BIT_SIZE - depth - 1) ^ 1
        others = self._leaves(sibling, depth + 1)
        return [*others, *ours] if sibling < sibling ^ 1 else [*ours, *others]

    def _make_leaves(self, prefix: int, depth: int) -> list[_Leaf]:
        """Return the buckets of a subtree that does not hold us: full ones split where they may."""
        first, end = self.census.ranks(prefix, depth)
        if end - first > K and depth % SPLIT_EVERY:
            halves = (2 * prefix, 2 * prefix + 1)
            return [leaf for half in halves for leaf in self._leaves(half, depth + 1)]
        return [_leaf(prefix, depth, first, end)]

    def _draw(
        self, index: int, bucket: SeededBucket, begin: int, stop: int
    ) -> OrderedDict[bytes, Contact]:
        """Return the contacts of a bucket or its spares: those drawn ``begin``-th to ``stop``-th.

        ``index`` tells whose bucket; he does not stand in it.
        """
        _, _, first, end = bucket.leaf
        chance = random.Random(hash((index, first, end, self._salt)))
        ranks = chance.sample(range(first, end), min(end - first, K + SPARES_MAX + 1))
        chosen = [self.census.index_at(rank) for rank in ranks[: stop + 1]]
        if index in chosen:
            chosen.remove(index)
        named = map(self._named, chosen[begin:stop])
        now, make_card = bucket.last_updated, self._card
        return OrderedDict((n.node_id, SeededContact(n, now, make_card)) for n in named)

    @cached_property
    def _salt(self) -> int:
        """What the seed adds to the draws; hashes of strings differ between processes."""
        return int.from_bytes(blake3(f"{self._world.seed} tables".encode())[:8], "big")

    def _name(self, index: int) -> _Named:
        return _Named(index, self.census.node_id(index), self.census.address(index))

    def _make_card(self, index: int) -> Card:
        identity = self.census.identity(index)
        wall = self._world.runtime("cards").wall()
        address = self.census.address(index)
        return make_card(identity, self.config.network_id, [address], DONOR, wall)


def _leaf(prefix: int, depth: int, first: int, end: int) -> _Leaf:
    size = 1 << (BIT_SIZE - depth)
    return _Leaf(prefix * size, (prefix + 1) * size - 1, first, end)
