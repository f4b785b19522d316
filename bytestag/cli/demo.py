"""``bytestag demo``: a share that outlives its owner, on this machine alone (composition)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bytestag.cli.options import command, option
from bytestag.cli.output import Output
from bytestag.cli.values import count, print_size

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.events.runtime import Runtime


@command(
    "Run real nodes on this machine: share a directory, stop its publisher, fetch it from the "
    "others, compare every byte. Nothing is kept.",
    option(
        "--nodes",
        type=click.IntRange(20, 200),
        default=20,
        show_default=True,
        help="How many nodes to run.",
    ),
)
def demo(output: Output, nodes: int) -> int:
    from bytestag.cli.demo_run import DEMO_COPIES, DemoResult, run_demo
    from bytestag.cli.running import run, until_stopped

    result: DemoResult | None = None

    async def main(runtime: Runtime, stop: Stop) -> int:
        async def work() -> None:
            nonlocal result
            result = await run_demo(nodes, DEMO_COPIES, runtime, output.note)

        return 0 if await until_stopped(stop, work()) else stop.exit_status

    status = run(main, threads=16)
    if result is None:
        return status
    if output.is_json:
        output.json(result.as_object())
    elif result.ok:
        output.answer("OK  the network kept the data without its owner.")
        output.note("next: bytestag share DIR")
    else:
        output.answer(
            f"FAILED  {count(result.files, 'file')}, {print_size(result.bytes)}: "
            "what was fetched is not what was shared"
        )
    return 0 if result.ok else 1
