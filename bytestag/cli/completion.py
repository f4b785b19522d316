"""``bytestag completion``: what a shell needs to complete our commands (composition)."""

from __future__ import annotations

from typing import Any

import click

from bytestag.cli.options import command
from bytestag.cli.output import Output

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_BYTESTAG_COMPLETE"
PLACES = {
    "bash": "~/.local/share/bash-completion/completions/bytestag",
    "zsh": "_bytestag in a directory of your $fpath",
    "fish": "~/.config/fish/completions/bytestag.fish",
}


@command(
    "Print a script that completes our commands and options in SHELL.",
    click.argument("shell", type=click.Choice(SHELLS)),
)
def completion(output: Output, shell: str, **_values: Any) -> int:
    script = script_for(shell)
    if output.is_json:
        output.json({"shell": shell, "script": script})
    else:
        output.answer(script)
        output.note(f"keep it as {PLACES[shell]}")
    return 0


def script_for(shell: str) -> str:
    """Return click's script, without a look at the shell that may be here."""
    from click.shell_completion import ShellComplete, get_completion_class

    from bytestag.cli.main import program

    found = get_completion_class(shell)
    assert found is not None
    return ShellComplete.source(found(program, {}, "bytestag", VARIABLE)).strip("\n")
