"""``bytestag share``: links now, copies soon, a word when it is safe to leave (composition)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from bytestag.cli.options import (
    COPIES_MAX,
    NETWORK,
    PUBLISHING,
    absolute_path,
    command,
    node_settings,
    option,
)
from bytestag.cli.output import Output
from bytestag.cli.screens import ShareScreen
from bytestag.errors import UsageError


@command(
    "Share files and directories in place. Prints one link for each PATH, then pushes copies to "
    "donors, says when it is safe to leave, and stays until it is stopped.",
    click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path)),
    option(
        "--until-copies",
        type=click.IntRange(1, COPIES_MAX),
        metavar="N",
        help="Leave once every value has N copies on donors.",
    ),
    *PUBLISHING,
    *NETWORK,
)
def share(output: Output, paths: tuple[Path, ...], until_copies: int | None, **values: Any) -> int:
    from bytestag.gateway.door import Door

    settings = node_settings(values)
    settings = replace(settings, copies=max(settings.copies, until_copies or 0))
    absolute = list(dict.fromkeys(map(absolute_path, paths)))
    for path in absolute:
        if not path.exists():
            raise UsageError(f"there is no {str(path)!r} to share")
    screen = ShareScreen(output, settings.copies)
    door = Door.find(settings.state_directory)
    if door is not None:
        from bytestag.cli.share_through import share_through

        return share_through(door, output, screen, absolute, until_copies or 0, settings)
    from bytestag.cli.share_here import share_here

    return share_here(output, screen, absolute, until_copies or 0, settings)
