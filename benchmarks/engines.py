"""Engines: who plays trials, which do not depend on each other.

``processes`` is a pool on this machine, one for each core; ``ray`` and ``dask`` hand them to a
cluster (extra ``[cluster]``), whose machines need bytestag and ``benchmarks`` installed or copied.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from benchmarks.stage import Progress
from benchmarks.trials import Record, Trial, play

_alone = threading.Lock()
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
    # A cluster that runs says itself how many cores it has.
    options = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": jobs or None}
    ray.init(log_to_driver=False, **options)
    try:
        remote = ray.remote(max_calls=1)(play)  # one process for each trial, as above
        waiting = {remote.remote(trial): number for number, trial in enumerate(trials)}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            yield waiting.pop(done), ray.get(done)
    finally:
        ray.shutdown()


def _dask(trials: Sequence[Trial], jobs: int) -> Iterator[tuple[int, Record]]:
    distributed = _import("distributed", "dask")
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    options: dict[str, Any] = {"address": address}
    if not address:
        workers = min(jobs or os.cpu_count() or 1, len(trials))
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(**options) as client:
        futures = client.map(_play_alone, trials, pure=False)
        numbers = {future.key: number for number, future in enumerate(futures)}
        for future, record in distributed.as_completed(futures, with_results=True):
            yield numbers[future.key], record


def _play_alone(trial: Trial) -> Record:
    """Play a trial when no other thread of this process does: workers may have several.

    Scenarios watch by replacing what modules hold, and all of a process has one collector.
    """
    with _alone:
        return play(trial)


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
