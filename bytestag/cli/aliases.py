"""kachery's spellings as programs: ``bytestag-store`` is ``bytestag store`` (composition)."""

from __future__ import annotations

import sys
from typing import NoReturn

from bytestag.cli.main import program
from bytestag.cli.output import fill_streams


def _run(command: str) -> NoReturn:
    fill_streams()
    program.main([command, *sys.argv[1:]], prog_name="bytestag")


def store() -> NoReturn:
    """Be ``bytestag-store``."""
    _run("store")


def load() -> NoReturn:
    """Be ``bytestag-load`` and ``bytestag-load-dir``."""
    _run("load")


def cat() -> NoReturn:
    """Be ``bytestag-cat``."""
    _run("cat")


def ls() -> NoReturn:
    """Be ``bytestag-ls``."""
    _run("ls")


def info() -> NoReturn:
    """Be ``bytestag-info``."""
    _run("info")
