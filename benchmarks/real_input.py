"""Real input: share, kill the publisher, fetch byte for byte from donors.

Input: Python's standard library (without site-packages and caches), a 1 GiB file, 10,000 files of
4 KiB, an empty file, names in four scripts. First the 1 GiB file alone from one publisher, the
``fetch`` command from start to finish, median of 3. Then 8 donor processes on loopback and a
publisher that gives no space: a ``node``, with ``share --until-copies 3`` through its door. When
``share`` has left, its node gets SIGKILL; ``fetch`` then reads from the donors alone, compared byte
for byte. Memory is the largest resident set, sampled every 50 ms. All processes share one machine;
the files lie on its disk. ``--quick`` makes the large file 128 MiB and the small ones 1,000, and
says so in the names of the rows.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from benchmarks.processes import Program, free_port, make_file, stopping
from benchmarks.report import Report, note, parse

MIB = 1024 * 1024
DONORS = 8
NAMES = ["наука.txt", "科学.txt", "επιστήμη.txt", "מדע.txt"]


def make_input(directory: Path, large_mib: int, small_files: int) -> None:
    """Make the directory that is shared."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    ignored = shutil.ignore_patterns("site-packages", "__pycache__", "*.pyc")
    shutil.copytree(stdlib, directory / "stdlib", ignore=ignored, symlinks=False)
    make_file(directory / "large.bin", large_mib)
    small = directory / "small"
    small.mkdir()
    for number in range(small_files):
        (small / f"{number:05}.bin").write_bytes(os.urandom(4096))
    (directory / "empty").touch()
    for name in NAMES:
        (directory / name).write_text(name)


def differences(left: Path, right: Path) -> int:
    """Count files and directories that are not the same on both sides."""
    wrong = 0
    for root, directories, files in os.walk(left):
        other = right / Path(root).relative_to(left)
        wrong += sum(not (other / name).is_dir() for name in directories)
        _, mismatch, errors = filecmp.cmpfiles(root, other, files, shallow=False)
        wrong += len(mismatch) + len(errors)
    ours = sum(len(files) for _, _, files in os.walk(left))
    theirs = sum(len(files) for _, _, files in os.walk(right))
    return wrong + abs(ours - theirs)


def start_donors(base: Path, programs: list[Program]) -> str:
    """Start the donors; return the address of the first."""
    port = free_port()
    first = f"127.0.0.1:{port}"
    for number in range(DONORS):
        arguments = ["node", "--host", "127.0.0.1", "--cache-size", "20GiB"]
        arguments += ["--port", str(port)] if number == 0 else ["--known-node", first]
        programs.append(Program(arguments, base / f"donor{number}"))
        time.sleep(1.0 if number == 0 else 0.2)
    time.sleep(3)
    return first


def outlive(base: Path, source: Path, report: Report, suffix: str) -> None:
    """Share to donors, kill the publisher, fetch."""
    programs: list[Program] = []
    with stopping(programs):
        first = start_donors(base, programs)
        arguments = ["node", "--host", "127.0.0.1", "--known-node", first, "--cache-size", "0"]
        publisher = Program(arguments, base / "publisher")
        programs.append(publisher)
        time.sleep(2)
        note("sharing until every value has 3 copies")
        began = time.monotonic()
        share = Program(["share", "--until-copies", "3", str(source)], base / "publisher")
        programs.append(share)
        link = share.line(300)
        seconds_link = time.monotonic() - began
        code = share.wait(900)
        seconds_share = time.monotonic() - began
        note(f"share ended with {code} after {seconds_share:.1f} s")
        if code:
            note(share.errors())
        killed = publisher.kill()
        began = time.monotonic()
        fetch = Program(["fetch", "--known-node", first, link, str(base / "got")], base / "reader")
        programs.append(fetch)
        fetch_code = fetch.wait(900)
        seconds_fetch = time.monotonic() - began
        if fetch_code:
            note(fetch.errors())
        report.add(f"share_exit_code{suffix}", code, "", "==", 0)
        report.add(f"publisher_exit_code{suffix}", killed, "", "==", -signal.SIGKILL)
        report.add(f"seconds_to_link{suffix}", seconds_link, "s")
        report.add(f"seconds_to_3_copies{suffix}", seconds_share, "s")
        report.add(f"seconds_to_fetch{suffix}", seconds_fetch, "s")
        total = seconds_share + seconds_fetch
        report.add(f"seconds_total{suffix}", total, "s", "<=", 600)
        report.add(f"differences{suffix}", differences(source, base / "got"), "files", "==", 0)
        report.add(f"publisher_rss_max{suffix}", publisher.rss_max / MIB, "MiB", "<=", 200)
        report.add(f"reader_rss_max{suffix}", fetch.rss_max / MIB, "MiB", "<=", 200)
        donors = max(program.rss_max for program in programs[:DONORS])
        report.add(f"donor_rss_max{suffix}", donors / MIB, "MiB", "<=", 200)


def one_publisher(base: Path, large: Path, report: Report, suffix: str) -> None:
    """Fetch the large file from its publisher alone, start to finish."""
    programs: list[Program] = []
    rates = []
    with stopping(programs):
        share = Program(["share", "--host", "127.0.0.1", str(large)], base / "single")
        programs.append(share)
        link = share.line(120)
        for run in range(3):
            began = time.monotonic()
            fetch = Program(["fetch", link, str(base / "large.out")], base / f"single-reader{run}")
            programs.append(fetch)
            code = fetch.wait(300)
            seconds = time.monotonic() - began
            if code or not filecmp.cmp(large, base / "large.out", shallow=False):
                note(fetch.errors())
                rates.append(0.0)
            else:
                rates.append(large.stat().st_size / seconds / 1e6)
            (base / "large.out").unlink(missing_ok=True)
            rss = max(program.rss_max for program in programs)
        rates.sort()
        note(f"MB/s: {rates[0]:.0f} – {rates[-1]:.0f}")
        target = None if suffix else 100  # start-up weighs too much in a smaller file
        report.add(f"one_publisher_median{suffix}", rates[1], "MB/s", ">=", target)
        report.add(f"one_publisher_rss_max{suffix}", rss / MIB, "MiB", "<=", 200)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("real_input", arguments)
    large_mib, small_files = (128, 1000) if arguments.quick else (1024, 10_000)
    suffix = f"_{large_mib}MiB_{small_files}_files" if arguments.quick else ""
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        base = Path(temporary)
        source = base / "input"
        source.mkdir()
        note("making the input")
        make_input(source, large_mib, small_files)
        one_publisher(base, source / "large.bin", report, suffix)
        outlive(base, source, report, suffix)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
