"""Sharing: how fast a tree is hashed, described and written to the database, and looked at again.

Input, random bytes, on a RAM disk where there is one (``/dev/shm``), read before: one file of
1 GiB; 10,000 files of 4 KiB in 100 directories; the 100,000 files of :mod:`benchmarks.rescan`. The
database lies there too, so its flushes cost next to nothing. Medians of 3 rounds, in which we and
the others take turns.

``large``: a scan of the large file: SHA-1 and BLAKE3 of the file and of each part, its description,
all rows committed. Beside it, before and after each round, the limit: two threads that do nothing
but these four hashes, of 256 KiB that lie in the cache. ``large_of_limit`` is the median of the
rounds' ratios; ``read_limit`` is what is left of the limit if each thread reads its half of the
file as well, and is not judged. ``small_in_process``: a scan of the small files, until the last row
and the manifest are committed; ``small_command``: ``bytestag share`` from its start until the link
stands on its stdout. ``again``: a scan that finds nothing new.

Not measured: cold disks, publishing, and the watching for changes. libtorrent 2.1 hashes the same
input for a hybrid torrent (SHA-1 and SHA-256 of parts, no names of whole files), kachery copies it
into its store as it hashes (SHA-1); each where it can be imported. ``--quick``: 128 MiB, 1,000 and
10,000 files; of the small ones only the last are judged, in proportion.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import Program, make_file, stopping
from benchmarks.report import Report, note, parse
from benchmarks.rescan import FILES, MEMORY, OLD, look_again, make_files
from bytestag.config import MIB, PART_BYTES
from bytestag.hashing import blake3, sha1
from bytestag.tables.shared import SharedFilesKVPTable

ROUNDS = 3
SMALL_BYTES = 4096
RATE_MIN = 0.75  # GB/s
LIMIT_SHARE_MIN = 0.85
SMALL_RATE_MIN = 10_000
COMMAND_SECONDS_MAX = 1.6

_KACHERY = """
import os, sys, contextlib, io
import kachery
with contextlib.redirect_stdout(io.StringIO()):
    for directory, _, names in os.walk(sys.argv[1]):
        for name in names:
            kachery.store_file_local(os.path.join(directory, name))
"""


def make_large(path: Path, size: int) -> None:
    """Make a large file that was last written long ago."""
    make_file(path, size // MIB)
    os.utime(path, (OLD, OLD))


# --- Ours ----------------------------------------------------------------------------------------


def scan(path: Path) -> float:
    """Scan a path into a new database; return the seconds that it took."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        table = SharedFilesKVPTable(Path(directory, "shared.db"), time.time)
        table.add_path(path)
        began = time.perf_counter()
        result = table.scan()
        took = time.perf_counter() - began
        table.close()
    assert result.files
    assert not result.warnings
    return took


def command_seconds(path: Path) -> float:
    """Share a path with the command; return the seconds until its link is there."""
    with tempfile.TemporaryDirectory(dir=path.parent) as home:
        program = Program(["share", "--host", "127.0.0.1", str(path)], Path(home))
        with stopping([program]):
            link = program.line(120)
            took = time.monotonic() - program.began
    assert link.startswith("bytestag://")
    return took


# --- The limit -----------------------------------------------------------------------------------


def limit(size: int, path: Path | None = None) -> float:
    """Return the bytes a second of two threads that hash; of ``path``, if given, each a half."""

    def work(half: int) -> None:
        block = memoryview(bytearray(os.urandom(PART_BYTES)))
        source = None if path is None else os.open(path, os.O_RDONLY)
        for at in range(half * size // 2, (half + 1) * size // 2, PART_BYTES):
            if source is not None:
                os.preadv(source, [block], at)
            for _whole_and_part in range(2):
                sha1(block)
                blake3(block)
        if source is not None:
            os.close(source)

    threads = [threading.Thread(target=work, args=(half,)) for half in range(2)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size / (time.perf_counter() - began)


# --- Others --------------------------------------------------------------------------------------


def libtorrent_seconds(path: Path) -> float | None:
    """Hash a path for a hybrid torrent; None without libtorrent."""
    if importlib.util.find_spec("libtorrent") is None:
        return None
    import libtorrent

    torrent = libtorrent.create_torrent(libtorrent.list_files(str(path)), PART_BYTES)
    began = time.perf_counter()
    libtorrent.set_piece_hashes(torrent, str(path.parent))
    return time.perf_counter() - began


def kachery_seconds(path: Path) -> float | None:
    """Store all files below a path in a process of kachery's; None without it."""
    if importlib.util.find_spec("kachery") is None:
        return None
    with tempfile.TemporaryDirectory(dir=path.parent) as store:
        environment = {**os.environ, "KACHERY_DIR": store}
        began = time.monotonic()
        command = [sys.executable, "-c", _KACHERY, str(path)]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.monotonic() - began


def in_turns(works: dict[str, Callable[[], float | None]]) -> dict[str, float | None]:
    """Run each several times, the first time for warmth; return medians of seconds."""
    took: dict[str, list[float | None]] = {name: [] for name in works}
    for turn in range(ROUNDS + 1):
        for name in works if turn % 2 else reversed(works):
            seconds = works[name]()
            if turn:
                took[name].append(seconds)
    return {
        name: None if None in values else statistics.median(filter(None, values))
        for name, values in took.items()
    }


# --- Rows ----------------------------------------------------------------------------------------


def share_large(base: Path, report: Report, size: int) -> None:
    """Measure the large file beside the limits."""
    path, name = base / "large.bin", f"large_{size // MIB}_MiB"
    note("making the large file")
    make_large(path, size)
    ratios: list[float] = []
    limits: list[float] = []

    def ours() -> float:
        before = limit(size)
        processor = time.process_time()
        seconds = scan(path)
        processors.append(time.process_time() - processor)
        limits.extend((before, limit(size)))
        ratios.append(size / seconds / statistics.mean(limits[-2:]))
        return seconds

    processors: list[float] = []
    took = in_turns({"ours": ours, "libtorrent": lambda: libtorrent_seconds(path)})
    assert took["ours"]
    report.add(name, size / took["ours"] / 1e9, "GB/s", ">=", RATE_MIN)
    other = took["libtorrent"]
    report.rows[-1].peers = {"libtorrent hybrid": other and round(size / other / 1e9, 3)}
    report.add(f"{name}_hash_limit", statistics.median(limits) / 1e9, "GB/s")
    share = statistics.median(ratios[1:])
    report.add(f"{name}_of_limit", share, "of the limit", ">=", LIMIT_SHARE_MIN)
    read = statistics.median(limit(size, path) for _ in range(ROUNDS))
    report.add(f"{name}_read_limit", read / 1e9, "GB/s")
    per_gib = statistics.median(processors) * 2**30 / size
    report.add(f"{name}_processor_seconds", per_gib, "s/GiB")
    path.unlink()


def share_small(base: Path, report: Report, count: int, *, is_judged: bool) -> None:
    """Measure the small files, in process and as a command."""
    path = base / "small"
    note("making the small files")
    make_files(path, count, lambda _number: os.urandom(SMALL_BYTES))
    took = in_turns(
        {
            "ours": lambda: scan(path),
            "libtorrent": lambda: libtorrent_seconds(path),
            "command": lambda: command_seconds(path),
            "kachery": lambda: kachery_seconds(path),
        }
    )
    rates = {name: seconds and float(round(count / seconds)) for name, seconds in took.items()}
    rate_min = SMALL_RATE_MIN if is_judged else None
    report.add(f"small_in_process_{count}_files", rates["ours"], "files/s", ">=", rate_min)
    report.rows[-1].peers = {"libtorrent hybrid": rates["libtorrent"]}
    seconds_max = COMMAND_SECONDS_MAX if is_judged else None
    report.add(f"small_command_{count}_files", took["command"], "s", "<=", seconds_max)
    report.rows[-1].peers = {"kachery": took["kachery"]}
    shutil.rmtree(path)


def main() -> int:
    arguments = parse(__doc__)
    report = Report("hashing", arguments)
    size, small, again = 1024 * MIB, 10_000, FILES
    if arguments.quick:
        size, small, again = 128 * MIB, 1000, FILES // 10
    fits = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 3 * size
    place = os.environ.get("TMPDIR") or (str(MEMORY) if fits else None)
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        base = Path(temporary)
        note(f"in {temporary}; load {os.getloadavg()[0]:.1f}")
        share_large(base, report, size)
        share_small(base, report, small, is_judged=not arguments.quick)
        look_again(base, report, again)
    report.add("load", os.getloadavg()[0], "processes")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
