"""The objects of ``--json`` that need no network have the keys of their page."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program
from bytestag.gateway.door import Door
from bytestag.tables.built_in import VALUE
from tests.cli.test_processes import documented_keys


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith(("BYTESTAG", "KACHERY")):
            monkeypatch.delenv(name)
    for name in ("BYTESTAG_HOME", "XDG_CONFIG_HOME", "HOME"):
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


# --- The content store ---------------------------------------------------------------------------

NESTED = {
    "stored": {"type", "files", "size"},
    "entries": {"name", "type", "size", "sha1"},
    "checks": {"check", "ok", "text", "fix"},
    "removed": {"sha1", "size"},
    "problems": {"sha1", "path", "what"},
}
"""What the objects inside of objects have: all keys of the page's paragraph on them."""


class Seen:
    """The keys of all objects that commands print, by the object's name on the page."""

    def __init__(self):
        self.keys = {}
        self.nested = {}

    def run(self, name, *arguments):
        """Run a command that needs no network; return the objects it prints."""
        words = [*name.split(), *map(str, arguments), "--json"]
        found = CliRunner().invoke(program, words).stdout.splitlines()
        objects = [json.loads(line) for line in found]
        for each in objects:
            is_error = each.get("type") == "error"
            self.keys.setdefault("error" if is_error else name, set()).update(each)
            for key in NESTED.keys() & each.keys():
                inner = each[key] if isinstance(each[key], list) else [each[key]]
                for one in inner:
                    self.nested.setdefault(key, set()).update(one)
        return objects


def test_the_objects_of_the_store_have_the_keys_of_their_page(invoke, source, tmp_path):
    seen = Seen()
    (file,) = seen.run("store", source / "a.txt")
    (tree,) = seen.run("store", source)
    link, directory = file["link"], tree["link"]
    seen.run("load", link)
    seen.run("load", directory, "--dest", tmp_path / "all")
    assert len(seen.run("load", f"{directory}/*", "--dest", tmp_path / "some")) == 3
    for what in (link, directory, f"{directory}/*"):
        seen.run("load --dry-run", what)
    seen.run("ls", directory)
    for what in (link, directory, source / "a.txt"):
        seen.run("info", what)
    seen.keys["info"].add("is_claimed")  # of what is elsewhere: see test_processes.py
    for what in (link, f"sha1://{'00' * 20}"):
        seen.run("why", what, "--local-only")
    assert len(seen.run("list")) == 5
    seen.run("pin", link)
    seen.run("pin", link, "--undo")
    seen.run("rm", link, f"sha1://{'00' * 20}")
    content = Path(seen.run("load", f"{directory}/big", "--local-only")[0]["path"])
    content.chmod(0o644)
    content.write_bytes(b"damaged")
    (verified,) = seen.run("verify")
    assert (verified["ok"], len(verified["problems"])) == (False, 1)
    (collected,) = seen.run("gc", "--max-size", "0")
    assert collected["removed"]
    documented = documented_keys()
    assert seen.keys == {name: documented[name] for name in seen.keys}
    assert seen.keys.keys() >= {"error", "store", "load", "ls", "info", "why", "list", "pin", "rm"}
    assert seen.nested == NESTED


@pytest.mark.parametrize("name", ["load", "ls", "info", "cat", "pin", "rm"])
def test_what_is_not_found_is_the_object_of_an_error(invoke, name):
    extra = [] if name in ("pin", "rm") else ["--local-only"]
    found = invoke(name, f"sha1://{'00' * 20}", *extra)
    assert found.keys() == documented_keys()["error"]
    assert (found["code"], found["exit"]) == (("usage", 2) if name == "cat" else ("not_found", 3))
