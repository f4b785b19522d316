"""``bytestag health``, and the container that asks it."""

import configparser
import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program
from bytestag.errors import Unreachable
from bytestag.gateway.door import Door
from bytestag.hashing import blake3
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID, Verdict
from bytestag.tables.built_in import KEY, LINK, VALUE, BuiltInTable

ROOT = Path(__file__).parents[2]


class FakeDoor:
    def __init__(self, answer):
        self.answer = answer

    def read(self, path, /, **_query):
        assert path == "/v1/content"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("door", "code", "reason"),
    [
        (None, 1, "no node runs here"),
        (FakeDoor(b"other"), 1, "wrong bytes"),
        (FakeDoor(Unreachable("gone")), 1, "does not serve: gone"),
        (FakeDoor(VALUE), 0, None),
    ],
)
def test_the_exit_code_says_whether_the_node_serves(monkeypatch, door, code, reason):
    monkeypatch.setattr(Door, "find", lambda _state: door)
    done = CliRunner().invoke(program, ["health", "--json"])
    answer = json.loads(done.stdout)
    assert done.exit_code == code
    if reason is None:
        assert answer == {"ok": True, "link": str(LINK), "bytes": len(VALUE)}
    else:
        assert (answer["code"], answer["exit"]) == ("unhealthy", 1)
        assert reason in answer["message"]


def test_the_value_that_every_node_holds_is_one_that_nobody_changes():
    table = BuiltInTable()
    kvpid = KVPID(KEY, KEY)
    assert str(LINK) == "sha1://ac7fecd6033e4cf7489b82a357b18cd020bd7220/health.txt"
    assert list(table) == [kvpid]
    assert len(table) == 1
    (record,) = table.records_by_key(KEY)
    assert table.read_row(record) == table[kvpid] == VALUE
    assert record.blake3 == blake3(VALUE)
    assert table.records_by_key(KeyBytes(bytes(20))) == []
    with pytest.raises(KeyError):
        table.read(kvpid, b"\0")
    assert table.store_many([(record, VALUE)], 0) == [Verdict.READ_ONLY]
    assert table.judge(record, 0) is Verdict.READ_ONLY
    assert table.remove(kvpid) == 0
    assert kvpid in table


# --- The container -------------------------------------------------------------------------------


def instructions():
    """Return the instructions of the last stage, as pairs of name and rest."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Containerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [tuple(line.split(" ", 1)) for line in lines]
    last = max(number for number, (name, _) in enumerate(pairs) if name == "FROM")
    return pairs[last:]


def only(name):
    (rest,) = [rest for found, rest in instructions() if found == name]
    return rest


def test_the_container_runs_as_somebody_who_owns_one_volume():
    assert int(only("USER")) >= 1000
    (volume,) = json.loads(only("VOLUME"))
    assert f"BYTESTAG_HOME={volume}" in only("ENV")
    assert [name for name, _ in instructions()].index("USER") < len(instructions()) - 1
    created = " ".join(rest for name, rest in instructions() if name == "RUN")
    assert f"--uid {only('USER')} " in created
    assert f"install -d -m 0700 -o bytestag -g bytestag {volume}" in created


def test_the_container_asks_for_its_health():
    options, _, command = only("HEALTHCHECK").partition(" CMD ")
    assert "--timeout=" in options
    assert json.loads(command) == ["bytestag", "health"]


def test_what_the_container_copies_is_there_and_what_it_needs_is_copied():
    kept = {line[1:] for line in (ROOT / ".containerignore").read_text().split() if line[0] == "!"}
    assert all((ROOT / name).exists() for name in kept)
    assert {"bytestag", "setup.cfg", "pyproject.toml"} <= kept


@pytest.mark.slow
def test_the_entry_command_runs_and_is_healthy(programs):
    entry, arguments = json.loads(only("ENTRYPOINT")), json.loads(only("CMD"))
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    scripts = parser["options.entry_points"]["console_scripts"].split("\n")
    assert f"{entry[0]} = bytestag.cli.main:run" in scripts
    node = programs.start("one", *entry[1:], *arguments, "--host", "127.0.0.1", "--port", "0")
    node.line()
    code, _, notes = programs.run("one", "health")
    assert (code, notes) == (0, ["  the node serves"])
    assert node.end() == 0
    code, _, notes = programs.run("one", "health")
    assert code == 1
    assert notes[0] == "error: no node runs here"


@pytest.mark.slow
def test_another_node_can_read_the_value(programs, tmp_path):
    node, address = programs.node("one", "--cache-size", "0")
    dest = tmp_path / "health.txt"
    code, lines, notes = programs.run("two", "fetch", LINK, dest, "--known-node", address)
    assert (code, lines) == (0, [str(dest)]), notes
    assert dest.read_bytes() == VALUE
    assert node.end() == 0
