"""``bytestag health``: whether the running node serves (composition)."""

from __future__ import annotations

from typing import Any

from bytestag.cli.options import STATE, command, node_settings
from bytestag.cli.output import Output
from bytestag.errors import BytestagError

_LOOKUP_SECONDS = "5"


class Unhealthy(BytestagError):
    """The node does not serve."""

    code = "unhealthy"


@command(
    "Read a value that every node has from the running node, and compare it. Exits with 0 if it "
    "is served, else with 1 and the reason.",
    STATE,
)
def health(output: Output, **values: Any) -> int:
    from bytestag.gateway.door import Door
    from bytestag.tables.built_in import LINK, VALUE

    try:
        door = Door.find(node_settings(values).state_directory)
        if door is None:
            raise Unhealthy("no node runs here", hint="start one: bytestag up")
        served = door.read("/v1/content", link=str(LINK), timeout=_LOOKUP_SECONDS)
    except Unhealthy:
        raise
    except BytestagError as error:
        raise Unhealthy(f"the node does not serve: {error.message}", hint=error.hint) from error
    if served != VALUE:
        raise Unhealthy("the node serves wrong bytes", hint="bytestag doctor says more")
    if output.is_json:
        output.json({"ok": True, "link": str(LINK), "bytes": len(served)})
    else:
        output.note("the node serves", "good")
    return 0
