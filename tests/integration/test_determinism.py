"""The same seed leaves the same trace, in this process and in any other."""

import os
import subprocess
import sys

import pytest

from bytestag.sim import Conditions, run
from tests.network.nodes import fetch, nodes

BAD = Conditions(loss=0.05, duplication=0.05, jitter=0.02)


def trace(seed):
    """Let five nodes ping and fetch over a bad network; return the hash of what was delivered."""

    async def main(world):
        everybody = await nodes(world, 5)
        key = everybody[0].hold(bytes(range(256)) * 500)
        for node in everybody[1:]:
            token = (await node.ping(everybody[0].address)).token
            await fetch(node, everybody[0].peer(token=token), key, 128_000)
        return world.network.trace, world.network.counters["delivered"]

    return run(main, seed, BAD)


def test_the_same_seed_leaves_the_same_trace_and_another_seed_another():
    first = trace(1)
    assert first == trace(1)
    assert first != trace(2)
    assert first[1] > 500


@pytest.mark.slow
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_trace_does_not_depend_on_the_process(hash_seed):
    program = "from tests.integration.test_determinism import trace; print(trace(1)[0])"
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    printed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        cwd=os.path.join(os.path.dirname(__file__), "..", ".."),
    )
    assert printed.stdout.strip() == trace(1)[0]
