"""The commands of the store, where what they print and how far they go matters."""

import json

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program
from bytestag.hashing import sha1
from bytestag.library import elsewhere


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))

    def run(*arguments):
        return CliRunner().invoke(program, list(map(str, arguments)))

    return run


def test_rm_goes_on_after_what_is_pinned(run, tmp_path):
    links = []
    for name in ("pinned", "other"):
        (tmp_path / name).write_text(name)
        links.append(run("store", tmp_path / name).stdout.strip())
    assert run("pin", links[0]).exit_code == 0
    assert run("rm", *links).exit_code == 9
    (left,) = run("list").stdout.splitlines()
    assert left.endswith("pinned")


def test_names_of_strangers_do_not_steer_the_terminal(run, tmp_path):
    name = "x\x1b[31m\nsha1:"
    manifest = {"files": {name: {"sha1": "0" * 40, "size": 1}}, "dirs": {name[:-1]: {}}}
    path = tmp_path / name
    path.write_text(json.dumps(manifest))
    link = run("store", path).stdout.strip()
    digest = link.partition("://")[2][:40]
    for *command, count in (["ls", 2], ["ls", "-l", 2], ["ls", "-r", 2]):
        answer = run(*command, f"sha1dir://{digest}").stdout
        assert len(answer.splitlines()) == count
        assert "\x1b" not in answer
    answer = run("list").stdout
    assert len(answer.splitlines()) == 1
    assert "\x1b" not in answer


class Liar(elsewhere.Nowhere):
    """One who describes a file truly and gives other bytes."""

    def describe(self, link):
        return {"type": "file", "size": 3, "sha1": sha1(b"yes").hex(), "blake3": ""}

    def read(self, link, start, end):
        return b"no!"[start:end]


def test_cat_of_a_whole_file_says_that_it_was_another(run, monkeypatch):
    monkeypatch.setattr(elsewhere, "elsewhere", lambda config: Liar())
    monkeypatch.setattr("bytestag.cli.load.CAT_BYTES", 2)
    link = f"sha1://{sha1(b'yes').hex()}"
    assert run("cat", link, "--end", 2).exit_code == 0  # a range: its parts fit the description
    result = run("cat", link)
    assert result.exit_code == 6
    assert "is not" in result.stderr
