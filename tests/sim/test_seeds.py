"""Small random histories with every fault: none ends wrong, lost or stuck.

A seed that failed once needs no test of its own: it is one of these, or is added to ``FAILED``.
"""

import subprocess
import sys

import pytest

from bytestag.sim import seeds
from bytestag.sim.checkers import Stuck
from bytestag.sim.cluster import Cluster

FIRST = range(10)
MORE = range(10, 200)
FAILED: tuple[int, ...] = ()
"""Beyond the 200, what the long programme found."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [*FIRST, *FAILED])
def test_a_history_with_every_fault_ends_well(seed):
    played = seeds.play(seed)
    assert 6 <= played.nodes <= 34
    assert played.converged_seconds < 61


@pytest.mark.seeds
@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
def test_more_histories_end_well(seed):
    seeds.play(seed)


@pytest.mark.long
def test_many_more_histories_end_well():
    failed = []
    for seed in range(200, 5000):
        try:
            seeds.play(seed)
        except AssertionError as failure:
            failed.append(str(failure))
    assert failed == []


@pytest.mark.slow
def test_a_history_leaves_the_same_trace_each_time_and_another_one_another():
    first, again, other = seeds.play(9), seeds.play(9), seeds.play(5)
    assert first == again
    assert first.trace != other.trace


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_trace_of_a_history_does_not_depend_on_the_process(hash_seed):
    printed = subprocess.run(
        [sys.executable, "-m", "bytestag.sim.seeds", "9"],
        env={"PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        text=True,
    )
    assert printed.stdout.strip() == str(seeds.play(9))


def test_a_failure_says_how_to_play_it_again(monkeypatch):
    async def nowhere(cluster, count):
        await cluster.world.loop.create_future()

    monkeypatch.setattr(Cluster, "start_many", nowhere)
    with pytest.raises(Stuck) as caught:
        seeds.play(17)
    assert str(caught.value).endswith("\nreplay: python -m bytestag.sim.seeds 17")
