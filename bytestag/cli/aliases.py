"""kachery's spellings as programs: ``bytestag-store`` is ``bytestag store`` (composition)."""

from __future__ import annotations

import sys
from typing import NoReturn

from bytestag.cli.main import program
from bytestag.cli.output import fill_streams


def run_as(command: str, arguments: list[str] | None = None) -> NoReturn:
    """Be one command of ours, with the arguments given or those of the process."""
    fill_streams()
    given = sys.argv[1:] if arguments is None else arguments
    program.main([command, *given], prog_name="bytestag")


def store() -> NoReturn:
    """Be ``bytestag-store``."""
    run_as("store")


def load() -> NoReturn:
    """Be ``bytestag-load`` and ``bytestag-load-dir``."""
    run_as("load")


def cat() -> NoReturn:
    """Be ``bytestag-cat``."""
    run_as("cat")


def ls() -> NoReturn:
    """Be ``bytestag-ls``."""
    run_as("ls")


def info() -> NoReturn:
    """Be ``bytestag-info``."""
    run_as("info")
