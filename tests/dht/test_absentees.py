"""Whoever went is asked for now and then, so that halves of a network find each other again."""

import asyncio
import random

import pytest

from bytestag.config import DAY, HOUR
from bytestag.dht.absentees import ABSENTEES_MAX, Absentees
from bytestag.sim import Conditions, run
from bytestag.sim.checkers import Judge, Stuck
from bytestag.sim.cluster import Cluster

RNG = random.Random(1)


def test_who_went_is_chosen_until_he_answers_or_a_day_has_passed():
    absentees = Absentees()
    assert absentees.choose(0, RNG) is None
    absentees.remember(("10.0.0.1", 1), 0)
    absentees.remember(("10.0.0.2", 1), HOUR)
    absentees.remember(("10.0.0.1", 1), HOUR)  # he was absent already
    assert {absentees.choose(HOUR, RNG) for _ in range(50)} == {("10.0.0.1", 1), ("10.0.0.2", 1)}
    assert absentees.choose(DAY + 1, RNG) == ("10.0.0.2", 1)
    absentees.has_answered(("10.0.0.2", 1))
    absentees.has_answered(("10.0.0.9", 1))
    assert absentees.choose(DAY + 1, RNG) is None
    assert len(absentees) == 0


def test_the_longest_absent_give_way():
    absentees = Absentees()
    for port in range(1, 1000):
        absentees.remember(("10.0.0.1", port), port)
    assert len(absentees) == ABSENTEES_MAX
    assert absentees.choose(1000, RNG)[1] >= 1000 - ABSENTEES_MAX


@pytest.mark.slow
@pytest.mark.parametrize("asks", [True, False])
def test_halves_that_forgot_each_other_find_each_other_when_the_partition_ends(monkeypatch, asks):
    if not asks:
        monkeypatch.setattr(Absentees, "choose", lambda self, now, rng: None)

    async def main(world):
        async with Cluster(world) as cluster:
            await cluster.start_many(16)
            hosts = [node.host for node in cluster.nodes]
            world.network.partition(hosts[:8], hosts[8:])
            await asyncio.sleep(10 * HOUR)
            for node in cluster.nodes:
                others = {contact.address[0] for contact in node.client.protocol.router}
                assert others <= set(hosts[:8] if node.number < 8 else hosts[8:])
            world.network.heal()
            return await Judge(cluster).check_converged(random.Random(1))

    if asks:
        assert run(main, conditions=Conditions(latency=0.02)) < 60
        return
    with pytest.raises(Stuck):
        run(main, conditions=Conditions(latency=0.02))
