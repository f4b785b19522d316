"""Directories: the override, the mode."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bytestag import basedir
from bytestag.errors import StorageError

ALL = [
    basedir.config_dir,
    basedir.data_dir,
    basedir.cache_dir,
    basedir.state_dir,
    basedir.runtime_dir,
]


def test_one_variable_overrides_every_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path))
    names = ["config", "data", "cache", "state", "runtime"]
    assert [directory() for directory in ALL] == [tmp_path / name for name in names]


@pytest.mark.parametrize("directory", ALL)
@pytest.mark.parametrize("home", [None, ""])
def test_without_it_the_system_decides(
    directory: Callable[[], Path], home: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home is None:
        monkeypatch.delenv("BYTESTAG_HOME", raising=False)
    else:
        monkeypatch.setenv("BYTESTAG_HOME", home)
    assert directory().is_absolute()
    assert "bytestag" in directory().parts


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="XDG is for Linux")
def test_the_socket_lies_in_the_session_directory_or_else_with_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BYTESTAG_HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert basedir.runtime_dir() == tmp_path / "bytestag"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert basedir.runtime_dir() == tmp_path / "state" / "bytestag" / "run"


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BYTESTAG_HOME", "here")
    assert basedir.state_dir() == tmp_path / "here" / "state"


def test_asking_for_a_directory_does_not_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path))
    basedir.state_dir()
    assert list(tmp_path.iterdir()) == []


def test_ensure_makes_a_directory_for_its_owner_alone(tmp_path: Path) -> None:
    made = basedir.ensure(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert basedir.ensure(made) == made


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        basedir.ensure(tmp_path / "file" / "sub")
