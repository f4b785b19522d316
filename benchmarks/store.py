"""Content store: storing and loading, beside kachery, git-annex and iroh on the same input.

Input: one file of 1 GiB and 10,000 files of 4 KiB, random bytes, on a RAM disk where there is one
(``/dev/shm``), so that the disk is not what is measured; every file was read before. Each run is a
whole process from its start to its end, into an empty store. The programs take turns; of three
rounds the median counts, of rates and of ratios within a round, after one that is not counted. The
small files are one ``add_directory``; kachery 2 knows no directories, so its function is called for
each file. Loading goes by hash: the path of each file, then all its bytes; for the large file
alone, and for all small ones.

kachery is installed into a virtual environment of its own, git-annex and iroh (its Python package)
are used if they are there. Judged: the large file at least 0.9 times as fast as kachery, the small
ones at least twice. ``store`` computes SHA-1 and BLAKE3 of each file, kachery SHA-1. ``--quick``
makes the large file 128 MiB and the small ones 1,000, and says so in the names of the rows.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import make_file
from benchmarks.report import Report, note, parse

MIB = 1024 * 1024
ROUNDS = 3
KACHERY = "kachery==2.0.3"
LARGE_RATIO_MIN = 0.9
SMALL_RATIO_MIN = 2.0

Programs = dict[str, Callable[[], None]]

_OURS = """
import sys
from pathlib import Path
from bytestag.store.content import ContentStore
store, what, target, hashes = ContentStore.of_user(), sys.argv[1], sys.argv[2], sys.argv[3]
digests = [bytes.fromhex(line) for line in Path(hashes).read_text().split()]
if what == "file":
    store.add_file(target)
elif what == "directory":
    store.add_directory(target)
elif what == "path":
    for digest in digests:
        assert store.find(digest).path
else:
    for digest in digests:
        assert store.read(store.find(digest)) is not None
store.close()
"""
_KACHERY = """
import glob, sys, contextlib, io
import kachery
what, target, hashes = sys.argv[1:]
uris = ["sha1://" + line for line in open(hashes).read().split()]
with contextlib.redirect_stdout(io.StringIO()):
    if what == "file":
        kachery.store_file_local(target)
    elif what == "directory":
        for path in sorted(glob.glob(target + "/*")):
            kachery.store_file_local(path)
    elif what == "path":
        for uri in uris:
            assert kachery.load_file(uri)
    else:
        for uri in uris:
            assert kachery.load_bytes(uri, None, None) is not None
"""
_IROH = """
import asyncio, sys, iroh
async def main():
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    node = await iroh.Iroh.persistent(sys.argv[1])
    class Done(iroh.AddCallback):
        async def progress(self, progress):
            pass
    await node.blobs().add_from_path(
        sys.argv[2], False, iroh.SetTagOption.auto(), iroh.WrapOption.no_wrap(), Done()
    )
    await node.node().shutdown()
asyncio.run(main())
"""


class Bench:
    """The input, the programs and where they store."""

    def __init__(self, base: Path, large_mib: int, small_files: int) -> None:
        self.base = base
        self.large = base / "large.bin"
        self.small = base / "small"
        self.small_files = small_files
        self.large_bytes = large_mib * MIB
        self.hashes = base / "hashes"
        self.kachery = install_kachery(base / "venv")
        note("making the input")
        make_file(self.large, large_mib)
        self.small.mkdir()
        for number in range(small_files):
            (self.small / f"{number:05}.bin").write_bytes(os.urandom(4096))

    def run(self, name: str, *arguments: object) -> None:
        """Run one program to its end."""
        python = sys.executable if name == "bytestag" else str(self.kachery)
        program = _OURS if name == "bytestag" else _KACHERY
        command = [python, "-c", program, *map(str, arguments), str(self.hashes)]
        environment = {**os.environ, "KACHERY_DIR": str(self.base / "store-kachery")}
        environment["BYTESTAG_STORE_DIR"] = str(self.base / "store-bytestag")
        environment["HOME"] = str(self.base)
        if name != "bytestag":
            environment.pop("PYTHONPATH", None)
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)

    def empty(self) -> None:
        """Begin with stores that hold nothing."""
        for path in self.base.glob("store-*"):
            shutil.rmtree(path)
        (self.base / "store-kachery").mkdir()

    def programs(self, what: str, target: Path) -> Programs:
        """Return what is compared with kachery."""
        found: Programs = {"bytestag": lambda: self.run("bytestag", what, target)}
        if self.kachery is not None:
            found["kachery"] = lambda: self.run("kachery", what, target)
        return found

    def others(self, target: Path) -> Programs:
        """Return what is printed only, where it is installed."""
        found: Programs = {}
        if shutil.which("git-annex"):
            found["git-annex"] = lambda: self._annex(target)
        if importlib.util.find_spec("iroh") and target.is_file():
            arguments = [sys.executable, "-c", _IROH, str(self.base / "store-iroh"), str(target)]
            found["iroh"] = lambda: _quiet(arguments)
        return found

    def _annex(self, target: Path) -> None:
        directory = self.base / "store-annex"
        subprocess.run(["git", "init", "-q", str(directory)], check=True)
        for arguments in (["config", "user.email", "a@b"], ["config", "user.name", "a"]):
            _quiet(["git", "-C", str(directory), *arguments])
        _quiet(["git", "-C", str(directory), "annex", "init", "-q"])
        copy = directory / target.name
        shutil.copytree(target, copy) if target.is_dir() else shutil.copyfile(target, copy)
        _quiet(["git", "-C", str(directory), "annex", "add", "-q", target.name])


def _quiet(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def install_kachery(directory: Path) -> Path | None:
    """Make an environment with kachery; return its Python, None if that fails."""
    note(f"installing {KACHERY}")
    python = directory / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", KACHERY]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([str(python), "-c", "import kachery"], check=True, cwd=directory)
    except (OSError, subprocess.CalledProcessError):
        note("kachery cannot be installed: its columns stay empty")
        return None
    return python


def measure(
    programs: Programs, amount: float, rounds: int, before: Callable[[], None]
) -> dict[str, list[float]]:
    """Return the rates of each program, by rounds; they take turns, first forwards, then back."""
    rates: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        order = list(programs) if turn % 2 else list(reversed(programs))
        for name in order:
            before()
            began = time.monotonic()
            programs[name]()
            if turn:
                rates[name].append(amount / (time.monotonic() - began))
    return rates


def add(
    report: Report, name: str, unit: str, rates: dict[str, list[float]], target: float | None
) -> None:
    """Add our median with the others' beside it, and the median of the rounds' ratios."""
    medians = {program: round(statistics.median(values), 4) for program, values in rates.items()}
    ours = medians.pop("bytestag")
    report.add(name, ours, unit)
    report.rows[-1].peers = {"kachery": None, **medians}
    note(f"    {report.rows[-1].peers}")
    if "kachery" in rates:
        ratios = [a / b for a, b in zip(rates["bytestag"], rates["kachery"], strict=True)]
        report.add(f"{name}_ratio", statistics.median(ratios), "x kachery", ">=", target)


def store_and_load(bench: Bench, report: Report, suffix: str) -> None:
    """Measure the large file, then the small ones."""
    megabytes = bench.large_bytes / 1e6
    kinds = (
        ("large", "file", bench.large, megabytes, "MB/s", LARGE_RATIO_MIN),
        ("small", "directory", bench.small, bench.small_files, "files/s", SMALL_RATIO_MIN),
    )
    for kind, what, target, amount, unit, ratio_min in kinds:
        bench.hashes.write_text("")
        programs = bench.programs(what, target)
        rates = measure(programs, amount, ROUNDS, bench.empty)
        rates |= measure(bench.others(target), amount, 1, bench.empty)
        judged = None if suffix else ratio_min  # start-up weighs too much in a smaller input
        add(report, f"store_{kind}{suffix}", unit, rates, judged)
        bench.empty()
        for program in programs.values():
            program()
        bench.hashes.write_text("\n".join(stored_hashes(bench)))
        for how in ("path", "bytes"):
            rates = measure(bench.programs(how, target), amount, ROUNDS, lambda: None)
            add(report, f"load_{kind}_{how}{suffix}", unit, rates, None)


def stored_hashes(bench: Bench) -> list[str]:
    """Return what our store holds of the input; not the manifest, which kachery has not."""
    sizes = {4096, bench.large_bytes}
    objects = (bench.base / "store-bytestag" / "objects").glob("*/*")
    return [path.name for path in sorted(objects) if path.stat().st_size in sizes]


def main() -> int:
    arguments = parse(__doc__)
    report = Report("store", arguments)
    large_mib, small_files = (128, 1000) if arguments.quick else (1024, 10_000)
    suffix = f"_{large_mib}MiB_{small_files}_files" if arguments.quick else ""
    memory = Path("/dev/shm")
    needed = 6 * large_mib * MIB
    fits = memory.is_dir() and shutil.disk_usage(memory).free > needed
    place = os.environ.get("TMPDIR") or (str(memory) if fits else None)
    with tempfile.TemporaryDirectory(dir=place) as temporary:
        note(f"in {temporary}")
        store_and_load(Bench(Path(temporary), large_mib, small_files), report, suffix)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
