"""What the DHT can do, each line beside its target, with peers on the same work.

    python -m benchmarks.dht_report --json
    python -m benchmarks.dht_report --rows half-dead,sockets --seeds 3
    python -m benchmarks.dht_report --rows leave-long

Figures are medians over seeds, for rows whose one run takes less than two minutes; longer ones are
run once. ``--quick`` ends within five minutes and shrinks what it can measure honestly at a reduced
size; the size stands in the name, and rows whose time is virtual share the cores. The modules of
``benchmarks/dht_rows`` say what is counted.
Exit status: 0, 1 if a figure misses its target.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks import dht_rows
from benchmarks.dht_rows.figures import Figure, Scale
from benchmarks.report import Report, Row, _line, note

SEEDS = 5
QUICK_SEEDS = 1
TOGETHER = 2
"""Rows in virtual time that are measured at once with ``--quick``."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    names = [name for name in dht_rows.ROWS if name not in dht_rows.LONG]
    if given.rows:
        names = given.rows.split(",")
        unknown = [name for name in names if name not in dht_rows.ROWS]
        if unknown:
            _parser().error(f"--rows: {', '.join(unknown)}? There are {', '.join(dht_rows.ROWS)}")
    report = Report("dht_report", given)
    seeds = given.seeds or (QUICK_SEEDS if given.quick else SEEDS)
    scales = {name: Scale(name, given.quick, seeds) for name in names}
    together = [name for name in names if name in dht_rows.VIRTUAL] if given.quick else []
    found: dict[str, list[Figure]] = {}
    with ThreadPoolExecutor(TOGETHER) as threads:  # each waits for a process
        measured = threads.map(_measure, [scales[name] for name in sorted(together, key=_haste)])
        for name, rows in zip(sorted(together, key=_haste), measured, strict=True):
            found[name] = rows
    for name in names:
        report.rows += found.get(name) or _measure(scales[name])
    return report.finish()


def _haste(name: str) -> bool:
    """Sort what takes longest first."""
    return name != "leave"


def _measure(scale: Scale) -> list[Figure]:
    note(f"{scale.name}: {dht_rows.ROWS[scale.name]}")
    began, rows = time.monotonic(), []
    for row in dht_rows.load(scale.name).measure(scale):
        rows.append(row)
        note(f"  {_line(row)}{_peers(row)}")
    note(f"  ({scale.name}: {time.monotonic() - began:.0f} s)")
    return rows


def _peers(row: Row) -> str:
    told = [f"{name} {'–' if v is None else f'{v:g}'}" for name, v in row.peers.items()]
    return f"  [{', '.join(told)}]" if told else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dht_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows:\n" + "\n".join(f"  {name}: {text}" for name, text in dht_rows.ROWS.items()),
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="reduced sizes, under 5 minutes")
    parser.add_argument("--rows", metavar="NAME,…", help="only these")
    parser.add_argument("--seeds", type=int, default=0, help=f"how many; {SEEDS} by default")
    return parser


if __name__ == "__main__":
    sys.exit(main())
