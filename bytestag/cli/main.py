"""The program: its commands by name, its errors by exit code (composition).

Imports click and nothing else that costs time; a command's module is imported when it is called.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

import bytestag
from bytestag.cli.output import Chosen, Output, OutputGone, fill_streams
from bytestag.errors import BytestagError, NoSpace, StorageError, UsageError

COMMANDS = {
    "node": "Run a donor: hold values for others, serve your own.",
    "share": "Share files and directories in place; print their links.",
    "fetch": "Make the file or directory that a link names.",
    "find": "Say who holds what a link names.",
    "store": "Keep content here; print its link.",
    "load": "Have the content of a link; print its path.",
    "cat": "Write the content of a link to standard output.",
    "ls": "List the directory that a link names.",
    "info": "Say what a link names or a file is.",
    "why": "Say why a link can be read or cannot.",
    "list": "List what the store holds.",
    "pin": "Keep content whatever gc removes.",
    "rm": "Remove content from the store.",
    "gc": "Remove what has not been used for longest.",
    "verify": "Compare what the store holds with its hashes.",
    "prv": "Describe a file or directory in a small text file that fetch takes.",
    "status": "Say how the running node is.",
    "up": "Start the node in the background.",
    "down": "Stop the node in the background.",
    "service": "Have systemd run the node for you.",
    "doctor": "Look for what is wrong here, and say how to mend it.",
    "health": "Say by the exit code whether the running node serves.",
    "completion": "Print what a shell needs to complete our commands.",
    "man": "Print the manual page.",
    "demo": "Show, on this machine alone, that a share outlives its owner.",
}
HOMES = {
    "down": "up",
    "cat": "load",
    "ls": "looking",
    "info": "looking",
    "why": "looking",
    "list": "keeping",
    "pin": "keeping",
    "rm": "keeping",
    "gc": "keeping",
    "verify": "keeping",
}
"""Modules of commands that share one."""
INTERRUPTED = 130
_SPACE_ERRORS = (errno.ENOSPC, errno.EDQUOT)


class Program(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is meant; say which one may have been."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # whoever makes no mistake does not wait for it

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            meant = f"did you mean {near[0]!r}?" if near else "bytestag --help lists what there is"
            raise UsageError(f"there is no command {args[0]!r}", hint=meant)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        """Run, print what went wrong, and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        chosen = extra["obj"] = Chosen()
        extra["standalone_mode"] = False
        try:
            status = super().main(arguments, *rest, **extra)
        except BaseException as error:
            status = _report(error, arguments, chosen.output)
        sys.exit(status if isinstance(status, int) else 0)


@click.group(
    cls=Program,
    no_args_is_help=False,  # an error says it, with a code and in JSON if wished
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Links go to standard output, everything else to standard error.",
)
@click.version_option(bytestag.__version__, prog_name="bytestag")
def program() -> None:
    """Share a directory, leave, and the network still has it."""


def load(name: str) -> click.Command:
    """Import the module of a command and return the command."""
    module = importlib.import_module(f"bytestag.cli.{HOMES.get(name, name)}")
    command: click.Command = getattr(module, name)
    return command


def run() -> NoReturn:
    """Be the console script."""
    fill_streams()
    program.main(prog_name="bytestag")


# --- Errors --------------------------------------------------------------------------------------


def _report(error: BaseException, arguments: list[str], output: Output | None) -> int:
    """Print an error as the options ask for; return the exit code.

    Without an ``output`` the options were not understood: then they are guessed.
    """
    known = _as_ours(error)
    if known is None:
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 1
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return INTERRUPTED
        known = BytestagError(
            f"internal error: {type(error).__name__}: {error}",
            hint="run it again with -vv, and report what it prints",
        )
    if isinstance(known, OutputGone) and known.is_unread:
        return known.exit_status  # whoever read our output has left: that is no news to them
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if output is None:
        verbose = 2 if _is_very_verbose(options) else 0
        output = Output(is_json="--json" in options, color=_color(options), verbose=verbose)
    if output.verbose >= 2:
        traceback.print_exception(error)
    with contextlib.suppress(OutputGone):
        output.error(known)
    return known.exit_status


def _as_ours(error: BaseException) -> BytestagError | None:
    """Return the error of ours that this is, or that it stands for."""
    if isinstance(error, BytestagError):
        return error
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "bytestag"
        return UsageError(error.format_message(), hint=f"{path} --help lists what there is")
    if isinstance(error, OSError) and error.errno in _SPACE_ERRORS:
        return NoSpace(f"no space left: {error}", hint="free some space and run it again")
    if isinstance(error, OSError):
        where = f": {error.filename!r}" if error.filename is not None else ""
        return StorageError(f"{error.strerror or error}{where}", hint="-vv says more")
    if isinstance(error, BaseExceptionGroup):
        ours = [known for inner in _leaves(error) if (known := _as_ours(inner)) is not None]
        return ours[0] if ours else None
    return None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _is_very_verbose(options: list[str]) -> bool:
    short = [option[1:] for option in options if option[:1] == "-" and option[:2] != "--"]
    count = sum(len(letters) for letters in short if set(letters) == {"v"})
    return count + options.count("--verbose") >= 2


def _color(options: list[str]) -> str:
    for position, option in enumerate(options):
        if option.startswith("--color="):
            return option.partition("=")[2]
        if option == "--color" and position + 1 < len(options):
            return options[position + 1]
    return "auto"
