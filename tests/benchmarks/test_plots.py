"""Every scenario has a figure, drawn from records."""

import pytest

from benchmarks import scenarios
from benchmarks.report import Row
from benchmarks.trials import Record, make_trial

pytest.importorskip("matplotlib")
plots = pytest.importorskip("benchmarks.plots")

ROWS = (
    "hops", "hops_of_model", "join_wall_per_node", "memory_per_node", "lookup_seconds_p50",
    "lookup_seconds_p95", "get_seconds_p50", "get_seconds_p95", "closest_found", "get_success",
    "traffic_per_node", "get_at_once", "get_with_one_retry", "announce_datagrams_per_key",
    "renewal_datagrams_per_key", "bytes_per_node_day", "copies_in_all_mean", "copies_running_mean",
)  # fmt: skip
CURVES = ("get_seconds", "copies_in_all", "copies_running", "traffic", "fetch_seconds")


def records(name):
    for nodes in (10, 20):
        for seed in (1, 2):
            trial = make_trial(name, {"nodes": nodes}, seed)
            yield Record(
                name,
                trial.parameters,
                seed,
                trial.command,
                rows=[Row(row, nodes / 10 + seed, "s") for row in ROWS],
                series={curve: [[0, 1], [1, nodes]] for curve in CURVES},
            )


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios.NAMES)
def test_each_scenario_has_a_figure_and_the_same_records_give_the_same_file(name, tmp_path):
    for number in range(2):
        plots.plot(name, list(records(name)), tmp_path / f"{number}.svg")
    first = (tmp_path / "0.svg").read_bytes()
    assert first.startswith(b"<?xml")
    assert first == (tmp_path / "1.svg").read_bytes()
    plots.plot(name, list(records(name)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_where_the_repair_period_was_varied_the_figure_of_leaving_is_about_it(tmp_path):
    made = list(records("leave"))[::2]
    plots.plot("leave", made, tmp_path / "copies.svg")
    for minutes, record in zip((15, 240), made, strict=True):
        record.parameters |= {"nodes": 40, "repair_minutes": minutes}
        record.series = {}
    plots.plot("leave", made, tmp_path / "repair.svg")
    assert plots.varied(made) == "repair_minutes"
    assert (tmp_path / "repair.svg").read_bytes() != (tmp_path / "copies.svg").read_bytes()


def test_failed_trials_leave_an_empty_figure(tmp_path):
    (record, *_) = records("hops")
    record.error = "Lost: a value"
    plots.plot("hops", [record], tmp_path / "empty.svg")
    assert (tmp_path / "empty.svg").exists()


def test_the_parameter_that_differs_is_what_a_figure_is_about():
    made = list(records("hops"))
    assert plots.varied(made) == "nodes"
    assert plots.varied(made[:1], "dead_share") == "dead_share"
    assert plots.points(made, "nodes", "hops") == ([10, 20], [[2.0, 3.0], [3.0, 4.0]])
