"""Each judge is silent when all is well, and speaks for the right reason when something is not."""

import asyncio
import random
from dataclasses import replace

import pytest

from bytestag.config import DAY, HOUR
from bytestag.sim import Conditions, run, seeds
from bytestag.sim.bounds import measured
from bytestag.sim.checkers import CheckFailed, Judge, Lost, Stuck, Wrong
from bytestag.sim.cluster import Cluster
from bytestag.sim.workload import put, random_values
from bytestag.tables.base import Standing

CALM = Conditions(latency=0.02)
REPLAY = "python -m bytestag.sim.seeds 17"


def judged(judge_it, count=8, **changes):
    """Run ``judge_it(cluster, judge, values)`` on nodes that hold four promised values."""

    async def main(world):
        async with Cluster(world, **changes) as cluster:
            await cluster.start_many(count)
            judge = Judge(cluster, REPLAY)
            values = random_values(4, 500, random.Random(1))
            judge.published(values)
            assert (await put(cluster.nodes[0], values, copies=3)).copies_min == 3
            judge.acknowledged(values, DAY)
            return await judge_it(cluster, judge, values)

    return run(main, conditions=CALM)


@pytest.mark.slow
def test_a_network_that_is_well_passes_every_judge():
    async def well(cluster, judge, values):
        rng = random.Random(2)
        for kvpid, value in values.items():
            judge.delivered(kvpid, value)
        assert await judge.check_converged(rng) < 60
        assert await judge.check_readable(rng) == 4
        assert await judge.check_idle() > 0
        await asyncio.sleep(DAY + 3 * HOUR)
        judge.check_bounds()
        judge.check_lifetimes()
        for node in cluster.running:
            await judge.stop(node)
        judge.check_nothing_waits()
        return await judge.check_readable(rng)

    assert judged(well) == 0  # nobody is left, so nothing is due


def test_kinds_of_failure_differ_for_programs_and_say_how_to_replay_them():
    kinds = (CheckFailed, Wrong, Lost, Stuck)
    assert len({kind.exit_status for kind in kinds}) == 4
    assert all(kind.exit_status > 0 for kind in kinds)
    assert str(Lost("gone", REPLAY)).splitlines() == ["gone", f"replay: {REPLAY}"]
    assert str(Lost("gone")) == "gone"


@pytest.mark.parametrize("kind", [Wrong, Lost, Stuck])
def test_the_program_exits_with_the_kind_of_the_first_failure(monkeypatch, capsys, kind):
    def play(seed):
        if seed:
            raise (kind if seed == 1 else CheckFailed)("it is so", REPLAY)
        return "played"

    monkeypatch.setattr(seeds, "play", play)
    assert seeds.main(["0"]) == 0
    assert seeds.main(["0", "1", "2"]) == kind.exit_status
    printed = capsys.readouterr()
    assert printed.out == "played\n" * 2
    assert f"{kind.__name__}: it is so\nreplay: {REPLAY}\n" in printed.err


def test_wrong_bytes_are_wrong():
    async def lie(cluster, judge, values):
        judge.delivered(next(iter(values)), b"something else")

    with pytest.raises(Wrong, match="wrong bytes\nreplay: ") as caught:
        judged(lie)
    assert str(caught.value).endswith(REPLAY)


@pytest.mark.parametrize(
    ("name", "grow"),
    [
        ("protocol._timing", lambda c: c.protocol._timing.update({n: n for n in range(5000)})),
        ("protocol._replies", lambda c: c.protocol._replies._waiting.update(
            {(bytes([n % 256]), ("10.0.0.1", n)): None for n in range(5000)})),
        ("protocol.referrals._silent", lambda c: c.protocol.referrals._silent.update(
            {n: n for n in range(5000)})),
        ("nodes", lambda c: c.protocol.router.buckets[0].nodes.update(
            {n: next(iter(c.protocol.router)) for n in range(30)})),
        ("slot", lambda c: c._slots[0]._waiting.extend(range(5000))),
    ],
)  # fmt: skip
def test_a_container_beyond_its_bound_is_wrong(name, grow):
    async def overflow(cluster, judge, values):
        judge.check_bounds()
        node = cluster.nodes[3]
        grow(node.client)
        try:
            judge.check_bounds()
        finally:  # what was put there is nothing that a node could stop with
            cluster.crash(node)

    with pytest.raises(Wrong, match=f"{name}.* at most"):
        judged(overflow)


def test_what_a_node_measures_names_everything_once():
    async def names(cluster, judge, values):
        sizes = list(measured(cluster.nodes[3].client))
        assert all(size.holds for size in sizes)
        return [size.name for size in sizes if not size.name.startswith("session")]

    found = judged(names)
    assert len(found) == len(set(found)) > 30


@pytest.mark.slow
def test_a_row_past_its_time_is_wrong():
    async def never_expire(cluster, judge, values):
        for node in cluster.nodes:
            node.stores.cache.expire = lambda now, limit=1000: 0
        await asyncio.sleep(DAY + HOUR)
        judge.check_lifetimes()  # a publisher asks for an hour more
        await asyncio.sleep(2 * HOUR)
        judge.check_lifetimes()

    with pytest.raises(Wrong, match="past its time"):
        judged(never_expire)


def test_a_row_that_is_kept_longer_than_anybody_asked_is_wrong():
    async def hoard(cluster, judge, values):
        judge.check_lifetimes()
        holder = cluster.holders(next(iter(values)))[0]
        rows = holder.stores.cache._rows[next(iter(values)).key]
        assert rows[0].standing is Standing.KEPT
        rows[0] = replace(rows[0], time_to_live=30 * DAY)
        judge.check_lifetimes()

    with pytest.raises(Wrong, match="longer than was asked"):
        judged(hoard)


def test_a_value_whose_holders_do_not_deliver_is_lost():
    async def silence(cluster, judge, values):
        await judge.check_readable(random.Random(2))
        for node in cluster.holders(min(values)):
            node.client._serving.handle = lambda link, request: None
            node.client.protocol._holdings.describe_now = lambda key, reply: None
        await judge.check_readable(random.Random(2))

    with pytest.raises(Lost, match="cannot read it"):
        judged(silence)


def test_a_network_in_two_halves_is_stuck():
    async def cut(cluster, judge, values):
        hosts = [node.host for node in cluster.nodes]
        cluster.world.network.partition(hosts[:4], hosts[4:])
        await judge.check_converged(random.Random(2))

    with pytest.raises(Stuck, match="not converged after 60 s"):
        judged(cut)


def test_talk_that_nobody_asked_for_is_wrong():
    async def chatter(cluster, judge, values):
        client, other = cluster.nodes[3].client, cluster.nodes[4]

        async def ping():
            while True:
                await client.protocol.ping(other.address)
                await asyncio.sleep(0.1)

        talk = asyncio.ensure_future(ping())
        try:
            await judge.check_idle(600)
        finally:
            talk.cancel()

    with pytest.raises(Wrong, match="though idle"):
        judged(chatter)


def test_a_task_that_survives_its_node_is_stuck():
    async def forget(cluster, judge, values):
        node = cluster.nodes[3]

        async def start():
            return asyncio.ensure_future(asyncio.sleep(1e6))

        task = await node.run(start())
        try:
            await judge.stop(node)
        finally:
            task.cancel()

    with pytest.raises(Stuck, match=r"tasks are left: .*sleep"):
        judged(forget)


def test_a_timer_that_survives_its_node_is_stuck():
    async def forget(cluster, judge, values):
        node = cluster.nodes[3]

        async def start():
            asyncio.get_running_loop().call_later(1e6, print)

        await node.run(start())
        await judge.stop(node)

    with pytest.raises(Stuck, match=r"still called: .*print"):
        judged(forget)


def test_a_future_that_nobody_will_end_is_stuck():
    async def forget(cluster, judge, values):
        left = asyncio.get_running_loop().create_future()
        left.add_done_callback(print)
        for node in cluster.running:
            await judge.stop(node)
        judge.check_nothing_waits()

    with pytest.raises(Stuck, match="futures are left"):
        judged(forget)
