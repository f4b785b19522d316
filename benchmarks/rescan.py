"""Sharing many small files again, of which none has changed.

100,000 files of some 100 bytes in 1,000 directories, in memory where there is such a place.
``first``: hashed, described and written to the database; ``again``: median of 3 scans that find
nothing new, in the same process. Not measured: the start of a command, and publishing. ``--quick``:
10,000 files, judged in proportion.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Report, note, parse
from bytestag.tables.shared import SharedFilesKVPTable

SECONDS_MAX = 2.0
FILES = 100_000
FILES_PER_DIRECTORY = 100
MEMORY = Path("/dev/shm")
OLD = 1_000_000_000


def make_files(directory: Path, count: int, value: Callable[[int], bytes]) -> None:
    """Make files, a hundred to a directory, that were last written long ago."""
    for number in range(count):
        path = directory / f"{number // FILES_PER_DIRECTORY:04}" / f"{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value(number))
        os.utime(path, (OLD, OLD))


def look_again(base: Path, report: Report, count: int) -> None:
    """Share small files and scan them three times more."""
    note(f"making {count:,} files")
    source = base / "source"
    make_files(source, count, lambda number: b"%d" % number * 20)
    table = SharedFilesKVPTable(base / "shared.db", time.time)
    table.add_path(source)
    took = []
    for _ in range(4):
        began = time.perf_counter()
        result = table.scan()
        took.append(time.perf_counter() - began)
        note(f"{result.files:,} files, {result.hashed:,} hashed: {took[-1]:.2f} s")
    table.close()
    first, again = took[0], took[1:]
    report.add(f"first_{count}_files", first, "s")
    limit = SECONDS_MAX * count / FILES
    report.add(f"again_{count}_files", statistics.median(again), "s", "<=", limit)
    report.add("hashed_again", result.hashed, "files", "==", 0)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("rescan", arguments)
    where = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=where) as temporary:
        look_again(Path(temporary), report, FILES // 10 if arguments.quick else FILES)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
