"""What every benchmark prints: rows with targets, as a table or as one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import bytestag

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": lambda value, target: value <= target,
    ">=": lambda value, target: value >= target,
    "==": lambda value, target: value == target,
}


@dataclass
class Row:
    """One figure. ``target`` None is for information; ``value`` None could not be measured."""

    name: str
    value: float | None
    unit: str
    op: str = "<="
    target: float | None = None
    holds: bool | None = None
    peers: dict[str, float | None] = field(default_factory=dict)

    @property
    def number(self) -> float:
        """The value of a row that was measured."""
        assert self.value is not None, f"{self.name} was not measured"
        return self.value

    def __post_init__(self) -> None:
        if self.target is not None and self.value is not None:
            self.holds = OPERATORS[self.op](self.value, self.target)


class Report:
    """Collects rows and prints them."""

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        self.name = name
        self._arguments = arguments
        self.rows: list[Row] = []

    def add(
        self, name: str, value: float | None, unit: str, op: str = "<=", target: float | None = None
    ) -> None:
        """Add a row and say it on stderr."""
        row = Row(name, None if value is None else round(value, 4), unit, op, target)
        self.rows.append(row)
        note(f"  {_line(row)}")

    def finish(self) -> int:
        """Print everything; return the exit code."""
        ok = all(row.holds is not False for row in self.rows)
        if self._arguments.json:
            print(json.dumps(self._object(ok)))
        else:
            print(self.name, "ok" if ok else "FAILED")
            for row in self.rows:
                print(" ", _line(row))
        return 0 if ok else 1

    def _object(self, ok: bool) -> dict[str, Any]:
        return {
            "benchmark": self.name,
            "command": "python -m benchmarks." + " ".join([self.name, *sys.argv[1:]]),
            "version": bytestag.__version__,
            "machine": {
                "system": platform.platform(),
                "processors": os.cpu_count(),
                "python": platform.python_version(),
            },
            "ok": ok,
            "rows": [asdict(row) for row in self.rows],
        }


def parse(description: str | None) -> argparse.Namespace:
    """Read the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="reduced sizes, under 5 minutes")
    return parser.parse_args()


def note(text: str) -> None:
    """Say something on stderr."""
    print(text, file=sys.stderr, flush=True)


def _line(row: Row) -> str:
    if row.value is None:
        return f"{row.name}: not measured"
    judged = "" if row.target is None else f"  ({row.op} {row.target:g}: {_verdict(row)})"
    return f"{row.name}: {row.value:g} {row.unit}{judged}"


def _verdict(row: Row) -> str:
    return "holds" if row.holds else "does NOT hold"
