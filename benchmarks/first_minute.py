"""The first minute of a stranger: virtual environment, install, share, fetch on the link alone.

Measured: the wall time of a new virtual environment with ``pip install``, of ``share`` in one
process until it prints its link, and of ``fetch`` in another process that is given only that link.
Each has its own home and state. The download from the package index is part of it, so a slow index
makes the total slow; ``--quick`` changes nothing.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import Program, stopping
from benchmarks.report import Report, note, parse

ROOT = Path(__file__).parents[1]


def install(directory: Path) -> tuple[str, float]:
    """Make a virtual environment with bytestag; return its python and the seconds."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = str(directory / "bin" / "python")
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", str(ROOT)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return python, time.monotonic() - began


def make_files(directory: Path) -> None:
    directory.mkdir()
    (directory / "hello.txt").write_text("hello\n")
    (directory / "empty").touch()
    (directory / "data.bin").write_bytes(bytes(range(256)) * 8192)


def main() -> int:
    report = Report("first_minute", parse(__doc__))
    programs: list[Program] = []
    with tempfile.TemporaryDirectory() as temporary, stopping(programs):
        base = Path(temporary)
        note("installing into a new virtual environment")
        python, seconds_install = install(base / "venv")
        make_files(base / "demo")
        began = time.monotonic()
        share = Program(["share", "--host", "127.0.0.1", str(base / "demo")], base / "a", python)
        programs.append(share)
        link = share.line(60)
        seconds_link = time.monotonic() - began
        note(f"link: {link}")
        began = time.monotonic()
        fetch = Program(["fetch", link, str(base / "got")], base / "b", python)
        programs.append(fetch)
        code = fetch.wait(60)
        seconds_fetch = time.monotonic() - began
        names = ["hello.txt", "empty", "data.bin"]
        _, wrong, missing = filecmp.cmpfiles(base / "demo", base / "got", names, shallow=False)
        if code:
            note(fetch.errors())
        report.add("seconds_to_install", seconds_install, "s")
        report.add("seconds_to_link", seconds_link, "s")
        report.add("seconds_to_fetch", seconds_fetch, "s", "<=", 5)
        total = seconds_install + seconds_link + seconds_fetch
        report.add("seconds_total", total, "s", "<=", 60)
        report.add("files_wrong", len(wrong) + len(missing) + (code != 0), "files", "==", 0)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
