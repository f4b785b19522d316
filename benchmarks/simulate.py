"""Play a scenario in a virtual network, with the code that real nodes run.

    python -m benchmarks.simulate --nodes 1000 --scenario publish-fetch --seed 1 --json
    python -m benchmarks.simulate --nodes 200 --scenario mass-death --dead-share 0.1,0.3,0.5 \\
        --seeds 1-5 --plot dead.png

A list of seeds or of parameter values makes a job of each combination; jobs run beside each other.
Exit status: 0, 1 if a figure misses its target, 21, 22 or 23 if something was wrong, lost or stuck.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import scenarios
from benchmarks.engines import ENGINES, EngineMissing, play_all
from benchmarks.progress import Bar
from benchmarks.report import Report, Row, note
from benchmarks.trials import PARAMETERS, Record, Trial, make_trial
from bytestag.hashing import blake3


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    trials = _trials(given)
    bar = Bar(sys.stderr)
    try:
        records = play_all(trials, given.engine, given.jobs, bar)
    except EngineMissing as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        bar.close()
    if given.plot is not None:
        from benchmarks.plots import plot

        plot(given.scenario, records, given.plot)
    return _say(given, records)


def _say(given: argparse.Namespace, records: list[Record]) -> int:
    """Print what the records come to; return the exit status."""
    report = Report("simulate", given)
    report.rows = [row for rows, _ in _summary(records) for row in rows]
    for record in records:
        if record.error:
            note(record.error)
        elif record.exit_status:
            note(f"replay: {record.command}")
    status = max((record.exit_status for record in records), default=0)
    if not given.json:
        return max(report.finish(), status)
    ok = status == 0 and all(row.holds is not False for row in report.rows)
    traces = [record.trace for record in records]
    told = report._object(ok)
    told |= {
        "scenario": given.scenario,
        "seeds": sorted({record.seed for record in records}),
        "parameters": records[0].parameters if len(records) == 1 else _varied(records),
        "trace": traces[0] if len(traces) == 1 else blake3("".join(traces).encode()).hex(),
        "records": [record.as_dict() for record in records],
    }
    if len(records) > 1:
        told["rows"] = [
            asdict(row) | {"min": low, "max": high}
            for rows, bounds in _summary(records)
            for row, (low, high) in zip(rows, bounds, strict=True)
        ]
    print(json.dumps(told))
    return status if ok or status else 1


def _summary(records: list[Record]) -> list[tuple[list[Row], list[tuple[float, float]]]]:
    """Return for each parameter point the medians over its seeds, with the least and the most."""
    varied = _varied(records)
    points: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        named = [f"{n}={record.parameters[n]:g}" for n in varied if len(varied[n]) > 1]
        points[" ".join(named)].append(record)
    result = []
    for name, group in points.items():
        rows, bounds = [], []
        for row in group[0].rows:
            values = [r.number for record in group for r in record.rows if r.name == row.name]
            title = f"{row.name} {name}".strip()
            median = round(statistics.median(values), 4)
            rows.append(Row(title, median, row.unit, row.op, row.target))
            bounds.append((min(values), max(values)))
        result.append((rows, bounds))
    return result


def _varied(records: list[Record]) -> dict[str, list[Any]]:
    names = records[0].parameters
    return {name: list(dict.fromkeys(r.parameters[name] for r in records)) for name in names}


# --- The command line ----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", required=True, choices=scenarios.NAMES)
    parser.add_argument("--seed", dest="seeds", default="1", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", default="1", help="a number, a list 1,2,5 or a range 1-5")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    parser.add_argument("--engine", choices=ENGINES, default="processes", help="who runs the jobs")
    parser.add_argument("--jobs", type=int, default=0, help="at one time; 0 is one for each core")
    for name, (kind, default, text) in PARAMETERS.items():
        users = [s for s in scenarios.NAMES if name in scenarios.load(s).DEFAULTS]
        used = f" ({', '.join(users)})" if users else ""
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            metavar=kind.__name__.upper(),
            help=f"{text}; {default} unless the scenario says otherwise{used}",
        )
    return parser


def _trials(given: argparse.Namespace) -> list[Trial]:
    """Return a trial for each combination of what was given."""
    lists: dict[str, list[Any]] = {}
    uses = make_trial(given.scenario, {}, 0).parameters
    for name, (kind, _, _) in PARAMETERS.items():
        text = getattr(given, name)
        if text is None:
            continue
        if name not in uses:
            _parser().error(f"--{name.replace('_', '-')} means nothing to {given.scenario}")
        try:
            lists[name] = [kind(float(part) if kind is int else part) for part in text.split(",")]
        except ValueError:
            _parser().error(f"--{name.replace('_', '-')}: not a list of numbers: {text}")
    points = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    return [make_trial(given.scenario, p, seed) for p in points for seed in _seeds(given.seeds)]


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            seeds += range(int(first), int(last or first) + 1)
    except ValueError:
        _parser().error(f"--seeds: not a list of numbers: {text}")
    return seeds


if __name__ == "__main__":
    sys.exit(main())
