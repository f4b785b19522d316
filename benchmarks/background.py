"""The background manner over real packets: what it adds to a queue, what it leaves to others.

100 Mbit/s, 50 ms, a queue of two products, no loss. ``share --background`` publishes, ``fetch``
reads. Alone: how long packets waited in the router's queue, the median and the 95th percentile of
all, the start included. Beside one CUBIC flow of 15 s (iperf3), which begins when the fetch is
under way: what that flow reaches, of what it reaches alone through the same router.
``warm_request`` is measured here as well, on the idle path: round trips to the first byte in a
session that exists, in pings; what a node needs to read a value and to wake up counts, so it is 1.1
and not 1.
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
from dataclasses import replace
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
DELAY, DELAY_P95 = "background_queue_delay", "background_queue_delay_p95"
SHARE = "background_share_left_to_cubic"
TRIPS, FIRST_TRIPS = "warm_request_first_byte", "first_request_with_handshake"
ROWS = (
    (DELAY, "ms", "<=", 20.0),
    (DELAY_P95, "ms", "<=", 20.0),
    (SHARE, "%", ">=", 85.0),
    (TRIPS, "round trips", "<=", 1.5),
    (FIRST_TRIPS, "round trips", "<=", 1.5),
)


def measure(base: FilePath, report: Report, rounds: int, suffix: str) -> bool:
    """Add the rows of the background manner and of a warm request; return whether all are there."""
    found: dict[str, list[float]] = {name: [] for name, *_ in ROWS}
    for number in range(rounds):
        path = replace(PATH, seed=number + 1)
        if (waits := _alone(base, path)) is not None:
            found[DELAY].append(waits[0])
            found[DELAY_P95].append(waits[1])
        if (share := _share_left(base, path)) is not None:
            found[SHARE].append(share)
        if (trips := _warm(base, path)) is not None:
            found[TRIPS].append(trips[0])
            found[FIRST_TRIPS].append(trips[1])
    for name, unit, op, target in ROWS:
        value = round(statistics.median(found[name]), 2) if found[name] else None
        report.add(name + suffix, value, unit, op, None if suffix else target)
    return all(found.values())


def add_nothing(report: Report, suffix: str) -> None:
    """Add the rows, none of which could be measured."""
    for name, unit, op, target in ROWS:
        report.add(name + suffix, None, unit, op, None if suffix else target)


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


def _alone(base: FilePath, path: Path) -> tuple[float, float] | None:
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
    return None if code else (bulk["wait_us_p50"] / 1000, bulk["wait_us_p95"] / 1000)


def _share_left(base: FilePath, path: Path) -> float | None:
    """Return how many percent CUBIC reaches beside us of what it reaches alone."""
    with routed(path) as (hosts, _):
        alone = flow(hosts, "cubic", CUBIC_SECONDS)
    with routed(path) as (hosts, _):
        programs: list[Program] = []
        with _publishing(base, hosts[0], BESIDE_MIB) as (_, link), stopping(programs):
            programs.append(_fetch(base, hosts[1], link))
            time.sleep(SETTLING_SECONDS)
            before, began = hosts[1].received()[0], time.monotonic()
            beside = flow(hosts, "cubic", CUBIC_SECONDS)
            total = (hosts[1].received()[0] - before) * 8e-6 / (time.monotonic() - began)
            is_over = programs[0].process.poll() is not None
    note(f"    background: cubic {beside} Mbit/s, alone {alone}; all together {total:.1f}")
    if is_over or not (alone and beside):
        note("    not counted: a flow ended before its time")
        return None
    return 100 * beside / alone


def _warm(base: FilePath, path: Path) -> tuple[float, float] | None:
    """Return the round trips to the first byte of a request: in a session, and with none yet."""
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
        return None
    took = json.loads(done.stdout)
    note(f"    warm request: {took}")
    return took["request"] / took["ping"], took["first"] / took["ping"]
