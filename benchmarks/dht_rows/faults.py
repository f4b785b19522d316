"""200 small seeds with every fault on (``bytestag.sim.seeds``), as in CI.

``passed``: histories that no judge found wrong, lost or stuck; ``wall``: real seconds for all of
them, on all cores. ``--quick``: 10 seeds, and a twentieth of the time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from benchmarks.dht_rows.figures import Figure, Scale, figure
from benchmarks.report import note
from bytestag.sim.checkers import CheckFailed
from bytestag.sim.seeds import _ends

SEEDS = 200
SECONDS_MAX = 300.0


def measure(scale: Scale) -> Iterator[Figure]:
    seeds = SEEDS // 20 if scale.is_quick else SEEDS
    began, passed = time.perf_counter(), 0
    for number, end in enumerate(_ends(range(1, seeds + 1), os.cpu_count() or 1), 1):
        passed += not isinstance(end, CheckFailed)
        if isinstance(end, CheckFailed):
            note(f"    seed {number}: {end}")
    wall = time.perf_counter() - began
    yield figure(f"faults_{seeds}_seeds_passed", passed, "seeds", "==", seeds)
    yield figure(f"faults_{seeds}_seeds_wall", wall, "s", "<=", SECONDS_MAX * seeds / SEEDS)
