"""kbucket's commands for .prv files, as other names of ours (composition)."""

from __future__ import annotations

import sys
from typing import NoReturn

from bytestag.cli.aliases import run_as

_URL = "--kbucket_url"


def create() -> NoReturn:
    """Be ``kb-prv-create FILE [OUT]``."""
    _run("prv")


def find() -> NoReturn:
    """Be ``kb-prv-find X.prv``."""
    _run("find")


def download() -> NoReturn:
    """Be ``kb-prv-download X.prv OUT``."""
    _run("fetch")


def _run(name: str) -> NoReturn:
    arguments, has_url = without_url(sys.argv[1:])
    if has_url and "-q" not in arguments and "--json" not in arguments:
        print(f"  {_URL} has no effect: the network is asked, not a hub", file=sys.stderr)
    run_as(name, arguments)


def without_url(arguments: list[str]) -> tuple[list[str], bool]:
    """Return the arguments without kbucket's address of a hub, and whether it was there."""
    left: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == _URL:
            next(rest, None)
        elif not argument.startswith(f"{_URL}="):
            left.append(argument)
    return left, len(left) < len(arguments)
