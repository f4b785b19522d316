"""The tools of scientists open our URLs from another node, and a range costs its own bytes.

One node process shares a directory with CSV, Parquet, NetCDF, Zarr 3 and NPY files. Each tool runs
in a process and a home of its own that holds nothing, is given the plain URL with the address of
the sharing node, and compares what it reads with the local files: 1 if all is equal.
All are given the URL, but for ``h5netcdf_file`` and ``numpy_npy``, which are given a file of
fsspec. ``forked_readers`` stands for PyTorch's data loader, which is not run itself. What is not
installed (``pip install '.[bench]'``) has no value.

``range_bytes_share_*``: what a read of 1 % in the middle of a file of random bytes moves, divided
by the file's size, by ``bytestag cat``, ``bytestag.load_bytes`` and fsspec's ``cat_file``. Counted
is what the system counts for the loopback device: headers, handshake, look-up, descriptions and
both directions included. Whatever other programs send there is counted as well; with
``unshare -rn sh -c 'ip link set lo up && python -m benchmarks.ecosystem'`` there are none.
``--quick`` takes a file of 128 MiB in place of 1 GiB. How fast all this is, is not measured here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import ecosystem_tools
from benchmarks.processes import Program, make_file, stopping
from benchmarks.report import Report, note, parse

MIB = 1024 * 1024
LINK_SECONDS = 120.0
CASE_SECONDS = 180.0
WAYS = ("cat", "load_bytes", "cat_file")


def run(arguments: list[str], home: Path) -> bytes:
    """Run Python with a home of its own; return what it prints."""
    home.mkdir(parents=True)
    others = {k: v for k, v in os.environ.items() if not k.startswith(("BYTESTAG", "KACHERY"))}
    environment = {**others, "BYTESTAG_HOME": str(home), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        timeout=CASE_SECONDS,
        check=False,
    )
    if done.returncode or done.stderr:
        note(done.stderr.decode(errors="replace")[-2000:])
    return done.stdout if done.returncode == 0 else b""


def share(path: Path, home: Path, programs: list[Program]) -> str:
    """Share a path by a process that stays; return the link."""
    program = Program(["share", str(path), "--host", "127.0.0.1"], home)
    programs.append(program)
    return program.line(LINK_SECONDS)


def open_by_tools(base: Path, report: Report, programs: list[Program]) -> None:
    """Add a row for each tool."""
    names = [function.__name__ for function in ecosystem_tools.CASES]
    data = base / "data"
    try:
        ecosystem_tools.make(data)
    except ModuleNotFoundError as error:
        note(f"{error.name} is not installed: pip install '.[bench]'")
        for name in names:
            report.add(name, None, "equal", "==", 1)
        return
    link = share(data, base / "sharing", programs)
    for name in names:
        arguments = ["-m", "benchmarks.ecosystem_tools", name, link, str(data)]
        found = json.loads(run(arguments, base / name) or b"{}")
        if "missing" in found:
            note(f"{name}: {found['missing']} is not installed")
            report.add(name, None, "equal", "==", 1)
        else:
            report.add(name, float(found.get("equal", False)), "equal", "==", 1)


def moved_bytes() -> int:
    """Return the bytes that went over the loopback device so far."""
    return int(psutil.net_io_counters(pernic=True)["lo"].bytes_sent)


def read_ranges(base: Path, report: Report, programs: list[Program], mib: int) -> None:
    """Add a row for each way to read 1 % of a file."""
    path, size = base / "random.bin", mib * MIB
    note(f"making and sharing {mib} MiB of random bytes")
    make_file(path, mib)
    link = share(path, base / "sharing-random", programs)
    start, end = size // 2 + 12_345, size // 2 + 12_345 + size // 100
    with path.open("rb") as file:
        file.seek(start)
        wanted = hashlib.sha256(file.read(end - start)).digest()
    before = moved_bytes()
    time.sleep(2)
    note(f"others move {(moved_bytes() - before) // 2:,} bytes/s over loopback")
    wrong = 0
    bounds = [str(start), str(end)]
    for way in WAYS:
        if way == "cat":
            arguments = ["-m", "bytestag", "cat", link, "--start", bounds[0], "--end", bounds[1]]
        else:
            arguments = ["-m", "benchmarks.ecosystem_tools", way, link, *bounds]
        before = moved_bytes()
        found = run(arguments, base / f"range-{way}")
        moved = moved_bytes() - before
        wrong += hashlib.sha256(found).digest() != wanted
        report.add(f"range_bytes_share_{mib}mib_{way}", moved / size, "of the file", "<=", 0.02)
    report.add("ranges_wrong", wrong, "ranges", "==", 0)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("ecosystem", arguments)
    programs: list[Program] = []
    with tempfile.TemporaryDirectory() as temporary, stopping(programs):
        base = Path(temporary)
        open_by_tools(base, report, programs)
        read_ranges(base, report, programs, 128 if arguments.quick else 1024)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
