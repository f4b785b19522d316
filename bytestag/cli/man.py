"""``bytestag man``: the manual page, made from the commands themselves (composition)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

import bytestag
from bytestag.cli.options import command
from bytestag.cli.output import Output

EXIT_CODES = {
    "0": "Done.",
    "1": "Failure; also another node on the same state, or a port in use.",
    "2": "Usage: a malformed option, link or configuration key.",
    "3": "Not found: peers answered, none holds it.",
    "4": "Unreachable: no peer answered, or no node runs.",
    "5": "Timed out: holders are known, but no verified byte came in time.",
    "6": "Verification failed: only wrong bytes, or a description that lies.",
    "7": "Partly done: some files are missing, or fewer copies than asked for.",
    "8": "No space: the disk is full or a quota is reached.",
    "9": "Not permitted: a key file that others may read, or somebody else's door.",
    "130": "Interrupted (143: terminated) before it was done.",
}
ENVIRONMENT = {
    "BYTESTAG_OPTION": "The value of --option, where that is not given: BYTESTAG_CACHE_SIZE is "
    "--cache-size, and cache_size in the configuration file.",
    "BYTESTAG_HOME": "A directory to have all directories of the program below it.",
    "NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE": "Whether there are colours on standard error where "
    "--color says auto.",
    "XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME, XDG_DATA_HOME, XDG_RUNTIME_DIR": "Where the "
    "directories below are, if not where they are said to be.",
}
FILES = {
    "~/.config/bytestag/config.toml": "The configuration file: one flat table.",
    "~/.local/state/bytestag": "Identity, known nodes, shares, and the log of a node in the "
    "background.",
    "~/.local/share/bytestag": "What was stored.",
    "~/.cache/bytestag": "Values held for others.",
}
_COMMON = {"json", "quiet", "verbose", "color", "config"}


@command("Print the manual page, for `man -l -` or a file bytestag.1.")
def man(output: Output, **_values: Any) -> int:
    text = page()
    if output.is_json:
        output.json({"page": text})
    else:
        output.answer(text)
    return 0


def page() -> str:
    """Return the page in man(7)'s macros."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    from bytestag.cli.main import COMMANDS, load, program

    yield f'.TH BYTESTAG 1 "" "bytestag {bytestag.__version__}" "User Commands"'
    yield from (".SH NAME", r"bytestag \- " + escaped((program.help or "").rstrip(".").lower()))
    yield from (".SH SYNOPSIS", r".B bytestag", r"\fICOMMAND\fR [\fIOPTION\fR]... [\fIARG\fR]...")
    yield ".SH DESCRIPTION"
    yield escaped(
        "The answer of a command goes to standard output and nothing else does; notes, progress, "
        "warnings and errors go to standard error."
    )
    yield ".SH OPTIONS OF EVERY COMMAND"
    commands = {name: load(name) for name in COMMANDS}
    yield from _options(commands["status"], is_common=True)
    yield ".SH COMMANDS"
    for name, one in commands.items():
        yield from _command(name, one)
    for title, entries in (
        ("EXIT STATUS", EXIT_CODES),
        ("ENVIRONMENT", ENVIRONMENT),
        ("FILES", FILES),
    ):
        yield f".SH {title}"
        for term, text in entries.items():
            yield from (".TP", rf"\fB{escaped(term)}\fR", escaped(text))
    yield ".SH BUGS"
    yield escaped("An exit code that is not listed means failure.")


def _command(name: str, one: click.Command) -> Iterator[str]:
    context = click.Context(one)
    arguments = [text for param in one.params for text in param.get_usage_pieces(context)]
    yield f".SS {escaped(name)}"
    usage = " ".join([r"[\fIOPTION\fR]...", *(rf"\fI{escaped(text)}\fR" for text in arguments)])
    yield from (rf"\fBbytestag {escaped(name)}\fR {usage}", ".PP", escaped(one.help or ""))
    yield from _options(one, is_common=False)


def _options(one: click.Command, *, is_common: bool) -> Iterator[str]:
    context = click.Context(one)
    for param in one.params:
        if not isinstance(param, click.Option) or (param.name in _COMMON) != is_common:
            continue
        record = param.get_help_record(context)
        if record is None:
            continue
        names, text = record
        yield from (".TP", rf"\fB{escaped(names)}\fR", escaped(text))


def escaped(text: str) -> str:
    """Return text as roff shows it: no request, no hyphen for a minus, ASCII alone."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"[^\x00-\x7f]", lambda match: f"\\[u{ord(match[0]):04X}]", text)
    return re.sub(r"^(?=[.'])", r"\\&", " ".join(text.split()), flags=re.MULTILINE)
