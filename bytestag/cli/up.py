"""``bytestag up`` and ``bytestag down``: the node in the background (composition)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.node import OPTIONS
from bytestag.cli.options import STATE, command, node_settings
from bytestag.cli.output import Output
from bytestag.errors import Unreachable

if TYPE_CHECKING:
    from bytestag.daemon.settings import NodeSettings
    from bytestag.gateway.door import Door

_ARGUMENTS = "bytestag.arguments"
_MANAGER_SECONDS = 330.0  # the unit's TimeoutStartSec, and some


class _Passing(click.Command):
    """A command that passes its arguments on as they were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@command(
    "Start the node in the background, and wait until it answers; prints its address. It is the "
    "service if that is installed and runs under a user manager, else a process apart from this "
    "terminal, which takes the options of `node`.",
    *OPTIONS,
    cls=_Passing,
)
def up(output: Output, **values: Any) -> int:
    from bytestag.daemon import background
    from bytestag.gateway.door import Door

    settings = node_settings(values)
    arguments: list[str] = click.get_current_context().meta[_ARGUMENTS]
    door = Door.find(settings.state_directory)
    was_running, is_service, log = door is not None, False, None
    if door is not None:
        output.note("the node runs already")
    elif settings.state_directory is None and _has_service():
        if arguments:
            output.note("the service takes its options from the configuration file")
        is_service = True
        _start_service()
        door = Door.find(None)
    else:
        background.start(settings.state, arguments, lambda: Door.find(settings.state_directory))
        log = str(settings.state / background.LOG_NAME)
        door = Door.find(settings.state_directory)
    if door is None:
        raise Unreachable("the node went away again", hint="see its log, or run `bytestag doctor`")
    _show(output, door, {"was_running": was_running, "is_service": is_service, "log": log})
    return 0


def _show(output: Output, door: Door, how: dict[str, Any]) -> None:
    from bytestag.daemon.background import holder
    from bytestag.uri import format_address

    status = door.ask("GET", "/v1/status")
    address = format_address(*status["address"])
    process = holder(door)
    pid = process.pid if process is not None else None
    if output.is_json:
        output.json({"address": address, "node_id": status["node_id"], "pid": pid, **how})
        return
    output.answer(address)
    output.note(f"node {status['node_id']} of network {status['network']}, process {pid}")
    if how["log"]:
        output.note(f"log: {how['log']}")
    output.note("stop it with: bytestag down")


@command("Stop the node that runs in the background, and wait until it has ended.", STATE)
def down(output: Output, **values: Any) -> int:
    from bytestag.daemon import background
    from bytestag.gateway.door import Door

    settings = node_settings(values)
    door = Door.find(settings.state_directory)
    process = background.holder(door) if door is not None else None
    process = process or background.remembered(settings.state)
    if process is None:
        _check_free(settings)
        output.note("no node runs here")
    else:
        background.stop(process, settings.state)
    pid = process.pid if process is not None else None
    if output.is_json:
        output.json({"was_running": process is not None, "pid": pid})
    elif pid is not None:
        output.note(f"process {pid} has ended")
    return 0


def _check_free(settings: NodeSettings) -> None:
    """Raise StateInUse if there is a node after all, which nothing tells the number of."""
    from bytestag.daemon.locking import locked

    if settings.state.exists():
        with locked(settings.state):
            pass


# --- The service ---------------------------------------------------------------------------------


def _has_service() -> bool:
    """Return whether the unit is installed and a user manager runs."""
    from bytestag import basedir
    from bytestag.daemon import unit

    if not unit.is_there(Path(basedir.user_units_dir()) / unit.NAME):
        return False
    return _systemctl("is-system-running")[1] in ("running", "degraded", "starting")


def _start_service() -> None:
    from bytestag.daemon import unit

    status, said = _systemctl("start", unit.NAME)
    if status:
        raise Unreachable(
            f"the service did not start: {said or 'systemctl said nothing'}",
            hint=f"journalctl --user -u {unit.NAME} says more",
        )


def _systemctl(*arguments: str) -> tuple[int, str]:
    """Ask the user's manager; return the exit code and what was said."""
    import shutil
    import subprocess

    program = shutil.which("systemctl")
    if program is None:
        return 127, "no systemctl"
    try:
        done = subprocess.run(  # noqa: S603 - a program of the system, with words of ours
            [program, "--user", *arguments],
            capture_output=True,
            text=True,
            timeout=_MANAGER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, (done.stdout.strip() or done.stderr.strip())
