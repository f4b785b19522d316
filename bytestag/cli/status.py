"""``bytestag status``: how the running node is (composition)."""

from __future__ import annotations

from typing import Any

from bytestag.cli.options import STATE, command, node_settings
from bytestag.cli.output import Output
from bytestag.cli.values import about, count, print_size
from bytestag.errors import Unreachable
from bytestag.uri import format_address


@command("Say how the running node is: its ID, its network, what it holds and shares.", STATE)
def status(output: Output, **values: Any) -> int:
    from bytestag.gateway.door import Door

    door = Door.find(node_settings(values).state_directory)
    if door is None:
        raise Unreachable("no node runs here", hint="start one with `bytestag up`")
    found = door.ask("GET", "/v1/status")
    if output.is_json:
        output.json(found)
        return 0
    reachable = " ".join(format_address(*address) for address in found["reachable_at"])
    held = f"{print_size(found['cache_bytes'])} of {print_size(found['cache_bytes_max'])}"
    others = f", {about(found['network_nodes'], 'other node')}" if found["network_nodes"] else ""
    lines = {
        "node": found["node_id"],
        "network": f"{found['network']}{others}, "
        f"{count(found['contacts'], 'contact')}, {count(found['sessions'], 'session')}",
        "address": f"{format_address(*found['address'])}"
        + (f", reached at {reachable}" if reachable else ", not reachable yet"),
        "for others": f"{held}, {count(found['values_held'], 'value')}",
        "shared": f"{count(found['files_shared'], 'file')} in "
        f"{count(len(found['shares']), 'share')}",
        "uploaded": print_size(found["bytes_uploaded"]),
    }
    for name, text in lines.items():
        output.answer(f"{name:<11} {text}")
    for path in found["shares"]:
        output.answer(f"{'':<11} {path}")
    return 0
