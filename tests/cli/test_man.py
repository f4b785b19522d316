"""The manual page and the completion of commands, made from the commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bytestag.cli.completion import SHELLS, VARIABLE, script_for
from bytestag.cli.main import COMMANDS, load, program
from bytestag.cli.man import EXIT_CODES, escaped, page
from tests.cli.test_main import HEAVY, modules_of

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.rst"


def run(*arguments, **options):
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=60, check=False, **options
    )


def shown(text):
    """Return the words of a page as a terminal shows them."""
    return re.sub(r"\\\[u([0-9A-F]{4})\]", lambda m: chr(int(m[1], 16)), text).replace("\\-", "-")


def test_every_command_and_option_stands_on_the_page():
    text = shown(page())
    for name in COMMANDS:
        assert f"\n.SS {name}\n" in text
        for param in load(name).params:
            if isinstance(param, click.Option) and not param.hidden:
                assert all(flag in text for flag in param.opts), param
    for title in ("NAME", "SYNOPSIS", "COMMANDS", "EXIT STATUS", "ENVIRONMENT", "FILES"):
        assert f"\n.SH {title}\n" in text


def test_the_exit_codes_are_those_of_the_reference():
    there = re.findall(r"^([0-9]+) {3,}(\w.*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    said = {code: text.rstrip(".").lower() for code, text in EXIT_CODES.items()}
    assert said == {code: text.lower() for code, text in there}


def test_text_is_shown_as_it_is():
    assert escaped(".x \\ -y\n 'z …") == "\\&.x \\e \\-y 'z \\[u2026]"
    assert page().isascii()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_the_page_has_no_mistakes():
    done = run("groff", "-man", "-ww", "-z", input=page())
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("man") is None, reason="no man here")
def test_man_shows_the_page():
    done = run("man", "-l", "-", input=page(), env={**os.environ, "MANPAGER": "cat"})
    if done.returncode:
        pytest.skip("this man takes no file")
    assert "EXIT STATUS" in done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_gets_its_script_alone(shell):
    done = CliRunner().invoke(program, ["completion", shell])
    assert (done.exit_code, done.stdout) == (0, script_for(shell) + "\n")
    assert VARIABLE in done.stdout
    answer = json.loads(CliRunner().invoke(program, ["completion", shell, "--json"]).stdout)
    assert answer == {"shell": shell, "script": script_for(shell)}
    if shutil.which(shell):
        assert run(shell, "-n", input=done.stdout).returncode == 0


def test_another_shell_is_a_usage_error():
    assert CliRunner().invoke(program, ["completion", "tcsh"]).exit_code == 2


def test_commands_and_options_are_completed():
    code = "from bytestag.cli.main import run; run()"
    for words, number, expected in (
        ("bytestag st", 1, "plain,status"),
        ("bytestag service --us", 2, "plain,--user"),
        ("bytestag service inst", 2, "plain,install"),
    ):
        variables = {VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        done = run(sys.executable, "-c", code, env={**os.environ, **variables})
        assert expected in done.stdout.split("\n"), done.stderr


@pytest.mark.parametrize("arguments", [("man",), ("completion", "bash")])
def test_neither_imports_anything_heavy(arguments):
    modules, printed = modules_of(*arguments)
    assert modules & (HEAVY - {"blake3", "msgspec", "platformdirs"}) == set()
    assert printed
