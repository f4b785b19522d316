import random

import pytest

from tests.cli.programs import Programs


@pytest.fixture
def programs(tmp_path):
    programs = Programs(tmp_path)
    yield programs
    programs.close()


@pytest.fixture
def source(tmp_path):
    """A directory with an empty file, an odd name, and a file of several parts."""
    rng = random.Random(7)
    directory = tmp_path / "source"
    for name, size in {"a.txt": 10, "empty": 0, "sub/données 🐍": 3000, "big": 700_000}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
    return directory
