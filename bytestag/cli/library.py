"""What commands that read and keep content share: options, a library, progress (composition)."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from bytestag.cli.options import NETWORK, STORE, TIMEOUT, option
from bytestag.cli.output import Output
from bytestag.cli.screens import Meter

if TYPE_CHECKING:
    from bytestag.library.library import Library
    from bytestag.uri import Link

LOCAL_ONLY = option("--local-only", is_flag=True, help="Do not ask the network.")
READING = (STORE, LOCAL_ONLY, TIMEOUT, *NETWORK)


@contextmanager
def opened(values: Mapping[str, Any]) -> Iterator[Library]:
    """Give the library that the options ask for."""
    from bytestag.library.config import LibraryConfig
    from bytestag.library.library import Library

    told = {
        "store_dir": values.get("store_dir"),
        "state_dir": values.get("state_dir"),
        "network": values.get("network") or "",
        "host": values.get("host") or "",
        "local_only": values.get("local_only") or None,
        "timeout": values.get("timeout"),
        "known_nodes": values.get("known_node") or (),
    }
    config = LibraryConfig.from_environment()
    told = {name: value for name, value in told.items() if value}
    with closing(Library(config.changed(**told))) as library:
        yield library


def report_to(output: Output, what: str) -> Callable[[int, int, int], None]:
    """Return what shows how far it is: bytes, rate, what is left, and sources."""
    meter = Meter(output.now)

    def report(done: int, total: int, sources: int) -> None:
        output.progress(f"{what}: {meter.text(done, total, sources)}", done, total)

    return report


def link_of(library: Library, name: str) -> Link:
    """Return the link that a name is. Raises UsageError for a path, NotFound, FormatError."""
    from bytestag.errors import UsageError
    from bytestag.uri import Link

    found = library.named(name)
    if not isinstance(found, Link):
        raise UsageError(
            f"{name!r} is a path, not a link",
            hint=f"`bytestag store {shlex.quote(name)}` gives its link",
        )
    return found
