"""Fetching over bad networks: real packets through a router with delay, loss and rate.

Two network namespaces, between them :mod:`benchmarks.router`: 300 Mbit/s and 50 ms at 0, 1 and 2 %
loss, 1 Gbit/s and 200 ms at 1 %; the loss both ways, a queue of one product of rate and round trip,
packets of 1,500 bytes. ``share`` publishes a file in one, ``fetch`` reads it in the other, both as
commands. ``goodput``: bytes of the file, by the time between the first 64 KiB that reached the
reader's interface and the last: the start of the flow is included, that of the command is not;
``whole_command`` includes it, the last hash and, the first time, the making of a key. Every file is
compared; a fetch that fails counts as 0. Beside it iperf3 with CUBIC and BBR for 10 s, the start
included, through the same router with the same seeds, buffers beyond every need; medians of 3
rounds, in which all take turns. ``waste``: bodies sent again, of all that were sent once, counted
in the router; ``waste_needless``: of them those that it had delivered before.

``cable``: namespaces joined by a veth pair, all packets of 1,500 bytes or less; the sender's kernel
cuts trains, the reader's joins them (GRO) or not. No delay, no loss, no limit.

The router and the two nodes share the machine: ``late`` is the worst share of packets that it
delivered more than 5 ms after their time, ``overrun`` of those that never reached it. Figures from
runs in which they are not close to 0 say more about the machine than about the transfer. The rows
of :mod:`benchmarks.background` follow. Not measured: reordering, bursts of loss, paths whose rate
changes. Needs root, iproute2, util-linux and /dev/net/tun, ethtool for
``cable``; where one is missing the rows are ``null`` and the exit code is 1. ``--quick``: 64 MiB,
one round, not judged: the start of a flow weighs too much.
"""

from __future__ import annotations

import filecmp
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from benchmarks import background, iperf
from benchmarks.namespaces import Host, Meter, cabled, missing, routed
from benchmarks.processes import Program, make_file, stopping
from benchmarks.report import Report, note, parse
from benchmarks.router import Path

ROUNDS = 3
PEER_SECONDS = 10
FETCH_SECONDS_MAX = 180
PORT = 38664
PEERS = ("cubic", "bbr")
MEMORY = FilePath("/dev/shm")


@dataclass
class Row:
    """One path and what is asked of it."""

    name: str
    path: Path
    size_mib: int
    target: float | None
    """Mbit/s; None: as much as BBR."""


ROWS = [
    Row("300Mbit_50ms_0%", Path(300, 50), 384, 275),
    Row("300Mbit_50ms_1%", Path(300, 50, 0.01), 384, 250),
    Row("300Mbit_50ms_2%", Path(300, 50, 0.02), 384, 230),
    Row("1Gbit_200ms_1%", Path(1000, 200, 0.01), 1024, None),
]
CABLE_SIZE_MIB = 1024
CABLE_TARGETS = {"on": 600, "off": 200}
WASTE_MAX = 0.013
WASTE_ROW = "300Mbit_50ms_1%"


@dataclass
class Fetch:
    """What one fetch showed."""

    goodput: float = 0.0
    """Mbit/s, as what the whole command reaches; 0: it failed."""
    whole: float = 0.0
    waste: float = 0.0
    """Shares of what was sent, as the next three."""
    needless: float = 0.0
    late: float = 0.0
    overrun: float = 0.0
    unread: int = 0
    """Datagrams for which the reader's socket had no room."""


def _command(name: str, arguments: list[str], home: FilePath, host: Host) -> Program:
    """Start a command of a node whose key was made the first time."""
    identity = home.with_suffix(".key")
    arguments = [name, "--identity", str(identity), *arguments]
    return Program(arguments, home, prefix=host.command())


def fetch(base: FilePath, source: FilePath, hosts: list[Host]) -> Fetch:
    """Publish at the first host, fetch at the second."""
    programs: list[Program] = []
    reader, target = base / "reader", base / "fetched"
    try:
        with stopping(programs):
            arguments = ["--host", hosts[0].address, "--port", str(PORT), str(source)]
            programs.append(_command("share", arguments, base / "publisher", hosts[0]))
            link = programs[0].line(120)
            meter = Meter(hosts[1])
            began = time.monotonic()
            arguments = ["--host", hosts[1].address, link, str(target)]
            programs.append(_command("fetch", arguments, reader, hosts[1]))
            try:
                code = programs[1].wait(FETCH_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                code = -1
            whole, flow = time.monotonic() - began, meter.stop()
            if code or not filecmp.cmp(source, target, shallow=False):
                note(f"fetch ended with {code}: {programs[1].errors()}")
                return Fetch()
        size = source.stat().st_size * 8 / 1e6
        return Fetch(size / flow, size / whole, unread=hosts[1].unread())
    finally:
        target.unlink(missing_ok=True)
        shutil.rmtree(reader, ignore_errors=True)


def fetch_routed(base: FilePath, source: FilePath, path: Path) -> Fetch:
    """Fetch through a router."""
    with routed(path) as (hosts, router):
        result = fetch(base, source, hosts)
        overruns = [host.received()[1] for host in hosts]
        figures = router.stop()
    packets = sum(direction["packets"] for direction in figures)
    bodies = figures[0]
    once = max(bodies["bulk"] - bodies["again"], 1)
    result.waste, result.needless = bodies["again"] / once, bodies["needless"] / once
    result.late = sum(direction["late"] for direction in figures) / max(packets, 1)
    result.overrun = sum(overruns) / max(packets, 1)
    note(f"    {result}, dropped {bodies['dropped']}, lost {bodies['lost']}")
    return result


def flow_of_peer(control: str, path: Path) -> float | None:
    """Return the Mbit/s of iperf3 with a congestion control, None where it cannot run."""
    with routed(path) as (hosts, router):
        rate = iperf.flow(hosts, control, PEER_SECONDS)
        overruns = [host.received()[1] for host in hosts]
        late = max(direction["late"] for direction in router.stop())
    note(f"    {control}: {rate} Mbit/s, {late} late, {sum(overruns)} overrun")
    return None if rate is None else round(rate, 1)


def median_of_peer(values: list[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return round(statistics.median(measured), 1) if measured else None


def measure(base: FilePath, row: Row, report: Report, rounds: int, suffix: str) -> list[Fetch]:
    """Measure one path; judge it unless it is a reduced one."""
    source = base / "input"
    make_file(source, row.size_mib)
    ours: list[Fetch] = []
    theirs: dict[str, list[float | None]] = {control: [] for control in PEERS}
    for number in range(rounds):
        path = replace(row.path, seed=number + 1)
        ours.append(fetch_routed(base, source, path))
        for control in PEERS:
            theirs[control].append(flow_of_peer(control, path))
    goodputs = sorted(result.goodput for result in ours)
    note(f"Mbit/s: {goodputs[0]:.1f} – {goodputs[-1]:.1f}; {theirs}")
    peers = {control: median_of_peer(values) for control, values in theirs.items()}
    target = peers["bbr"] if row.target is None else row.target
    judged = None if suffix else target
    median = statistics.median(goodputs)
    report.add(f"goodput_{row.name}{suffix}", median, "Mbit/s", ">=", judged)
    report.rows[-1].peers = peers
    whole = statistics.median(result.whole for result in ours)
    report.add(f"whole_command_{row.name}{suffix}", whole, "Mbit/s", ">=")
    if row.name == WASTE_ROW:
        wastes = [result.waste for result in ours if result.goodput]
        waste = statistics.median(wastes) if wastes else None
        needless = [result.needless for result in ours if result.goodput]
        report.add(f"waste_{row.name}{suffix}", waste, "", "<=", None if suffix else WASTE_MAX)
        share = statistics.median(needless) if needless else None
        report.add(f"waste_needless_{row.name}{suffix}", share, "")
    shutil.rmtree(base / "publisher", ignore_errors=True)
    return ours


def measure_cable(base: FilePath, report: Report, size: int, rounds: int, suffix: str) -> None:
    """Measure without a router, with and without joining of packets at the reader."""
    source = base / "input"
    make_file(source, size)
    rates: dict[str, list[Fetch]] = {gro: [] for gro in CABLE_TARGETS}
    for _ in range(rounds):
        for gro, results in rates.items():
            with cabled(gro=gro == "on") as hosts:
                results.append(fetch(base, source, hosts))
                note(f"    GRO {gro}: {results[-1]}")
    for gro, results in rates.items():
        median = statistics.median(result.goodput for result in results) / 8
        whole = statistics.median(result.whole for result in results) / 8
        target = None if suffix else CABLE_TARGETS[gro]
        report.add(f"cable_gro_{gro}{suffix}", median, "MB/s", ">=", target)
        report.add(f"cable_gro_{gro}_whole_command{suffix}", whole, "MB/s", ">=")


def add_nothing(report: Report, suffix: str) -> None:
    """Add the rows of the router, none of which could be measured."""
    for row in ROWS:
        target = None if suffix else row.target
        report.add(f"goodput_{row.name}{suffix}", None, "Mbit/s", ">=", target)
        report.rows[-1].peers = dict.fromkeys(PEERS)
    target = None if suffix else WASTE_MAX
    report.add(f"waste_{WASTE_ROW}{suffix}", None, "", "<=", target)
    background.add_nothing(report, suffix)


def add_no_cable(report: Report, suffix: str) -> None:
    """Add the rows of the cable, none of which could be measured."""
    for gro, target in CABLE_TARGETS.items():
        judged = None if suffix else target
        report.add(f"cable_gro_{gro}{suffix}", None, "MB/s", ">=", judged)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("wan", arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    rounds = 1 if arguments.quick else ROUNDS
    suffix = "_64MiB" if arguments.quick else ""
    lacking, is_whole = missing(), True
    fetches: list[Fetch] = []
    directory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        base = FilePath(temporary)
        if lacking:
            note(f"cannot make networks: {lacking}")
            add_nothing(report, suffix)
        else:
            for row in ROWS:
                row = replace(row, size_mib=64) if suffix else row
                fetches += measure(base, row, report, rounds, suffix)
            is_whole = background.measure(base, report, rounds, suffix)
            report.add("late", max(fetch.late for fetch in fetches), "")
            report.add("overrun", max(fetch.overrun for fetch in fetches), "")
        if lacking:
            add_no_cable(report, suffix)
        elif shutil.which("ethtool") is None:
            lacking = "needs ethtool"
            note(f"cannot make a cable: {lacking}")
            add_no_cable(report, suffix)
        else:
            size = 64 if suffix else CABLE_SIZE_MIB
            measure_cable(base, report, size, rounds, suffix)
    return max(report.finish(), bool(lacking) or not is_whole)


if __name__ == "__main__":
    sys.exit(main())
