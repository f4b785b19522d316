"""``bytestag prv``: a small text file that stands for a file or directory (composition)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.options import absolute_path, command, option
from bytestag.cli.output import Output
from bytestag.cli.values import Address, count, print_size
from bytestag.errors import Incomplete, UsageError

if TYPE_CHECKING:
    from bytestag.tables.prv_making import MadePrv

WARNINGS_SHOWN = 20


@command(
    "Describe the file PATH as a .prv, or the directory PATH as a .prvdir, in OUT or on standard "
    "output. It has hashes, sizes and names, and no path or user name. In a directory, names that "
    "begin with a dot and node_modules are passed over, as kbucket did. `fetch` and `find` take "
    "it for a link.",
    click.argument("path", type=click.Path(path_type=Path)),
    click.argument("out", required=False, type=click.Path(path_type=Path, dir_okay=False)),
    option(
        "--hint",
        type=Address(),
        multiple=True,
        metavar="HOST:PORT",
        help="An address to try, to be written into it; up to 8.",
    ),
    option("--force", is_flag=True, help="Replace a file that differs."),
)
def prv(output: Output, path: Path, out: Path | None, **values: Any) -> int:
    from bytestag.tables.prv_making import make_prv
    from bytestag.uri import HINTS_READ_MAX

    hints = tuple(values["hint"])
    if len(hints) > HINTS_READ_MAX:
        raise UsageError(f"a .prv has at most {HINTS_READ_MAX} addresses")
    source = absolute_path(path)
    if not source.is_file() and not source.is_dir():
        raise UsageError(f"there is no file or directory {str(source)!r}")
    dest = absolute_path(out) if out is not None else None
    if dest is not None and not values["force"]:
        _check_free(dest)
    read = 0

    def tick(size: int) -> None:
        nonlocal read
        read += size
        output.progress(f"hashed {print_size(read)}")

    made = make_prv(source, hints, tick)
    output.end_progress()
    text = made.prv.to_bytes()
    if dest is not None:
        from bytestag.library.files import place

        place(lambda part: part.write_bytes(text), dest)
    _show(output, made, text, path, dest)
    if made.warnings:
        raise Incomplete(
            f"{count(len(made.warnings), 'name')} could not be taken in",
            hint="make them readable, or rename them, and run it again",
        )
    return 0


def _show(output: Output, made: MadePrv, text: bytes, path: Path, dest: Path | None) -> None:
    for below, reason in made.warnings[:WARNINGS_SHOWN]:
        output.warn(f"{below}: {reason}")
    if output.is_json:
        output.json(
            {
                "out": str(dest) if dest is not None else None,
                "files": made.files,
                "bytes": made.size,
                "skipped": made.skipped,
                "warnings": made.warnings[:WARNINGS_SHOWN],
                "warning_count": len(made.warnings),
                "prv": made.prv.to_json() if dest is None else None,
            }
        )
        return
    output.answer(text.decode("ascii").rstrip("\n") if dest is None else str(dest))
    skipped = f"; {count(made.skipped, 'hidden file')} passed over" if made.skipped else ""
    output.note(f"{count(made.files, 'file')}, {print_size(made.size)}{skipped}")


def _check_free(dest: Path) -> None:
    """Let a .prv be written anew, and nothing else be replaced."""
    from bytestag.library.names import POINTER_SUFFIXES

    if os.path.lexists(dest) and dest.suffix.lower() not in POINTER_SUFFIXES:
        raise UsageError(f"{str(dest)!r} exists", hint="give another OUT, or --force to replace it")
