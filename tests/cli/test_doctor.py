"""``bytestag doctor``, without a node and with one."""

import json

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(program, list(map(str, arguments)))

    return run


def test_every_failed_line_is_followed_by_its_fix(invoke):
    done = invoke("doctor")
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert "[!!] node: none runs here" in lines
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        assert line.startswith(("[ok] ", "[!!] ", "     fix: "))
        assert line.startswith("[!!] ") == following.startswith("     fix: ")


def test_a_wrong_configuration_file_is_a_finding_not_the_end(invoke, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("cache_sise = '1GiB'\n")
    for path in (config, tmp_path / "none.toml"):
        done = invoke("doctor", "--json", "--config", path)
        answer = json.loads(done.stdout)
        assert (done.exit_code, answer["ok"]) == (1, False)
        assert (answer["checks"][0]["name"], answer["checks"][0]["ok"]) == ("config", False)
        assert len(answer["checks"]) > 5
    config.write_text("cache_size = '1PiB'\n")
    answer = json.loads(invoke("doctor", "--json", "--config", config).stdout)
    found = {check["name"]: check["ok"] for check in answer["checks"]}
    assert found["config"]
    assert not found["disk"]


@pytest.mark.slow
def test_a_running_node_is_looked_at(programs):
    _, address = programs.node("one")
    two, _ = programs.node("two", "--known-node", address)
    _, lines, _ = programs.run("two", "doctor", "--json")
    found = {check["name"]: check for check in json.loads(lines[0])["checks"]}
    for name in ("config", "key", "state", "database", "node", "contacts", "reachable"):
        assert found[name]["ok"], found[name]
    assert "port" not in found
    assert two.end() == 0
