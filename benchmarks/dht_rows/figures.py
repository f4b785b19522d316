"""Figures: medians over seeds, judged alone or beside a peer."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.progress import Bar
from benchmarks.report import Row, note
from benchmarks.trials import Record, Trial, make_trial, play

R = TypeVar("R")

Measured = Mapping[str, float]
"""What one run counted, by name."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of it is asked for."""

    name: str
    is_quick: bool
    seeds: int

    @property
    def is_long(self) -> bool:
        return self.name.endswith("-long")


@dataclass
class Figure(Row):
    """A row with its bounds over seeds, and what the machine did meanwhile."""

    min: float | None = None
    max: float | None = None
    runs: int = 1
    load: float = 0.0
    """Processes that ran or wanted to, on average over the last minute, ours among them."""


def figure(
    name: str,
    values: float | Sequence[float],
    unit: str,
    op: str = "<=",
    target: float | None = None,
    peers: Mapping[str, float | None] | None = None,
    decimals: int = 4,
) -> Figure:
    """Return the median of values, judged."""
    listed = [values] if isinstance(values, int | float) else list(values)
    made = Figure(name, round(statistics.median(listed), decimals), unit, op, target)
    made.min, made.max = round(min(listed), decimals), round(max(listed), decimals)
    made.runs, made.load = len(listed), round(os.getloadavg()[0], 1)
    for peer, value in (peers or {}).items():
        made.peers[peer] = None if value is None else round(value, decimals)
    return made


def beside(
    name: str,
    values: Sequence[float],
    unit: str,
    op: str,
    factor: float,
    peers: Mapping[str, float | None],
    judge: str,
    decimals: int = 4,
) -> Figure:
    """Return the median of values, judged by what one of the peers reached, if it is here."""
    mark = peers.get(judge)
    target = None if mark is None else round(factor * mark, decimals)
    return figure(name, values, unit, op, target, peers, decimals)


def in_child(function: Callable[..., R], *arguments: Any) -> R:
    """Call a function in a fresh process, so that its memory is its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def trial(
    scenario: str, seed: int, *, is_told: bool = False, **parameters: Any
) -> dict[str, float]:
    """Play a scenario of ``benchmarks.simulate`` in a fresh process; return its rows by name.

    If ``is_told``, how far it is goes to stderr: for what takes an hour.
    """
    record: Record = in_child(
        _play_and_tell if is_told else play, make_trial(scenario, parameters, seed)
    )
    if record.error:
        raise RuntimeError(record.error)
    figures = {row.name: row.number for row in record.rows}
    return figures | {"wall": record.wall_seconds, "rss_gib": record.rss_mib_max / 1024}


def _play_and_tell(made: Trial) -> Record:
    return play(made, Bar(sys.stderr))


def over_seeds(
    measure: Callable[[int], Measured], seeds: int, seconds_max: float = 120.0
) -> dict[str, list[float]]:
    """Measure with seeds 1, 2, …; only with 1 if that took longer than rows may be repeated."""
    found: dict[str, list[float]] = {}
    for seed in range(1, seeds + 1):
        began = time.perf_counter()
        for name, value in measure(seed).items():
            found.setdefault(name, []).append(value)
        seconds = time.perf_counter() - began
        note(f"    seed {seed}: {seconds:.1f} s")
        if seconds > seconds_max:
            break
    return found


def median(found: Mapping[str, Sequence[float]], name: str) -> float | None:
    """Return the median of what was counted under a name, None if nothing was."""
    return statistics.median(found[name]) if found.get(name) else None
