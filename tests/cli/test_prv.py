"""``bytestag prv``, and ``fetch`` and ``find`` by what it writes."""

import configparser
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bytestag.cli import kbucket
from bytestag.cli.fetch import read_named
from bytestag.cli.main import program
from bytestag.cli.pointers import Check
from bytestag.daemon.settings import NodeSettings
from bytestag.errors import Corrupt
from bytestag.hashing import blake3, sha1
from bytestag.library.names import is_pointer
from bytestag.models.prv import PrvDirectory, PrvFile, read_prv
from bytestag.uri import Link
from tests.cli.test_processes import documented_keys

VALUE = b"a" * 1500


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(program, list(map(str, arguments)))

    return run


def test_a_file_is_described_on_standard_output_alone(invoke, tmp_path):
    (tmp_path / "secret-name.dat").write_bytes(VALUE)
    done = invoke("prv", tmp_path / "secret-name.dat")
    assert done.exit_code == 0
    assert PrvFile.from_bytes(done.stdout.encode()) == PrvFile(
        sha1(VALUE), 1500, sha1(VALUE[:1000]), blake3(VALUE)
    )
    assert "secret-name" not in done.stdout
    assert str(tmp_path) not in done.stdout


def test_a_file_is_described_in_a_file(invoke, tmp_path):
    (tmp_path / "a.dat").write_bytes(VALUE)
    out = tmp_path / "a.dat.prv"
    for _ in range(2):
        done = invoke("prv", tmp_path / "a.dat", out, "--hint", "192.0.2.1:4001")
        assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    read = read_prv(out.read_bytes())
    assert isinstance(read, PrvFile)
    assert read.hints == (("192.0.2.1", 4001),)
    files = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert files == {"a.dat", "a.dat.prv"}


def test_nothing_but_a_prv_is_replaced(invoke, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(VALUE)
    assert invoke("prv", tmp_path / "a", tmp_path / "b").exit_code == 2
    assert (tmp_path / "b").read_bytes() == VALUE
    assert invoke("prv", tmp_path / "a", tmp_path / "b", "--force").exit_code == 0
    assert isinstance(read_prv((tmp_path / "b").read_bytes()), PrvFile)


def test_a_directory_is_described_without_hidden_names_and_node_modules(invoke, source):
    for name in (".git/HEAD", "node_modules/x/y.js", "sub/.hidden", "only/.hidden", "none/a"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"x")
    (source / "none" / "a").unlink()
    done = invoke("prv", source, "--json")
    answer = json.loads(done.stdout)
    assert (answer["files"], answer["skipped"], answer["warnings"]) == (4, 4, [])
    tree = PrvDirectory.from_bytes(json.dumps(answer["prv"]).encode())
    assert ["/".join(path) for path, _ in tree.entries()] == [
        "a.txt",
        "big",
        "empty",
        "sub/données 🐍",
    ]
    assert sorted(tree.directories()) == [("none",), ("only",), ("sub",)]
    note = invoke("prv", source).stderr
    assert "4 hidden files passed over" in note


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_what_cannot_be_taken_in_is_a_warning_and_exit_7(invoke, source):
    (source / "bad\\name").write_bytes(b"x")
    (source / ".cache").mkdir()
    (source / ".cache" / "bad\\name").write_bytes(b"x")
    done = invoke("prv", source)
    assert done.exit_code == 7
    assert done.stderr.count("warning") == 1
    assert isinstance(read_prv(done.stdout.encode()), PrvDirectory)


def test_what_is_not_there_is_a_usage_error(invoke, tmp_path):
    assert invoke("prv", tmp_path / "none").exit_code == 2
    assert invoke("find", tmp_path / "none.prv").exit_code == 2
    (tmp_path / "x.prv").write_text("{}")
    done = invoke("fetch", tmp_path / "x.prv")
    assert (done.exit_code, done.stdout) == (6, "")


def test_a_link_whose_name_ends_so_is_a_link():
    assert is_pointer(Path("dir/x.prv"))
    assert is_pointer(Path("X.PRVDIR"))
    assert not is_pointer(Path("x.prv.txt"))
    text = "sha1://" + 40 * "0" + "/x.prv"
    assert read_named(text, NodeSettings()) == (Link.parse(text), None)


def test_a_fetched_file_that_does_not_fit_is_taken_away(tmp_path):
    path = tmp_path / "x"
    check = Check(PrvFile(sha1(VALUE), 1500, b3=blake3(b"other")), path)
    path.write_bytes(VALUE)
    with pytest.raises(Corrupt):
        check()
    assert not path.exists()
    path.write_bytes(VALUE)
    with pytest.raises(Corrupt):
        Check(PrvFile(sha1(VALUE), 1), path)()
    assert path.exists()
    Check(PrvFile(sha1(VALUE), 1500, b3=blake3(VALUE)), path)()


# --- kbucket's names -----------------------------------------------------------------------------


def test_kbuckets_hub_is_passed_over():
    assert kbucket.without_url(["x.prv", "--kbucket_url", "http://h", "out"]) == (
        ["x.prv", "out"],
        True,
    )
    assert kbucket.without_url(["--kbucket_url=http://h", "x"]) == (["x"], True)
    assert kbucket.without_url(["x"]) == (["x"], False)


def test_every_console_script_is_there():
    parser = configparser.ConfigParser()
    parser.read(Path(__file__).parents[2] / "setup.cfg")
    lines = parser["options.entry_points"]["console_scripts"].split("\n")
    scripts = dict(line.split(" = ") for line in lines if line)
    assert {"bytestag", "kb-prv-create", "kb-prv-find", "kb-prv-download"} <= scripts.keys()
    for place in scripts.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_kb_prv_create_prints_the_prv_and_says_that_no_hub_is_asked(tmp_path):
    (tmp_path / "a").write_bytes(VALUE)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from bytestag.cli.kbucket import create; create()",
            str(tmp_path / "a"),
            "--kbucket_url",
            "http://localhost:3240",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["original_size"] == 1500
    assert "--kbucket_url has no effect" in done.stderr


# --- Real nodes ----------------------------------------------------------------------------------


def tree_of(directory):
    return {
        path.relative_to(directory): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def published(programs, source):
    """Start two donors and have a directory pushed to both; return the address of the first."""
    _, address = programs.node("one")
    programs.node("three", "--known-node", address)
    code, _, notes = programs.run(
        "publisher", "share", source, "--host", "127.0.0.1", "--known-node", address,
        "--until-copies", "2",
    )  # fmt: skip
    assert code == 0, notes
    return address


@pytest.mark.slow
@pytest.mark.long
def test_files_and_directories_are_found_and_fetched_by_prv(programs, source, tmp_path):
    (source / "nothing").mkdir()
    address = published(programs, source)
    pointers = tmp_path / "pointers"
    pointers.mkdir()
    for path, name in ((source / "big", "big.prv"), (source, "tree.prvdir")):
        code, lines, notes = programs.run("two", "prv", path, pointers / name)
        assert (code, lines) == (0, [str(pointers / name)]), notes
    known = ("--known-node", address)
    for home, extra in (("two", known), ("one", ())):
        where = tmp_path / home
        where.mkdir()
        code, lines, notes = programs.run(home, "fetch", pointers / "big.prv", *extra, cwd=where)
        assert (code, lines) == (0, [str(where / "big")]), notes
        assert (where / "big").read_bytes() == (source / "big").read_bytes()
        code, lines, notes = programs.run(
            home, "fetch", pointers / "tree.prvdir", *extra, cwd=where
        )
        assert (code, lines) == (0, [str(where / "tree")]), notes
        assert tree_of(where / "tree") == tree_of(source)
        code, lines, notes = programs.run(home, "find", pointers / "tree.prvdir", *extra)
        assert code == 0, notes
        assert [line.rsplit("  ", 1)[1] for line in lines] == [
            "a.txt",
            "big",
            "empty",
            "sub/données 🐍",
        ]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("through", [True, False])
def test_a_prvdir_of_which_some_is_nowhere_is_partly_done(programs, source, tmp_path, through):
    address = published(programs, source)
    home, known = ("one", ()) if through else ("two", ("--known-node", address))
    tree = read_prv(json.dumps({"files": {"gone": {"checksum": "11" * 20, "size": 3}}}).encode())
    assert isinstance(tree, PrvDirectory)
    tree.files["a.txt"] = PrvFile(sha1((source / "a.txt").read_bytes()), 10)
    pointer = tmp_path / "tree.prvdir"
    pointer.write_bytes(tree.to_bytes())
    dest = tmp_path / "out"
    code, lines, notes = programs.run(home, "fetch", pointer, dest, "--timeout", "5", *known)
    assert (code, lines) == (7, []), notes
    assert [path.name for path in dest.iterdir()] == ["a.txt"]
    assert any("'gone'" in note for note in notes)
    code, lines, notes = programs.run(home, "find", pointer, *known)
    assert code == 7, notes
    assert lines[1] == "0 holders, 0 publishers  gone"
    found = json.loads(programs.run(home, "find", pointer, "--json", *known)[1][0])
    assert found.keys() == documented_keys()["find directory"]
    assert [(one["path"], one["found"] is None) for one in found["files"]] == [
        ("a.txt", False),
        ("gone", True),
    ]
