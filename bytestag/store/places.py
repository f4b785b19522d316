"""Which directories the user's store and its relatives have (shell over the environment).

=========================  ==================================================
``BYTESTAG_STORE_DIR``     the store; else ``store`` in the data directory
``BYTESTAG_STORE_DIR_ALT`` second stores that are read only, as in ``PATH``
``KACHERY_STORAGE_DIR``    and the others below: caches that are read only
=========================  ==================================================
"""

from __future__ import annotations

import os
from pathlib import Path

STORE_VARIABLE = "BYTESTAG_STORE_DIR"
SECONDS_VARIABLE = "BYTESTAG_STORE_DIR_ALT"
KACHERY_VARIABLES = (
    "KACHERY_STORAGE_DIR",
    "KACHERY_STORAGE_DIR_ALT",
    "KACHERY_CLOUD_DIR",
    "KACHERY_DIR",
    "SHA1_CACHE_DIR",
    "KBUCKET_CACHE_DIR",
    "MD5_CACHE_DIR",
)
KACHERY_HOMES = ("kachery-storage", ".kachery-cloud", ".kachery")


def directory() -> Path:
    """Return where the user's store is."""
    given = os.environ.get(STORE_VARIABLE)
    if given:
        return Path(given).expanduser().absolute()
    from bytestag import basedir  # 6 ms

    return basedir.data_dir() / "store"


def seconds() -> list[Path]:
    """Return the second stores."""
    return _existing(os.environ.get(SECONDS_VARIABLE, "").split(os.pathsep))


def kachery() -> list[Path]:
    """Return the caches of kachery and its relatives that exist."""
    given = [
        part for name in KACHERY_VARIABLES for part in os.environ.get(name, "").split(os.pathsep)
    ]
    return _existing([*given, *(os.path.join("~", name) for name in KACHERY_HOMES)])


def _existing(names: list[str]) -> list[Path]:
    paths = [Path(name).expanduser().absolute() for name in names if name]
    return [path for path in dict.fromkeys(paths) if path.is_dir()]
