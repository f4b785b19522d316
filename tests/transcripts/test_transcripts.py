"""The READMEs of our predecessors, played: each line ``> command`` and what it prints.

``…`` stands for anything within a line, ``{name}`` for what is made here, ``[exit N]`` for the exit
code, 0 unless said. Text between is for people. ``@remote>`` is another user on another computer.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bytestag.hashing import sha1
from bytestag.models.directory import DirectoryManifest, FileEntry
from tests.cli.programs import Programs

HERE = Path(__file__).parent
COMMAND = re.compile(r"(@\w+)?> (.*)")
SECONDS = 60


@pytest.fixture
def world(tmp_path):
    """The files of the READMEs below a directory that stands for ``/path/to``."""
    rng = random.Random(1)
    root = tmp_path / "path" / "to"
    contents = {
        "some/dataset.csv": b"a,b\n1,2\n",
        "file.dat": rng.randbytes(200_000),
        "directory/ds001/file1.txt": b"one",
        "directory/ds001/file2.csv": b"two",
        "directory/ds001/subdir1/other_file1.txt": b"Content of other_file1.txt\n",
        "directory/ds001/subdir1/other_file2.txt": b"four",
        "directory/ds001/subdir2/five": b"five",
    }
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    names = {
        "dataset": sha1(contents["some/dataset.csv"]).hex(),
        "file": sha1(contents["file.dat"]).hex(),
        "ds001": sha1(manifest_of(root / "directory/ds001").to_bytes()).hex(),
    }
    return root, names


def manifest_of(directory):
    """The directory as kachery described it: the names, SHA-1 and sizes of files."""
    made = DirectoryManifest()
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            made.dirs[path.name] = manifest_of(path)
        else:
            data = path.read_bytes()
            made.files[path.name] = FileEntry(sha1(data), len(data))
    return made


def steps(text):
    """Yield (who, command, lines it prints, exit code)."""
    current = None
    for line in text.splitlines():
        found = COMMAND.fullmatch(line)
        if found:
            if current:
                yield current
            current = [found[1] or "", found[2], [], 0]
        elif current and line.startswith("[exit "):
            current[3] = int(line[6:-1])
        elif current and line:
            current[2].append(line)
        elif current:
            yield current
            current = None
    if current:
        yield current


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.txt")))
def test_a_session_prints_what_stands_there(name, world, tmp_path):
    root, names = world
    text = (HERE / f"{name}.txt").read_text("utf-8")
    programs = Programs(tmp_path)
    try:
        if "{node}" in text:
            names["node"] = programs.node("local")[1]
        for who, command, expected, code in steps(text.format(**names)):
            home = programs.home(who[1:] or "local")
            place = tmp_path / "places" / (who or "local")
            place.mkdir(parents=True, exist_ok=True)
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith("BYTESTAG")},
                "BYTESTAG_HOME": str(home),
                "HOME": str(home),
                "LOCAL": str(tmp_path / "places" / "local"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
            done = subprocess.run(
                ["bash", "-c", command.replace("/path/to", str(root))],
                capture_output=True, text=True, cwd=place, env=environment, timeout=SECONDS,
            )  # fmt: skip
            said = f"> {command}\n{done.stdout}{done.stderr}"
            assert done.returncode == code, said
            printed = done.stdout.splitlines()
            assert len(printed) == len(expected), said
            for line, pattern in zip(printed, expected, strict=True):
                shape = ".*".join(map(re.escape, pattern.split("…")))
                assert re.fullmatch(shape, line), f"{said}\nexpected {pattern}"
    finally:
        programs.close()


def test_a_session_that_prints_something_else_fails(world, tmp_path):
    assert list(steps("text\n> a\nx\n[exit 3]\n\nmore\n@r> b\n")) == [
        ["", "a", ["x"], 3],
        ["@r", "b", [], 0],
    ]
