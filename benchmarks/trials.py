"""Trials: one scenario with its parameters and a seed, and the record that it leaves."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import bytestag
from benchmarks import scenarios
from benchmarks.report import Row
from benchmarks.stage import Progress, Stage, silent
from bytestag.errors import BytestagError
from bytestag.sim.checkers import CheckFailed, Stuck
from bytestag.sim.conditions import Conditions
from bytestag.sim.loop import Deadlock
from bytestag.sim.world import Leak, World, run

PARAMETERS: dict[str, tuple[type, Any, str]] = {
    "nodes": (int, 100, "how many nodes"),
    "population": (int, -1, "1: nodes live when spoken to; 0: all join; -1: by their number"),
    "dead_share": (float, 0.5, "share of nodes that dies at once"),
    "copies": (int, 8, "holders of each value"),
    "days": (float, 3.0, "virtual days"),
    "hours": (float, 1.0, "virtual hours"),
    "loss": (float, 0.0, "chance that a datagram is lost"),
    "latency": (float, 0.05, "median seconds of one way"),
    "values": (int, 100, "values published"),
    "value_bytes": (int, 1024, "size of each"),
    "file_bytes": (int, 1 << 20, "size of the file"),
    "lookups": (int, 200, "look-ups or reads measured"),
    "readers": (int, 50, "nodes that read at once"),
    "uplink": (float, 0.0, "bytes each host can send in a second; 0 is without limit"),
    "keys": (int, 10_000, "keys announced"),
    "session_minutes": (float, 60.0, "median of sessions and of times off"),
    "empty_share": (float, 0.0, "share of returns without state"),
    "alpha": (int, 8, "requests at one time in a look-up, at first"),
    "repair_minutes": (float, 60.0, "how often holders compare what they hold"),
}
"""Name: (type, default, help). A scenario's DEFAULTS say which it looks at."""
COMMON = ("nodes", "loss", "latency")
GC_THRESHOLDS = (50_000, 20, 20)
"""Thousands of nodes are millions of objects that stay: Python's 700 looks at them too often."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One job."""

    scenario: str
    parameters: dict[str, Any]
    seed: int

    @property
    def command(self) -> str:
        """What plays it again."""
        given = "".join(
            f" --{name.replace('_', '-')} {value}"
            for name, value in self.parameters.items()
            if name != "nodes"
        )
        nodes = self.parameters["nodes"]
        return (
            f"python -m benchmarks.simulate --nodes {nodes} --scenario {self.scenario} "
            f"--seed {self.seed}{given}"
        )


@dataclass(slots=True)
class Record:
    """What a trial came to."""

    scenario: str
    parameters: dict[str, Any]
    seed: int
    command: str
    version: str = bytestag.__version__
    trace: str = ""
    """The network's hash over all that was delivered."""
    rows: list[Row] = field(default_factory=list)
    series: dict[str, list[list[float]]] = field(default_factory=dict)
    """Curves: points (x, y)."""
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    rss_mib_max: float = 0.0
    """Of the process, which may have played other trials before."""
    error: str = ""
    exit_status: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_trial(scenario: str, given: dict[str, Any], seed: int) -> Trial:
    """Return a trial whose parameters are given, the scenario's defaults, or the general ones."""
    defaults = scenarios.load(scenario).DEFAULTS
    names = [name for name in PARAMETERS if name in COMMON or name in defaults]
    chosen = {name: given.get(name, defaults.get(name, PARAMETERS[name][1])) for name in names}
    return Trial(scenario, chosen, seed)


def play(trial: Trial, progress: Progress = silent) -> Record:
    """Play a trial in this process."""
    record = Record(trial.scenario, trial.parameters, trial.seed, trial.command)
    module = scenarios.load(trial.scenario)
    given = trial.parameters
    conditions = Conditions(
        latency=given["latency"],
        loss=given["loss"],
        uplink_bytes_per_second=given.get("uplink", 0.0),
    )
    began, thresholds = time.perf_counter(), gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)

    async def main(world: World) -> None:
        stage = Stage(world, trial.parameters, record, progress)
        async with stage:
            await module.play(stage)
            record.trace = world.network.trace
            record.virtual_seconds = round(world.loop.time() - stage.began, 3)
            await stage.judge_end()

    try:
        run(main, seed=trial.seed, conditions=conditions)
    except (CheckFailed, Deadlock, Leak, BytestagError, ExceptionGroup) as error:
        record.error = f"{_text_of(error)}\nreplay: {trial.command}"
        record.exit_status = _status_of(error)
    finally:
        gc.set_threshold(*thresholds)
    record.wall_seconds = round(time.perf_counter() - began, 3)
    record.rss_mib_max = round(rss_mib_max(), 1)
    if not record.exit_status and any(row.holds is False for row in record.rows):
        record.exit_status = 1
    return record


def _text_of(error: BaseException) -> str:
    if isinstance(error, ExceptionGroup):
        return "\n".join(map(_text_of, error.exceptions))
    return f"{type(error).__name__}: {error}"


def _status_of(error: BaseException) -> int:
    if isinstance(error, ExceptionGroup):
        return max(map(_status_of, error.exceptions))
    if isinstance(error, CheckFailed):
        return error.exit_status
    return Stuck.exit_status if isinstance(error, Deadlock | Leak) else 1


def rss_mib_max() -> float:
    """Return the most memory that this process ever had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


Play = Callable[[Trial], Record]
