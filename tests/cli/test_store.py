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


def test_a_directory_has_no_bytes(run, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("a")
    link = run("store", tmp_path / "d").stdout.strip()
    done = run("cat", link)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "bytestag ls LINK" in done.stderr


def test_one_failure_is_said_once(run, tmp_path):
    (tmp_path / "a").write_text("a")
    link = run("store", tmp_path / "a").stdout.strip()
    run("pin", link)
    assert run("rm", link).stderr.count("pinned") == 1


def test_files_that_fit_a_pattern_are_where_it_was_written(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/sub").mkdir(parents=True)
    for name in ("a.csv", "b.txt", "sub/c.csv"):
        (tmp_path / "d" / name).write_text(name)
    link = run("store", "d").stdout.strip()
    assert run("load", f"{link}/*.csv", "--dest", "out").stdout == "out/a.csv\n"
    assert (tmp_path / "out/a.csv").read_text() == "a.csv"


def test_why_counts_the_files_of_a_directory(run, tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        (tmp_path / "d" / name).write_text(name)
    link = run("store", tmp_path / "d").stdout.strip()
    assert "2 of 2 files" in run("why", link).stdout
    assert run("rm", f"{link}/b").exit_code == 0
    done = run("why", link, "--local-only")
    assert done.exit_code == 3
    assert "1 of 2 files" in done.stdout
    assert run("why", f"{link}/a").exit_code == 0
    assert run("prv", tmp_path / "d", tmp_path / "d.prvdir").exit_code == 0
    assert "1 of 2 files" in run("why", tmp_path / "d.prvdir", "--local-only").stdout


def test_mistakes_are_answered_with_what_may_have_been_meant(run, tmp_path):
    (tmp_path / "a").write_text("a")
    assert "did you mean 'store'?" in run("stroe", "x").stderr
    assert f"bytestag store {tmp_path}/a" in run("load", tmp_path / "a").stderr


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
