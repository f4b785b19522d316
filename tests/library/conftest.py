import os
import random

import pytest

from bytestag import api
from tests.cli.programs import Programs


@pytest.fixture
def programs(tmp_path):
    programs = Programs(tmp_path)
    yield programs
    programs.close()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without anything, who knows nobody."""
    for name in os.environ:
        if name.startswith(("BYTESTAG", "KACHERY", "KBUCKET", "SHA1_CACHE", "MD5_CACHE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    yield tmp_path / "home"
    api.close()
    api._library = None


@pytest.fixture
def source(tmp_path):
    """A directory with an empty file, names that need quoting, and files of several parts."""
    rng = random.Random(7)
    directory = tmp_path / "source"
    files = {
        "a.txt": 10,
        "empty": 0,
        "sub/données 50%.csv": 3000,
        "big.bin": 3_000_000,
        "sub/deep/x.csv": 40,
    }
    for name, size in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
    (directory / "hollow").mkdir()
    return directory


@pytest.fixture
def shared(programs, source):
    """The link of the source, shared by a process that runs; its addresses are in the link."""
    share = programs.start("publisher", "share", source, "--host", "127.0.0.1")
    return share.line()
