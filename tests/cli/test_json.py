"""The objects of ``--json`` that need no network have the keys of their page."""

import json
import os

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program
from bytestag.gateway.door import Door
from bytestag.tables.built_in import VALUE
from tests.cli.test_processes import documented_keys


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    for name in ("BYTESTAG_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))

    def run(*arguments):
        return json.loads(CliRunner().invoke(program, [*arguments, "--json"]).stdout)

    return run


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prv", (os.devnull,)),
        ("prv", (os.path.dirname(__file__),)),
        ("down", ()),
        ("service", ("show",)),
        ("service", ("uninstall",)),
        ("doctor", ()),
        ("completion", ("fish",)),
        ("man", ()),
    ],
)
def test_an_object_has_the_keys_of_its_page(invoke, name, arguments):
    found = invoke(name, *arguments)
    assert found.keys() == documented_keys()["error" if "type" in found else name]


def test_the_health_of_a_node_has_the_keys_of_its_page(invoke, monkeypatch):
    monkeypatch.setattr(Door, "find", lambda _state: Door)
    monkeypatch.setattr(Door, "read", lambda *_arguments, **_query: VALUE)
    assert invoke("health").keys() == documented_keys()["health"]


def test_each_check_of_the_doctor_has_the_same_keys(invoke):
    checks = invoke("doctor")["checks"]
    assert {tuple(check) for check in checks} == {("name", "ok", "text", "fix")}
