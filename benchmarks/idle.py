"""Idle cost and start-up: a quiet node with 20 contacts; ``--version`` and ``--help``.

Measured: CPU, resident memory and traffic of one of 21 node processes that know each other, over 60
s after they settled; wall time of ``--version`` and ``--help``, median of 10 warm runs. Traffic is
counted at the loopback interface and divided by the number of nodes. Not measured: the hourly
refresh, unless it falls into that minute. ``--quick`` watches for 20 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.processes import Program, free_port, stopping
from benchmarks.report import Report, note, parse

OTHERS = 20


def start_seconds(option: str) -> float:
    """Return the median wall time of a command that only prints."""
    times = []
    command = [str(Path(sys.executable).parent / "bytestag"), option]
    for _ in range(11):
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.monotonic() - began)
    return statistics.median(times[1:])


def watch(base: Path, report: Report, seconds: float) -> None:
    """Watch one of 21 node processes doing nothing."""
    programs: list[Program] = []
    port = free_port()
    with stopping(programs):
        for number in range(OTHERS + 1):
            arguments = ["node", "--host", "127.0.0.1", "--cache-size", "10MiB"]
            if number:
                arguments += ["--known-node", f"127.0.0.1:{port}"]
            else:
                arguments += ["--port", str(port)]
            programs.append(Program(arguments, base / f"n{number}"))
            time.sleep(1.0 if not number else 0.3)
        note("letting it settle")
        time.sleep(20)
        watched = psutil.Process(programs[-1].process.pid)
        cpu, sent = sum(watched.cpu_times()[:2]), psutil.net_io_counters(pernic=True)["lo"]
        time.sleep(seconds)
        cpu = sum(watched.cpu_times()[:2]) - cpu
        bytes_sent = psutil.net_io_counters(pernic=True)["lo"].bytes_sent - sent.bytes_sent
        report.add("idle_cpu", 100 * cpu / seconds, "%", "<=", 1)
        report.add("idle_rss", watched.memory_info().rss / 2**20, "MiB", "<=", 100)
        traffic = bytes_sent / seconds / (OTHERS + 1)
        report.add("idle_traffic", traffic, "B/s", "<=", 1000)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("idle", arguments)
    for option in ("--version", "--help"):
        report.add(f"start{option}", 1000 * start_seconds(option), "ms", "<=", 150)
    with tempfile.TemporaryDirectory() as temporary:
        watch(Path(temporary), report, 20 if arguments.quick else 60)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
