"""``bytestag doctor``: what is wrong here, and what to do about it (composition)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bytestag.cli.options import CACHE, NETWORK, command, node_settings
from bytestag.cli.output import Output, printable
from bytestag.errors import BytestagError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bytestag.daemon.checks import Finding
    from bytestag.daemon.settings import NodeSettings


@command(
    "Look at what a node needs here: key, configuration, state, disk, database, port, clock, "
    "buffers, and the running node. Each failed line says how to mend it; nothing is sent beyond "
    "this machine. Exits with 1 if any failed.",
    *CACHE,
    *NETWORK,
    is_lenient=True,
)
def doctor(output: Output, config: BytestagError | None, **values: Any) -> int:
    settings = node_settings(values)
    found = []
    for finding in _findings(settings, config):
        found.append(finding)
        if not output.is_json:
            mark = "[ok]" if finding.is_ok else "[!!]"
            output.answer(printable(f"{mark} {finding.name}: {finding.text}"))
            if finding.fix:
                output.answer(printable(f"     fix: {finding.fix}"))
    is_ok = all(finding.is_ok for finding in found)
    if output.is_json:
        output.json({"ok": is_ok, "checks": [finding.to_json() for finding in found]})
    return 0 if is_ok else 1


def _findings(settings: NodeSettings, config: BytestagError | None) -> Iterator[Finding]:
    from bytestag.daemon import checks
    from bytestag.events.runtime import system_runtime
    from bytestag.gateway.door import Door

    fix = "correct the file, or name another with --config"
    if config is not None:
        yield checks.Finding("config", config.message, config.hint or fix)
    else:
        yield checks.Finding("config", "nothing is wrong in it")
    status, error = None, None
    try:
        door = Door.find(settings.state_directory)
        status = door.ask("GET", "/v1/status") if door is not None else None
    except BytestagError as raised:
        error = raised
    runtime = system_runtime(1)
    try:
        is_up = status is not None or error is not None
        yield from checks.local_findings(settings, runtime.wall, is_up=is_up)
    finally:
        runtime.close()
    if status is not None:
        yield from checks.node_findings(status)
    elif error is not None:
        fix = error.hint or "stop it and start it again: bytestag down, bytestag up"
        yield checks.Finding("node", f"runs, but its door does not serve: {error.message}", fix)
    else:
        yield checks.Finding("node", "none runs here", "start one: bytestag up")
