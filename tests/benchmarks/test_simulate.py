"""Each scenario runs at small size and says what it should; a seed is played the same again."""

import asyncio
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import engines, scenarios, trials
from benchmarks.engines import EngineMissing, play_all
from benchmarks.monte_carlo import Model, Rule
from benchmarks.progress import Bar
from benchmarks.scenarios.publish_fetch import publish
from benchmarks.simulate import main
from benchmarks.stage import percentile, silent
from bytestag.sim.checkers import Lost, Stuck, Wrong
from bytestag.sim.loop import Deadlock

SMALL = {
    "join": (["--lookups", "10"], {"join_wall_per_node", "memory_per_node", "hops", "recall"}),
    "hops": (["--lookups", "20"], {"hops", "hops_of_model", "hops_off_model", "closest_found"}),
    "publish-fetch": (["--values", "5"], {"publish_recall", "get_success", "get_seconds_p95"}),
    "mass-death": (
        ["--values", "5", "--lookups", "5"],
        {"closest_found", "lookup_seconds_p50", "get_success", "values_with_a_live_holder"},
    ),
    "churn": (
        ["--values", "5", "--lookups", "10", "--hours", "0.5"],
        {"traffic_per_node", "get_at_once", "get_with_one_retry", "ends_per_node_hour"},
    ),
    "leave": (
        ["--values", "5", "--days", "0.3"],
        {"read_with_one_retry", "copies_running_mean", "bytes_per_node_day"},
    ),
    "sweep": (
        ["--keys", "100", "--lookups", "10"],
        {"announce_datagrams_per_key", "announce_recall", "renewal_datagrams_per_key"},
    ),
    "idle": (["--hours", "0.5"], {"traffic_per_node", "datagrams_per_node"}),
    "flash-crowd": (
        ["--readers", "4", "--file-bytes", "300000"],
        {"fetch_success", "fetch_seconds_p95", "publisher_share"},
    ),
}


def told(capsys, *arguments):
    """Run the command; return its exit status and its JSON."""
    status = main([*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_scenarios_are_those_that_are_listed():
    assert set(SMALL) == set(scenarios.NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long) if n == "leave" else n for n in scenarios.NAMES],
)
def test_a_scenario_runs_at_small_size_and_its_rows_are_present(name, capsys):
    options, rows = SMALL[name]
    _, answer = told(capsys, "--scenario", name, "--nodes", "24", *options)
    (record,) = answer["records"]
    assert not record["error"]
    assert rows <= {row["name"] for row in answer["rows"]}
    assert len(answer["trace"]) == 64
    assert answer["trace"] == record["trace"]
    assert answer["parameters"]["nodes"] == 24
    assert answer["version"] == record["version"]
    assert answer["seeds"] == [1]
    assert f"--scenario {name} --seed 1" in record["command"]


@pytest.mark.slow
def test_the_same_seed_has_the_same_trace_and_another_seed_another(capsys):
    def trace(seed):
        options = ("--scenario", "publish-fetch", "--nodes", "15", "--values", "3")
        return told(capsys, *options, "--seed", seed)[1]["trace"]

    assert trace("4") == trace("4")
    assert trace("4") != trace("5")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["publish-fetch", "mass-death", pytest.param("sweep", marks=pytest.mark.long), "flash-crowd"],
)
def test_a_scenario_runs_in_a_population(name, capsys):
    options = [*SMALL[name][0], "--population", "1"]
    status, answer = told(capsys, "--scenario", name, "--nodes", "3000", *options)
    assert status == 0, answer["rows"]


@pytest.mark.slow
def test_lists_of_parameters_and_seeds_are_jobs_of_their_own(capsys):
    options = ("--scenario", "hops", "--nodes", "200,300", "--lookups", "5", "--seeds", "1-2")
    _, answer = told(capsys, *options)
    played = [(record["parameters"]["nodes"], record["seed"]) for record in answer["records"]]
    assert played == [(200, 1), (200, 2), (300, 1), (300, 2)]
    hops = {row["name"]: row for row in answer["rows"]}["hops nodes=300"]
    assert hops["min"] <= hops["value"] <= hops["max"]
    assert answer["parameters"]["nodes"] == [200, 300]


class Scenario:
    """Stands in for a scenario's module."""

    DEFAULTS: dict = {}  # noqa: RUF012

    def __init__(self, play):
        self.play = play


@pytest.mark.parametrize(
    ("error", "status"),
    [(Wrong("x"), 21), (Lost("x"), 22), (Stuck("x"), 23), (Deadlock("x"), 23), (None, 0)],
)
def test_the_exit_status_tells_what_kind_of_failure_it_was(error, status, monkeypatch, capsys):
    async def play(stage):
        stage.row("a", 1, "s", "<=", 2)
        if error is not None:
            raise error

    monkeypatch.setattr(scenarios, "load", lambda name: Scenario(play))
    assert main(["--scenario", "join", "--nodes", "7"]) == status
    replay = "replay: python -m benchmarks.simulate --nodes 7 --scenario join --seed 1"
    assert (replay in capsys.readouterr().err) == bool(status)


async def read_another_value(stage, values):
    stage.checker.delivered(next(iter(values)), b"another")


async def overflow(stage, values):
    bucket = stage.cluster.nodes[3].client.protocol.router.buckets[0]
    most = next(iter(bucket.nodes.values()))
    bucket.nodes.update({bytes([number]) * 20: most for number in range(30)})


async def silence_the_holders(stage, values):
    for node in stage.cluster.holders(min(values)):
        node.client._serving.handle = lambda link, request: None
        node.client.protocol._holdings.describe_now = lambda key, reply: None


async def leave_a_future(stage, values):
    stage.left = stage.world.loop.create_future()
    stage.left.add_done_callback(print)


async def leave_timers(stage, values):
    async def start():
        asyncio.get_running_loop().call_later(1e6, print)

    for node in stage.running:
        await node.run(start())


@pytest.mark.parametrize(
    ("sabotage", "status", "reason"),
    [
        (read_another_value, 21, "delivered with wrong bytes"),
        (overflow, 21, "nodes of <Node 3"),
        (silence_the_holders, 22, "cannot read it"),
        (leave_a_future, 23, "futures are left"),
        (leave_timers, 23, "it is still called"),
        (None, 0, ""),
    ],
)
def test_a_scenario_is_judged_from_outside(sabotage, status, reason, monkeypatch, capsys):
    async def play(stage):
        await stage.join(8)
        values = await publish(stage, stage.cluster.nodes[0], is_judged=False)
        if sabotage is not None:
            await sabotage(stage, values)

    scenario = Scenario(play)
    scenario.DEFAULTS = {"copies": 3, "values": 4, "value_bytes": 500}
    monkeypatch.setattr(scenarios, "load", lambda name: scenario)
    found, answer = told(capsys, "--scenario", "publish-fetch", "--nodes", "8")
    assert found == status
    assert reason in answer["records"][0]["error"]


def test_a_missed_target_is_exit_status_1(monkeypatch, capsys):
    async def play(stage):
        stage.row("a", 3, "s", "<=", 2)

    monkeypatch.setattr(scenarios, "load", lambda name: Scenario(play))
    status, answer = told(capsys, "--scenario", "join")
    assert (status, answer["ok"], answer["rows"][0]["holds"]) == (1, False, False)


@pytest.mark.parametrize("options", [["--dead-share", "0.5"], ["--nodes", "x"], ["--seeds", "a"]])
def test_what_means_nothing_is_refused(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--scenario", "idle", *options])
    assert caught.value.code == 2


@pytest.mark.parametrize(("engine", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_an_engine_that_is_not_installed_is_an_error_with_a_hint(engine, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    made = [trials.make_trial("hops", {"nodes": 10}, 1)] * 2
    with pytest.raises(EngineMissing, match=r"bytestag\[cluster\]"):
        play_all(made, engine, 0, silent)


def test_a_worker_with_many_threads_plays_one_trial_at_a_time(monkeypatch):
    playing, most = [], []

    def play(trial):
        playing.append(trial)
        most.append(len(playing))
        threading.Event().wait(0.01)
        playing.remove(trial)
        return trial

    monkeypatch.setattr(engines, "play", play)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(engines._play_alone, range(8))) == list(range(8))
    assert max(most) == 1


def test_the_model_finds_the_closest_node_in_few_hops():
    hops = Model(2000, Rule(), seed=1).hops(100)
    assert 0 not in hops
    assert max(hops) <= 3
    wide, narrow = Model(2000, Rule(k=20)), Model(2000, Rule(k=4))
    assert sum(wide.hops(100)) < sum(narrow.hops(100))


def test_percentiles_are_among_the_numbers():
    assert percentile([], 50) == 0
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 95) == 95
    assert percentile([5], 95) == 5


def test_without_a_terminal_each_quarter_is_a_line(capsys):
    bar = Bar(sys.stderr)
    for done in range(101):
        bar("joining", done, 100)
    bar.close()
    assert len(capsys.readouterr().err.splitlines()) == 4
