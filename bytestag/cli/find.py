"""``bytestag find``: who holds what a link names (composition)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.options import HINTS, NETWORK, command, node_settings
from bytestag.cli.output import Output
from bytestag.cli.values import count, print_size

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.daemon.settings import NodeSettings
    from bytestag.events.runtime import Runtime
    from bytestag.uri import Link


@command(
    "Say who holds what LINK, or a .prv or .prvdir file, names: node ID, address and size of each "
    "holder, then who serves it as its publisher.",
    click.argument("link"),
    HINTS,
    *NETWORK,
)
def find(output: Output, link: str, **values: Any) -> int:
    from bytestag.cli import pointers
    from bytestag.cli.fetch import door_to, read_named
    from bytestag.cli.share_through import known_nodes

    settings = node_settings(values)
    parsed, pointer = read_named(link, settings)
    door = door_to(parsed, settings)
    if pointer is not None:
        from bytestag.models.prv import PrvDirectory

        if isinstance(pointer, PrvDirectory):
            return pointers.find_directory(door, output, pointer, parsed, settings)
    if door is not None:
        known = " ".join(known_nodes(settings))
        show(output, door.ask("GET", "/v1/find", link=str(parsed), known_nodes=known))
        return 0
    return _find_here(output, parsed, settings)


def _find_here(output: Output, link: Link, settings: NodeSettings) -> int:
    from bytestag.cli.running import run, until_stopped
    from bytestag.daemon.nodes import join_for, open_client
    from bytestag.gateway import jobs

    async def main(runtime: Runtime, stop: Stop) -> int:
        async def work() -> None:
            async with open_client(settings, link, runtime, output.note) as client:
                await join_for(client, link)
                found = await jobs.find(client, link)
            show(output, found)

        return 0 if await until_stopped(stop, work()) else stop.exit_status

    return run(main)


def show(output: Output, found: dict[str, Any]) -> None:
    """Show who holds it."""
    if output.is_json:
        output.json(found)
        return
    for holder in found["holders"]:
        size = print_size(holder["size"])
        output.answer(f"{holder['node_id']}  {holder['address']}  {size}")
    for provider in found["providers"]:
        addresses = " ".join(provider["addresses"])
        output.answer(f"{provider['node_id']}  {addresses}  publisher")
    output.note(
        f"{count(len(found['holders']), 'holder')}, "
        f"{count(len(found['providers']), 'publisher')}; "
        f"asked {found['asked']}, {found['answered']} answered"
    )
