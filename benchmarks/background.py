"""The background manner over real packets: what it adds to a queue, what it leaves to others.

100 Mbit/s, 50 ms, a queue of two products, no loss. ``share --background`` publishes, ``fetch``
reads. Alone: how long packets waited in the router's queue, the median and the 95th percentile of
those after the start. Beside one CUBIC flow of 15 s (iperf3), which begins when the fetch is under
way: what that flow reaches, of what it reaches alone through the same router. ``warm_request`` is
measured here as well, on the idle path: round trips to the first byte in a session that exists, in
pings; what a node needs to read a value and to wake up counts, so it is 1.1 and not 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

from benchmarks.iperf import flow
from benchmarks.namespaces import Host, routed
from benchmarks.processes import Program, make_file, stopping
from benchmarks.report import Report, note
from benchmarks.router import Path

PATH = Path(100, 50, queue_products=2)
ALONE_MIB, BESIDE_MIB = 96, 512
CUBIC_SECONDS = 15
SETTLING_SECONDS = 3.0
KEY_BYTES = 256 * 1024
PORT = 38665
QUEUE_MS_MAX, SHARE_MIN, ROUND_TRIPS_MAX = 20.0, 85.0, 1.5


def measure(base: FilePath, report: Report, rounds: int, suffix: str) -> None:
    """Add the rows of the background manner and of a warm request."""
    waits, shares, trips = [], [], []
    for number in range(rounds):
        path = Path(PATH.rate_mbit, PATH.rtt_ms, 0.0, PATH.queue_products, seed=number + 1)
        waits.append(_alone(base, path))
        alone = _cubic_alone(path)
        beside, ours = _beside_cubic(base, path)
        if alone and beside:
            shares.append(100 * beside / alone)
        note(f"    background: cubic {beside} of {alone} Mbit/s alone, beside {ours:.1f} of ours")
        trips.append(_warm(base, path))
    judged = not suffix
    medians, tails = zip(*waits, strict=True)
    _add(report, "background_queue_delay", medians, "ms", "<=", QUEUE_MS_MAX if judged else None)
    _add(report, "background_queue_delay_p95", tails, "ms", "<=", QUEUE_MS_MAX if judged else None)
    share = SHARE_MIN if judged else None
    _add(report, "background_share_left_to_cubic", shares, "%", ">=", share)
    trip = ROUND_TRIPS_MAX if judged else None
    _add(report, "warm_request_first_byte", trips, "round trips", "<=", trip)


def add_nothing(report: Report) -> None:
    """Add the rows, none of which could be measured."""
    report.add("background_queue_delay", None, "ms", "<=", QUEUE_MS_MAX)
    report.add("background_share_left_to_cubic", None, "%", ">=", SHARE_MIN)
    report.add("warm_request_first_byte", None, "round trips", "<=", ROUND_TRIPS_MAX)


def _add(
    report: Report, name: str, values: list[float], unit: str, op: str, target: float | None
) -> None:
    value = round(statistics.median(values), 2) if values else None
    report.add(name, value, unit, op, target)


@contextlib.contextmanager
def _publishing(base: FilePath, host: Host, size_mib: int) -> Iterator[tuple[FilePath, str]]:
    """Share a file in the background manner; yield it and its link."""
    source = base / f"background {size_mib}"
    if not source.exists():
        make_file(source, size_mib)
    programs: list[Program] = []
    with stopping(programs):
        identity = str(base / "background.key")
        arguments = ["share", "--identity", identity, "--background", "--host", host.address]
        arguments += ["--port", str(PORT), "--network", "local", str(source)]
        programs.append(Program(arguments, base / "background", prefix=host.command()))
        yield source, programs[0].line(120)


def _fetch(base: FilePath, host: Host, link: str) -> Program:
    target = base / "background fetched"
    target.unlink(missing_ok=True)
    arguments = ["fetch", "--identity", str(base / "background reader.key")]
    arguments += ["--host", host.address, link, str(target)]
    return Program(arguments, base / "background reader", prefix=host.command())


def _alone(base: FilePath, path: Path) -> tuple[float, float]:
    """Return the median and the 95th percentile of the wait in the queue, in ms."""
    with routed(path) as (hosts, router):
        programs: list[Program] = []
        with _publishing(base, hosts[0], ALONE_MIB) as (_, link), stopping(programs):
            began = time.monotonic()
            programs.append(_fetch(base, hosts[1], link))
            code = programs[0].wait(120)
            seconds = time.monotonic() - began
        bulk = router.stop()[0]
    note(f"    background alone: {code}, {ALONE_MIB * 8.39 / seconds:.1f} Mbit/s, {bulk}")
    return bulk["wait_us_p50"] / 1000, bulk["wait_us_p95"] / 1000


def _cubic_alone(path: Path) -> float | None:
    with routed(path) as (hosts, _):
        return flow(hosts, "cubic", CUBIC_SECONDS)


def _beside_cubic(base: FilePath, path: Path) -> tuple[float | None, float]:
    """Return what CUBIC reached beside us and what we reached meanwhile, in Mbit/s."""
    with routed(path) as (hosts, _):
        programs: list[Program] = []
        with _publishing(base, hosts[0], BESIDE_MIB) as (_, link), stopping(programs):
            programs.append(_fetch(base, hosts[1], link))
            time.sleep(SETTLING_SECONDS)
            before, began = hosts[1].received()[0], time.monotonic()
            cubic = flow(hosts, "cubic", CUBIC_SECONDS)
            total = (hosts[1].received()[0] - before) * 8e-6 / (time.monotonic() - began)
            is_over = programs[0].process.poll() is not None
    if is_over:
        note("    the fetch ended before the other flow did: not counted")
        return None, 0.0
    return cubic, total - (cubic or 0.0)


def _warm(base: FilePath, path: Path) -> float:
    """Return the round trips to the first byte of a request in a session."""
    with routed(path) as (hosts, _), _publishing(base, hosts[0], ALONE_MIB) as (source, _):
        with source.open("rb") as file:
            key = hashlib.sha1(file.read(KEY_BYTES)).hexdigest()
        command = [sys.executable, "-m", "benchmarks.warm_request", hosts[0].address, str(PORT)]
        done = subprocess.run(
            hosts[1].command(*command, key, hosts[1].address),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=FilePath(__file__).parents[1],
        )
    if done.returncode:
        note(f"    warm request: {done.stderr[-500:]}")
    took = json.loads(done.stdout)
    note(f"    warm request: {took}")
    return float(took["request"]) / float(took["ping"])
