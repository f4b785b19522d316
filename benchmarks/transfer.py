"""One file from one node to another on this machine, beside others who do the same.

    python -m benchmarks.transfer --json
    python -m benchmarks.transfer --size-mib 256 --peers libtorrent,curl

Each program serves the file and fetches it as its users would, in turns; medians of the runs, and
each fetched file is compared byte for byte. *Spawn to exit* is the whole command; *request* is from
the first event of ``fetch --json`` to its last, which excludes starting Python. Processor time is
that of both sides while the file moves, memory the largest resident set of either (of a server,
hashing the file included). The limit is a program of two processes that does what cannot be left
out: UDP, encryption, BLAKE3, writing. ``ping_p99``: of pings to the sender each 10 ms, from a third
process, while it is idle and while it sends. Data lies in /dev/shm where there is one. Nothing is
said of real networks (see ``benchmarks.wan``), nor of disks. ``--quick`` moves 256 MiB, once each.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contenders import FOUR_SOURCES, OURS, PEERS, Contender, Served, bytestag
from benchmarks.pings import Pings
from benchmarks.processes import make_file
from benchmarks.report import Report, Row, note
from bytestag.uri import Link

MIB = 1024 * 1024
MIB_QUICK = 256
RUNS = 3
IDLE_SECONDS = 2.0
TIMEOUT_SECONDS = 180
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """What one fetch came to."""

    seconds: float
    request_seconds: float
    cpu_seconds: float
    rss_mib: float


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    report = Report("transfer", given)
    mib = given.size_mib or (MIB_QUICK if given.quick else 1024)
    runs = 1 if given.quick else RUNS
    chosen = given.peers.split(",") if given.peers != "all" else [peer.name for peer in PEERS]
    unknown = set(chosen) - {peer.name for peer in PEERS}
    if unknown:
        _parser().error(f"--peers: {', '.join(sorted(unknown))}?")
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="bytestag-", dir=memory if memory.is_dir() else None))
    try:
        file = base / "file.bin"
        make_file(file, mib)
        _one_source(report, file, mib, runs, [p for p in PEERS if p.name in chosen])
        _four_sources(report, file, mib, runs)
        _pings(report, file)
        without = Contender("bytestag", lambda: True, bytestag(BYTESTAG_OFFLOAD="0"))
        figures = _measure([without], file, mib, runs)["bytestag"]
        report.rows.append(
            Row(
                "no_offload_request_mb_s", _rate(mib, figures, "request_seconds"), "MB/s", ">=", 200
            )
        )
    finally:
        shutil.rmtree(base)
    return report.finish()


def _one_source(
    report: Report, file: Path, mib: int, runs: int, peers: Sequence[Contender]
) -> None:
    limits: list[float] = []
    found = _measure([OURS, *peers], file, mib, runs, limits)
    ours, torrent = found["bytestag"], found.get("libtorrent")
    request = _rate(mib, ours, "request_seconds")
    whole = _rate(mib, ours, "seconds")
    limit = mib * MIB / 1e6 / statistics.median(limits)
    rates: dict[str, float | None] = {
        name: _rate(mib, figures, "seconds") for name, figures in found.items()
    }
    del rates["bytestag"]
    cpu: dict[str, float | None] = {name: _cpu(mib, figures) for name, figures in found.items()}
    theirs = rates.get("libtorrent")
    rows = report.rows
    rows.append(Row("request_mb_s", request, "MB/s", ">=", None, peers=rates))
    rows.append(Row("limit_mb_s", limit, "MB/s"))
    rows.append(Row("request_of_limit", request / limit, "share", ">=", 0.6))
    missing: dict[str, float | None] = {"libtorrent": None} if torrent is None else {}
    rows.append(
        Row("request_of_libtorrent", theirs and request / theirs, "times", ">=", 2.0, peers=missing)
    )
    rows.append(
        Row("spawn_to_exit_of_libtorrent", theirs and whole / theirs, "times", ">=", 1.4,
            peers=missing)
    )  # fmt: skip
    rows.append(Row("spawn_to_exit_mb_s", whole, "MB/s", ">=", None, peers=rates))
    rows.append(Row("cpu_s_per_gib", cpu.pop("bytestag"), "s", "<=", 2.0, peers=cpu))
    memory: dict[str, float | None] = {
        name: max(f.rss_mib for f in figures) for name, figures in found.items()
    }
    rows.append(Row("rss_mib", memory.pop("bytestag"), "MiB", "<=", 150, peers=memory))


def _four_sources(report: Report, file: Path, mib: int, runs: int) -> None:
    found = _measure(FOUR_SOURCES, file, mib, runs)
    one = next(row.value for row in report.rows if row.name == "request_mb_s")
    four = _rate(mib, found["bytestag"], "request_seconds")
    torrent = found.get("libtorrent")
    rate = _rate(mib, torrent, "seconds") if torrent else None
    report.rows.append(
        Row("four_sources_mb_s", four, "MB/s", ">=", None, peers={"libtorrent": rate})
    )
    report.rows.append(Row("four_sources_of_one", four / (one or four), "times", ">=", 1.0))


def _pings(report: Report, file: Path) -> None:
    """How long the sender's control plane takes while it sends as fast as it can."""
    with _served(OURS, file) as (served, out):
        (address,) = Link.parse(served.fetch(out)[-2]).hints
        with Pings(address) as idle:
            time.sleep(IDLE_SECONDS)
        with Pings(address) as pings:
            _fetch(served, out, file)
    for name, seconds, target in (("idle", idle.seconds, None), ("loaded", pings.seconds, 10)):
        p99 = sorted(seconds)[len(seconds) * 99 // 100]
        note(f"  {len(seconds)} pings, {name}: p99 {p99 * 1000:.1f} ms")
        report.rows.append(Row(f"ping_p99_{name}", p99 * 1000, "ms", "<=", target))


def _measure(
    contenders: Sequence[Contender],
    file: Path,
    mib: int,
    runs: int,
    limits: list[float] | None = None,
) -> dict[str, list[Figures]]:
    """Let each fetch the file in turn, several times; those that are missing are left out."""
    found: dict[str, list[Figures]] = {}
    for number in range(runs):
        for contender in contenders:
            if not contender.is_here() or mib > contender.mib_max:
                continue
            figures = _run(contender, file)
            found.setdefault(contender.name, []).append(figures)
            rate = mib * MIB / 1e6 / figures.seconds
            note(f"  {number + 1} {contender.name}: {rate:.0f} MB/s, {figures.cpu_seconds:.2f} s")
        if limits is not None:
            limits.append(_limit(file))
    return found


def _run(contender: Contender, file: Path) -> Figures:
    with _served(contender, file) as (served, out):
        return _fetch(served, out, file)


@contextmanager
def _served(contender: Contender, file: Path) -> Iterator[tuple[Served, Path]]:
    """Serve a file for a while; give what serves it, and the path to fetch it to."""
    place = Path(tempfile.mkdtemp(dir=file.parent))
    out = place / "out" / file.name
    out.parent.mkdir()
    try:
        with contender.serve(file, place) as served:
            time.sleep(1)
            yield served, out
    finally:
        shutil.rmtree(place)


def _fetch(served: Served, out: Path, file: Path) -> Figures:
    before = sum(_cpu_of(server.pid) for server in served.servers)
    began = time.perf_counter()
    command = served.fetch(out)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, **served.environment},
    )  # fmt: skip
    assert process.stdout is not None
    times = [time.perf_counter() for _ in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    ended = time.perf_counter()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not filecmp.cmp(file, out, shallow=False):
        raise RuntimeError(f"it did not bring the file ({process.returncode}): {command}")
    cpu = sum(_cpu_of(server.pid) for server in served.servers) - before
    rss = max(usage.ru_maxrss / 1024, *(_rss_of(server.pid) for server in served.servers))
    request = times[-1] - times[0] if len(times) > 1 else ended - began
    return Figures(ended - began, request, cpu + usage.ru_utime + usage.ru_stime, rss)


def _limit(file: Path) -> float:
    out = file.parent / "limit.bin"
    command = [sys.executable, "-m", "benchmarks.peers.udp_limit", str(file), str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    )
    out.unlink()
    return float(done.stdout)


def _rate(mib: int, figures: Sequence[Figures], of: str) -> float:
    seconds: list[float] = [getattr(f, of) for f in figures]
    return mib * MIB / 1e6 / statistics.median(seconds)


def _cpu(mib: int, figures: Sequence[Figures]) -> float:
    return statistics.median(f.cpu_seconds for f in figures) * 1024 / mib


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _rss_of(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = (int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    return next(found, 0.0)  # 0 of one that ended with the transfer, as wormhole's sender does


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="256 MiB, once each")
    parser.add_argument("--size-mib", type=int, help="size of the file (1024)")
    parser.add_argument(
        "--peers", default="all", help=f"all, or some of {','.join(peer.name for peer in PEERS)}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
