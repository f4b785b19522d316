"""Values over a network that loses, repeats, reorders and spoils; strangers who inject datagrams.

What comes is right to the bit, or does not come. The seeds beyond the first ten, and the million of
datagrams, are for ``.ci/run long``.
"""

import asyncio
import random
from collections import Counter

import pytest

from bytestag.errors import Corrupt, Timeout
from bytestag.network.handshake import CONTROL, INIT, UNIT
from bytestag.sim import Conditions, run
from tests.network.nodes import fetch, nodes
from tests.network.test_sessions import tap

BAD = Conditions(
    latency=0.02, loss=0.2, duplication=0.05, reordering=0.05, jitter=0.01, corruption=0.001
)
SEEDS_AT_ONCE = 10
TRIES = 20


async def fetch_patiently(node, peer, key, length):
    """Ask again when a unit was spoiled or nobody answered, as every fetcher does."""
    for _ in range(TRIES):
        try:
            found = await fetch(node, peer, key, length)
        except (Corrupt, Timeout):
            continue
        return bytes(found.value)
    raise AssertionError(f"no value in {TRIES} tries")


def fetch_over_bad_paths(seed):
    """Fetch three values at once, two from one holder; return what was wanted, got, and counted."""

    async def main(world):
        alice, *holders = await nodes(world, 3)
        rng = random.Random(seed)
        values = [rng.randbytes(rng.choice([1, 1000, 70_000, 262_144, 1_000_000])) for _ in "abc"]
        holders = [holders[0], holders[0], holders[1]]
        keys = [holder.hold(value) for holder, value in zip(holders, values, strict=True)]
        got = await asyncio.gather(
            *(
                fetch_patiently(alice, holder.peer(), key, len(value))
                for holder, key, value in zip(holders, keys, values, strict=True)
            )
        )
        faults = ("lost", "duplicated", "reordered", "corrupted")
        return values, got, [world.network.counters[fault] for fault in faults]

    return run(main, seed=seed, conditions=BAD)


@pytest.mark.parametrize("seed", range(SEEDS_AT_ONCE))
def test_what_is_fetched_over_bad_paths_is_right_to_the_bit(seed):
    wanted, got, _ = fetch_over_bad_paths(seed)
    assert got == wanted


@pytest.mark.long
def test_two_hundred_seeds_of_bad_paths_bring_what_is_right_to_the_bit():
    happened = []
    for seed in range(200):
        wanted, got, counts = fetch_over_bad_paths(seed)
        assert got == wanted, seed
        happened.append(counts)
    assert all(map(sum, zip(*happened, strict=True))), happened


# --- Strangers who inject ------------------------------------------------------------------------


class Stranger:
    """Injects datagrams that were recorded, changed, or made up; it has seen all on the path."""

    def __init__(self, world, recorded, seed=1):
        self.inject = world.network.inject
        self.recorded = recorded
        self.rng = random.Random(seed)
        self.kinds = Counter()

    def throw(self, count):
        """Inject so many, of all kinds by turns."""
        ways = (self.replay, self.replay_elsewhere, self.cross, self.flip, self.make_up)
        for number in range(count):
            way = ways[number % len(ways)]
            way(*self.rng.choice(self.recorded))
            self.kinds[way.__name__] += 1

    def replay(self, datagram, source, destination):
        self.inject(datagram, source, destination)

    def replay_elsewhere(self, datagram, source, destination):
        self.inject(datagram, ("10.0.9.9", 99), destination)

    def cross(self, datagram, source, destination):
        """Say of a control datagram of one session that it is of another."""
        other = self.rng.choice(self.recorded)[0]
        if datagram[9] == UNIT:  # see the test of tampered units
            datagram = other if other[9] != UNIT else self.make_datagram()
        self.inject(datagram[:1] + other[1:9] + datagram[9:], source, destination)

    def flip(self, datagram, source, destination):
        if datagram[9] == UNIT:
            datagram = self.make_datagram()
        spoiled = bytearray(datagram)
        spoiled[self.rng.randrange(len(spoiled))] ^= 1 << self.rng.randrange(8)
        if spoiled[9] != UNIT:
            self.inject(bytes(spoiled), source, destination)

    def make_up(self, datagram, source, destination):
        self.inject(self.make_datagram(), source, destination)

    def make_datagram(self):
        kind = self.rng.choice([INIT, CONTROL, UNIT])
        return b"\x41" + self.rng.randbytes(8) + bytes([kind]) + self.rng.randbytes(200)


def play_with_a_stranger(count, seed=1):
    """Let a stranger throw datagrams while values are fetched; return what can be seen of it."""

    async def main(world):
        alice, bob, carol = await nodes(world, 3)
        sent = tap(world.network)
        values = [random.Random(n).randbytes(30_000) for n in range(4)]
        first = bob.hold(values[0])
        await fetch(alice, bob.peer(), first, len(values[0]))
        await fetch(carol, bob.peer(), first, len(values[0]))
        await fetch(alice, carol.peer(), carol.hold(values[1]), len(values[1]))
        ends = {node: dict(node.sessions._links) for node in (alice, bob, carol)}
        del world.network.inject  # enough was recorded
        stranger = Stranger(world, sent, seed)
        requests = len(bob.requests), len(carol.requests)
        fetched = 0
        while sum(stranger.kinds.values()) < count:
            stranger.throw(500)
            key = bob.hold(values[2 + fetched % 2])
            found = await fetch(alice, bob.peer(), key, 30_000)
            assert found.value == values[2 + fetched % 2]
            fetched += 1
        await asyncio.sleep(1)
        for node, links in ends.items():
            assert dict(node.sessions._links) == links  # none ended, none began
            for link in links.values():
                assert link.address in {alice.address, bob.address, carol.address}
                assert not link.session._downloads
        assert (len(bob.requests), len(carol.requests)) == (requests[0] + fetched, requests[1])
        refused = sum((node.sessions.counters for node in ends), Counter())
        return stranger.kinds, refused, fetched

    return run(main, seed=seed, conditions=Conditions(latency=0.001, spread=0.0))


@pytest.mark.parametrize("count", [10_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_forged_replayed_and_crossed_datagrams_change_nothing(count):
    kinds, refused, fetched = play_with_a_stranger(count)
    assert sum(kinds.values()) >= count
    assert min(kinds.values()) >= count // 5 - 100
    assert fetched >= count // 500
    assert refused.total() > count // 3, refused
