"""Plots of what trials came to, as a paper would have them.

One figure for each scenario, about the parameter that was varied: points are trials, lines join the
medians over the seeds. matplotlib is in the extra ``[bench]``.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from benchmarks.trials import PARAMETERS, Record

STYLE: dict[Any, object] = {  # keys are any strings, or literals since matplotlib 3.11
    "figure.figsize": (5.2, 3.4),
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.markersize": 4,
    "svg.hashsalt": "bytestag",  # the same figure is the same file
}
COLORS = ("#1b6ca8", "#c1442d", "#4c8c4a", "#7a5195", "#8a6d1d")
LABELS = {
    "nodes": "nodes",
    "dead_share": "share of nodes that died at once",
    "alpha": "requests at one time, at first",
    "copies": "holders of each value",
    "session_minutes": "median session and time off (minutes)",
    "days": "days",
    "repair_minutes": "minutes between repairs",
}


def plot(scenario: str, records: Sequence[Record], path: Path) -> None:
    """Draw the figure of a scenario into a file; its suffix tells the format."""
    good = [record for record in records if not record.error]
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(layout="constrained")
        if good:
            FIGURES[scenario](figure, axes, good)
        # Without the date, so that the same figure is the same file.
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)
        pyplot.close(figure)


# --- What was varied -----------------------------------------------------------------------------


def varied(records: Sequence[Record], default: str = "nodes") -> str:
    """Return the parameter that differs between the records."""
    names = [n for n in PARAMETERS if len({str(r.parameters.get(n)) for r in records}) > 1]
    return names[0] if names else default


def points(
    records: Sequence[Record], parameter: str, row: str
) -> tuple[list[float], list[list[float]]]:
    """Return the values of a parameter, ascending, and for each what the trials came to."""
    found: dict[float, list[float]] = defaultdict(list)
    for record in records:
        for figure in record.rows:
            if figure.name == row:
                found[record.parameters[parameter]].append(figure.number)
    return sorted(found), [found[x] for x in sorted(found)]


def _line(
    axes: Axes, records: Sequence[Record], parameter: str, row: str, label: str, color: str,
    style: str = "o-",
) -> None:  # fmt: skip
    xs, groups = points(records, parameter, row)
    axes.plot(xs, [statistics.median(g) for g in groups], style, color=color, label=label)
    for x, group in zip(xs, groups, strict=True):
        if len(group) > 1:
            axes.plot([x] * len(group), group, ".", color=color, alpha=0.35, markersize=3)


def _name(axes: Axes, parameter: str, y: str, title: str = "") -> None:
    axes.set_xlabel(LABELS.get(parameter, parameter.replace("_", " ")))
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=9)
    if parameter == "nodes":
        axes.set_xscale("log")


def _caption(records: Sequence[Record], *names: str) -> str:
    """Return parameters that all records share, for the title."""
    shown = []
    for name in names:
        values = {record.parameters.get(name) for record in records}
        if len(values) == 1:
            shown.append(f"{values.pop():,} {name.replace('_', ' ')}")
    seeds = len({record.seed for record in records})
    shown.append(f"{seeds} seed{'s' if seeds > 1 else ''}")
    return ", ".join(shown)


# --- Figures -------------------------------------------------------------------------------------


def _hops(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    _line(axes, records, "nodes", "hops", "measured, the node's code", COLORS[0], "o")
    _line(axes, records, "nodes", "hops_of_model", "model of its routing table", COLORS[1], "--")
    _name(axes, "nodes", "hops to the closest node", _caption(records, "lookups"))
    axes.set_ylim(bottom=0)
    axes.legend()


def _join(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    _line(axes, records, "nodes", "join_wall_per_node", "real time", COLORS[0])
    _name(axes, "nodes", "seconds per node", _caption(records))
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    _line(other, records, "nodes", "memory_per_node", "memory", COLORS[1], "s--")
    other.set(ylabel="MiB per node", ylim=(0, None))
    other.grid(visible=False)
    figure.legend(loc="outside upper right", ncols=2)


def _mass_death(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    parameter = varied(records, "dead_share")
    _line(axes, records, parameter, "lookup_seconds_p50", "look-up, median", COLORS[0])
    _line(axes, records, parameter, "lookup_seconds_p95", "look-up, 95 %", COLORS[0], "o:")
    _line(axes, records, parameter, "get_seconds_p50", "read, median", COLORS[1])
    _line(axes, records, parameter, "get_seconds_p95", "read, 95 %", COLORS[1], "o:")
    _name(axes, parameter, "seconds", _caption(records, "nodes", "copies"))
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    _line(other, records, parameter, "closest_found", "closest found", COLORS[2], "s--")
    _line(other, records, parameter, "get_success", "read, if a holder lives", COLORS[3], "^--")
    held = "values_with_a_live_holder"
    _line(other, records, parameter, held, "values with a live holder", COLORS[4], "v--")
    other.set(ylabel="share that succeeded", ylim=(0, 1.05))
    other.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)


def _churn(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    parameter = varied(records, "session_minutes")
    _line(axes, records, parameter, "traffic_per_node", "sent", COLORS[0])
    _name(axes, parameter, "B/s per running node", _caption(records, "nodes", "values", "copies"))
    axes.set_ylim(bottom=0)
    other = axes.twinx()
    _line(other, records, parameter, "get_at_once", "read at once", COLORS[2], "s--")
    _line(other, records, parameter, "get_with_one_retry", "with one retry", COLORS[3], "^--")
    other.set(ylabel="share that succeeded", ylim=(0, 1.05))
    other.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)


def _leave(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    if varied(records, "days") == "repair_minutes":
        _repair(figure, axes, records)
        return
    named = (("copies_in_all", "in all, on nodes that run or are off"),
             ("copies_running", "on nodes that run"))  # fmt: skip
    for (name, label), color in zip(named, COLORS, strict=False):
        for number, record in enumerate(records):
            xs, ys = zip(*record.series[name], strict=True)
            axes.plot(xs, ys, color=color, alpha=0.8, label="" if number else label)
    copies = {record.parameters["copies"] for record in records}
    for wanted in copies:
        axes.axhline(wanted, color="black", linewidth=0.8, linestyle=":")
    _name(axes, "days", "copies of a value", _caption(records, "nodes", "values"))
    axes.set_xlabel("days since the publisher left")
    axes.set_ylim(bottom=0)
    axes.legend()


def _repair(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    parameter = "repair_minutes"
    _line(axes, records, parameter, "bytes_per_node_day", "sent", COLORS[0])
    caption = _caption(records, "nodes", "values", "copies", "days")
    _name(axes, parameter, "sent by each node in a day", caption)
    periods = sorted({record.parameters[parameter] for record in records})
    axes.set(xscale="log", xticks=periods, xticklabels=[f"{p:g}" for p in periods], ylim=(0, None))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(EngFormatter("B"))
    other = axes.twinx()
    _line(other, records, parameter, "copies_in_all_mean", "copies, in all", COLORS[4], "v--")
    _line(other, records, parameter, "copies_running_mean", "copies, running", COLORS[2], "s--")
    other.set(ylabel="copies of a value", ylim=(0, None))
    other.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)


def _sweep(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
    parameter = varied(records, "keys")
    _line(axes, records, parameter, "announce_datagrams_per_key", "announced", COLORS[0])
    _line(axes, records, parameter, "renewal_datagrams_per_key", "renewed", COLORS[1])
    _name(axes, parameter, "datagrams sent per key", _caption(records, "nodes", "keys"))
    axes.set(xscale="log", yscale="log")
    axes.legend()


def _curves(*names: str, x: str, y: str) -> Callable[[Figure, Axes, Sequence[Record]], None]:
    """Return a figure of the records' own curves."""

    def draw(figure: Figure, axes: Axes, records: Sequence[Record]) -> None:
        for name, color in zip(names, COLORS, strict=False):
            for number, record in enumerate(records):
                if not record.series.get(name):
                    continue
                xs, ys = zip(*record.series[name], strict=True)
                label = "" if number else name.replace("_seconds", "")
                axes.plot(xs, ys, color=color, alpha=0.8, label=label)
        axes.set(xlabel=x, ylabel=y, ylim=(0, None), title=_caption(records, "nodes"))
        axes.title.set_fontsize(9)
        axes.legend()

    return draw


FIGURES: dict[str, Callable[[Figure, Axes, Sequence[Record]], None]] = {
    "join": _join,
    "hops": _hops,
    "publish-fetch": _curves("get_seconds", x="seconds", y="share of reads that ended"),
    "mass-death": _mass_death,
    "churn": _churn,
    "leave": _leave,
    "sweep": _sweep,
    "idle": _curves("traffic", x="hours", y="B/s per node"),
    "flash-crowd": _curves("fetch_seconds", x="seconds", y="share of readers that have the file"),
}
