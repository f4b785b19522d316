"""``bytestag node``: a headless donor (composition)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.options import (
    CACHE,
    NETWORK,
    PUBLISHING,
    STORE,
    absolute_path,
    command,
    option,
)
from bytestag.cli.output import Output
from bytestag.cli.values import count, print_size

if TYPE_CHECKING:
    from bytestag.cli.running import Stop
    from bytestag.events.runtime import Runtime


OPTIONS = (
    *CACHE,
    option(
        "--share-dir",
        type=click.Path(path_type=Path),
        multiple=True,
        help="A file or directory to share; may be repeated.",
    ),
    option(
        "--initial-scan/--no-initial-scan",
        default=False,
        help="Hash all shares before joining the network.",
    ),
    option(
        "--serve-store/--no-serve-store",
        default=True,
        help="Serve what your content store holds to whoever knows its hash.",
    ),
    STORE,
    *NETWORK,
    *PUBLISHING,
)


@command(
    "Run a donor until it is stopped: hold values for others, serve your own shares, and be "
    "there for `share`, `fetch`, `find` and `status`.",
    *OPTIONS,
    log_verbose=1,
)
def node(output: Output, **values: Any) -> int:
    from bytestag.cli.options import node_settings
    from bytestag.cli.running import run

    share_paths = list(map(absolute_path, values.pop("share_dir")))
    has_initial_scan = values.pop("initial_scan")
    settings = node_settings(values)

    async def main(runtime: Runtime, stop: Stop) -> int:
        from bytestag.daemon.serving import serve

        def on_up(status: dict[str, Any]) -> None:
            if output.is_json:
                output.json(status)
            else:
                host, port = status["address"]
                output.answer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                output.note(
                    f"node {status['node_id']} of network {status['network']}, "
                    f"{print_size(status['cache_bytes_max'])} given to others, "
                    f"{count(status['contacts'], 'contact')}"
                )

        await serve(
            settings,
            runtime,
            stop.wait,
            share_paths=share_paths,
            has_initial_scan=has_initial_scan,
            on_up=on_up,
            note=output.note,
            warn=output.warn,
        )
        return 0

    return run(main)
