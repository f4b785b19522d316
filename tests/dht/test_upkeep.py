"""What a node does by itself, in time."""

import asyncio
import random
from collections import Counter
from types import SimpleNamespace

import pytest

from bytestag import config
from bytestag.config import DAY, HOUR, K
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.dht.upkeep import Upkeep
from bytestag.errors import Timeout
from bytestag.sim import Conditions, run
from bytestag.sim.checkers import Judge
from bytestag.sim.cluster import Cluster
from bytestag.sim.loop import VirtualLoop


def seconds_to_heal(seed):
    """Cut a small network into three parts for half a day; return how long it takes to heal."""

    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(9)
            cluster.crash(*cluster.nodes[6:])
            hosts = [node.host for node in cluster.nodes[:6]]
            world.network.partition(hosts[:2], hosts[2:])
            world.network.partition(hosts[2:4], hosts[4:])
            await asyncio.sleep(12 * HOUR)
            assert [len(node.client.protocol.router) for node in cluster.running] == [1] * 6
            world.network.heal()
            return await Judge(cluster).check_converged(random.Random(seed))

    return run(main, seed, conditions=Conditions(latency=0.02))


def test_a_network_that_was_cut_in_small_parts_heals_within_a_minute():
    assert max(map(seconds_to_heal, range(2))) <= 60


def play(known, *, seconds, lonely=(1,), fails=None):
    """Let the upkeep of a node that knows so many run; return how often each chore was done."""
    done = Counter()

    def chore(name):
        async def work():
            done[name] += 1
            if name == fails:
                raise Timeout("nobody is there")

        return work

    async def main(world):
        router = RoutingTable(Contact(bytes(20), ("127.0.0.1", 1)))
        rng = random.Random(known)
        while len(router) < known:
            router.add_contact(Contact(rng.randbytes(20), ("127.0.0.1", 2)))
        network = SimpleNamespace(
            protocol=SimpleNamespace(router=router),
            refresh=chore("refresh"),
            greet_absentee=chore("greet"),
            lonely_buckets=lambda: lonely,
        )
        replicator = SimpleNamespace(expire=chore("expire"), repair=chore("repair"))
        providers = SimpleNamespace(expire=lambda now: done.update(["expire providers"]))
        others = {name: chore(name) for name in ("rejoin", "republish", "renew", "save")}
        upkeep = Upkeep(network, replicator, providers, config.local(), world.runtime(), **others)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                await upkeep.run()

    run(main, seed=1)
    return done


def test_all_is_done_in_its_time_and_no_chore_has_a_timer_of_its_own(monkeypatch):
    timers = Counter()
    call_at = VirtualLoop.call_at

    def counted(*arguments, **options):
        timers["set"] += 1
        return call_at(*arguments, **options)

    monkeypatch.setattr(VirtualLoop, "call_at", counted)
    done = play(K, seconds=DAY)
    assert timers["set"] <= 62 * 24
    for name, each in (
        ("refresh", 300), ("greet", 120), ("republish", 300), ("expire", 600), ("renew", 600),
        ("expire providers", 600), ("repair", HOUR), ("save", HOUR),
    ):  # fmt: skip
        assert done[name] == pytest.approx(DAY / each, rel=0.1), name
    assert not done["rejoin"]


def test_what_is_not_needed_is_not_done_and_what_fails_is_tried_again():
    assert not play(K, seconds=HOUR, lonely=())["refresh"]
    assert play(K, seconds=DAY, fails="repair")["repair"] > 20


@pytest.mark.parametrize(("known", "greeted", "rejoined"), [(0, 0.5, 3), (K - 1, 6.5, 0)])
def test_who_knows_few_looks_for_more_three_times_a_minute(known, greeted, rejoined):
    done = play(known, seconds=HOUR)
    assert done["greet"] == pytest.approx(60 * greeted, rel=0.15)
    assert done["rejoin"] == pytest.approx(60 * rejoined, rel=0.15)


def test_the_more_are_known_the_less_are_those_who_went_asked():
    assert play(10 * K, seconds=DAY)["greet"] == pytest.approx(24 * 3, rel=0.1)
