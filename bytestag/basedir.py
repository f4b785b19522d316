"""Directories of the user's system (shell over the environment).

The one module that imports platformdirs and reads the environment for paths. ``BYTESTAG_HOME``
overrides them all: then each is a subdirectory of it.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import platformdirs

from bytestag.errors import StorageError

NAME = "bytestag"
HOME_VARIABLE = "BYTESTAG_HOME"


def config_dir() -> Path:
    """Where people edit: the configuration file."""
    return _home("config") or platformdirs.user_config_path(NAME, appauthor=False)


def data_dir() -> Path:
    """What must not be lost: what the user stored."""
    return _home("data") or platformdirs.user_data_path(NAME, appauthor=False)


def cache_dir() -> Path:
    """What may be lost and costs traffic to get again: values held for others."""
    return _home("cache") or platformdirs.user_cache_path(NAME, appauthor=False)


def state_dir() -> Path:
    """What belongs to this machine: identity, known nodes, the queue of due keys."""
    return _home("state") or platformdirs.user_state_path(NAME, appauthor=False)


def runtime_dir() -> Path:
    """What is gone after a restart: the control door's socket.

    Without a session directory it lies with the state, not in a temporary directory, where
    another user may have been first.
    """
    home = _home("runtime")
    if home is not None:
        return home
    if sys.platform.startswith("linux") and not os.environ.get("XDG_RUNTIME_DIR"):
        return state_dir() / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one that cannot be written to; ``ensure`` will say so
        return platformdirs.user_runtime_path(NAME, appauthor=False)


def user_units_dir() -> Path:
    """Where the user's own service units are, for systemd; ``BYTESTAG_HOME`` has no say in it."""
    return platformdirs.user_config_path("systemd", appauthor=False) / "user"


def ensure(directory: Path) -> Path:
    """Make a directory that only its owner may enter, with its parents; return it.

    One that exists keeps its mode. Raises StorageError.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the directory {directory}: {error.strerror}") from error
    return directory


def _home(name: str) -> Path | None:
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser().absolute() / name if home else None
