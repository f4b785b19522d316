"""Engines: who plays trials, which do not depend on each other.

``processes`` is a pool on this machine, one for each core; ``ray`` and ``dask`` hand them to a
cluster (extra ``[cluster]``), whose machines need bytestag and ``benchmarks`` installed or copied.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from benchmarks.stage import Progress
from benchmarks.trials import Record, Trial, play

HINT = "pip install 'bytestag[cluster]'"


class EngineMissing(Exception):
    """The program that an engine needs is not installed."""


def play_all(trials: Sequence[Trial], engine: str, jobs: int, progress: Progress) -> list[Record]:
    """Play trials; return their records in the order of the trials. Raises EngineMissing."""
    if engine == "processes" and (len(trials) == 1 or jobs == 1):
        return [play(trial, progress) for trial in trials]
    records: dict[int, Record] = {}
    for number, record in ENGINES[engine](trials, jobs):
        records[number] = record
        progress("trials", len(records), len(trials))
    return [records[number] for number in range(len(trials))]


def _processes(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[int, Record]]:
    workers = min(jobs or os.cpu_count() or 1, len(trials))
    context = multiprocessing.get_context("spawn")
    # One process for each trial: memory is measured, and given back.
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        numbers = {pool.submit(play, trial): number for number, trial in enumerate(trials)}
        for future in as_completed(numbers):
            yield numbers[future], future.result()


def _ray(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[int, Record]]:
    ray = _import("ray")
    ray.init(ignore_reinit_error=True, log_to_driver=False, num_cpus=jobs or None)
    remote = ray.remote(play)
    waiting = {remote.remote(trial): number for number, trial in enumerate(trials)}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


def _dask(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[int, Record]]:
    distributed = _import("distributed", "dask")
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    options: dict[str, Any] = {"address": address} if address else {"n_workers": jobs or None}
    with distributed.Client(**options) as client:
        futures = client.map(play, trials, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        for future, record in distributed.as_completed(futures, with_results=True):
            yield numbers[future.key], record


def _import(module: str, name: str = "") -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise EngineMissing(
            f"--engine {name or module} needs {module}, which is not installed ({HINT})"
        ) from error


Engine = Callable[[Sequence[Trial], int], Iterator[tuple[int, Record]]]
ENGINES: dict[str, Engine] = {"processes": _processes, "ray": _ray, "dask": _dask}
