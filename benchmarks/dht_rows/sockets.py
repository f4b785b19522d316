"""Puts and gets per second, 50 at once, over real sockets on loopback, N = 50 and 200.

Ours: two processes of N/2 nodes; values of 100 bytes, 8 copies each, tables in memory. A put counts
when 8 holders said that they have it, a get when every byte is right; one node puts, another gets,
both in one of the two processes. A tenth of the operations is run before: sessions are warm.
``cpu_ms``: CPU time of all processes for each operation, in milliseconds.

OpenDHT (its own k of 8) runs N nodes with threads of their own in one process, rate limits lifted,
as many operations; stock kademlia (k = 20) two processes as ours, one turn of 300 operations, for
10 seconds a phase at most. They take turns in the same run. ``--quick``: N = 50 only, one turn.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.dht_rows.figures import Figure, Scale, beside, figure, in_child
from benchmarks.dht_rows.socket_nodes import measure as measure_nodes
from benchmarks.report import note
from benchmarks.stage import percentile

AT_ONCE = 50
VALUE_BYTES = 100
OPERATIONS = 2000
STOCK_OPERATIONS = 300
DEBIAN_PYTHON = "/usr/bin/python3"
SCRIPT_SECONDS = 180.0
P99_SECONDS_MAX = 0.2
RATES = {"put": 0.8, "get": 1.0}
PEERS = ("opendht", "kademlia")


def measure(scale: Scale) -> Iterator[Figure]:
    for nodes in (50,) if scale.is_quick else (50, 200):
        turns: dict[str, list[Any]] = {"ours": [], **{peer: [] for peer in PEERS}}
        for number in range(scale.seeds):
            turns["ours"].append(_ours("ours", nodes, OPERATIONS))
            turns["opendht"].append(_opendht(nodes))
            if number == 0:
                turns["kademlia"].append(_ours("kademlia", nodes, STOCK_OPERATIONS))
            note(f"    turn {number + 1} of {scale.seeds}")
        yield from _figures(nodes, turns)


def _figures(nodes: int, turns: dict[str, list[Any]]) -> Iterator[Figure]:
    def of(who: str, operation: str, what: str) -> list[float]:
        return [turn[operation][what] for turn in turns[who] if turn is not None]

    for operation, factor in RATES.items():
        name = f"sockets_{nodes}_{operation}"

        def peers(what: str, operation: str = operation) -> dict[str, float | None]:
            found = {peer: of(peer, operation, what) for peer in PEERS}
            return {p: percentile(values, 50) if values else None for p, values in found.items()}

        ours = of("ours", operation, "rate")
        yield beside(f"{name}s", ours, "1/s", ">=", factor, peers("rate"), "opendht", 1)
        ours = of("ours", operation, "p99")
        yield figure(f"{name}_p99", ours, "s", "<=", P99_SECONDS_MAX, peers("p99"))
        ours = of("ours", operation, "cpu_ms")
        yield beside(f"{name}_cpu", ours, "ms", "<=", 1.0, peers("cpu_ms"), "opendht", 3)
        yield figure(
            f"{name}s_done", of("ours", operation, "done"), "share", ">=", 1.0, peers("done")
        )


def _ours(kind: str, nodes: int, operations: int) -> dict[str, Any]:
    return in_child(measure_nodes, kind, nodes, operations, AT_ONCE, VALUE_BYTES)


def _opendht(nodes: int) -> dict[str, Any] | None:
    """Return what OpenDHT did, None where it is not installed."""
    python = _opendht_python()
    if python is None:
        return None
    script = Path(__file__).with_name("opendht_peer.py")
    given = [str(number) for number in (nodes, OPERATIONS, AT_ONCE, VALUE_BYTES)]
    done = subprocess.run(
        [python, str(script), *given], capture_output=True, text=True, timeout=SCRIPT_SECONDS
    )
    if done.returncode:
        note(f"    opendht: {done.stderr.strip()[-300:]}")
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _opendht_python() -> str | None:
    """Return the interpreter that has OpenDHT's bindings: Debian's, unless ours has."""
    if importlib.util.find_spec("opendht"):
        return sys.executable
    if not Path(DEBIAN_PYTHON).exists():
        return None
    found = subprocess.run([DEBIAN_PYTHON, "-c", "import opendht"], capture_output=True)
    return None if found.returncode else DEBIAN_PYTHON
