"""``bytestag service``: the node as a systemd user service (composition)."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from bytestag.cli.options import STATE, absolute_path, command, option
from bytestag.cli.output import Output
from bytestag.errors import UsageError

ACTIONS = ("install", "uninstall", "show")
_START = ("systemctl --user daemon-reload", "systemctl --user enable --now bytestag")
_LINGER = "loginctl enable-linger"
_STOP = ("systemctl --user disable --now bytestag",)


@command(
    "Install the node as a service of your own under systemd, uninstall it, or show its unit. "
    "Prints what is to be run then. The service reads the configuration file.",
    click.argument("action", type=click.Choice(ACTIONS)),
    option("--user", is_flag=True, help="For this user; the only way there is."),
    STATE,
)
def service(output: Output, action: str, user: bool, **values: Any) -> int:
    from bytestag import basedir
    from bytestag.daemon import unit

    path = basedir.user_units_dir() / unit.NAME
    text: str | None = None
    commands: tuple[str, ...] = ()
    if action == "uninstall":
        if unit.uninstall(path):
            commands = (*_STOP, _START[0])
            output.note(f"removed {path}; it goes on running until you run:")
        else:
            output.note(f"there is no {path}")
    else:
        state = values["state_dir"]
        text = _unit(absolute_path(state) if state is not None else None)
        if action == "install":
            if not user:
                raise UsageError(
                    "only a service of a user can be installed", hint="add --user to say so"
                )
            unit.install(path, text)
            commands = (*_START, _LINGER)
            output.note(f"wrote {path}; start it now and at each login, and keep it after logout:")
    is_there = unit.is_there(path)
    if output.is_json:
        output.json(
            {
                "action": action,
                "path": str(path),
                "is_installed": is_there,
                "unit": text,
                "commands": list(commands),
            }
        )
    elif action == "show":
        output.answer((text or "").rstrip("\n"))
        output.note(f"{'installed at' if is_there else 'to be installed at'} {path}")
    else:
        for line in commands:
            output.answer(line)
    return 0


def _unit(state: Any) -> str:
    from bytestag import basedir
    from bytestag.daemon import unit
    from bytestag.store import places

    command_ = [sys.executable, "-m", "bytestag", "node"]
    home = os.environ.get(basedir.HOME_VARIABLE)
    environment = {
        name: os.path.abspath(os.path.expanduser(value))
        for name in (basedir.HOME_VARIABLE, places.STORE_VARIABLE)
        if (value := os.environ.get(name))
    }
    writable = [basedir.state_dir(), basedir.cache_dir(), basedir.data_dir(), places.directory()]
    if home:
        writable.append(basedir.runtime_dir())
    if state is not None:
        command_ += ["--state-dir", str(state)]
        writable.append(state)
    made = [basedir.ensure(path) for path in writable]
    return unit.unit_text(command_, environment, made, _umask())


def _umask() -> int:
    """Return what the user's shell takes from the modes of new files."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
