"""What commands that read and keep content share: options, a library, progress (composition)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.options import NETWORK, TIMEOUT, option
from bytestag.cli.output import Output
from bytestag.cli.values import print_size

if TYPE_CHECKING:
    from bytestag.library.library import Library
    from bytestag.uri import Link

STORE = option(
    "--store-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Directory of the content store.",
)
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


def report_to(output: Output, what: str) -> Callable[[int, int], None]:
    """Return what shows how far it is: bytes, rate and what is left."""
    meter = Meter()

    def report(done: int, total: int) -> None:
        output.progress(f"{what}  {meter.text(done, total)}", done, total)

    return report


class Meter:
    """Says bytes, rate and time left in words."""

    def __init__(self) -> None:
        self._clock: Callable[[], float] | None = None
        self._began = 0.0

    def text(self, done: int, total: int) -> str:
        """Return ``5.3 MiB of 8.1 MiB  112 MiB/s  ETA 26 s``."""
        if self._clock is None:
            from bytestag.events.runtime import system_runtime

            self._clock = system_runtime().monotonic
            self._began = self._clock()
        rate = done / max(self._clock() - self._began, 1e-3)
        words = f"{print_size(done)} of {print_size(total)}  {print_size(rate)}/s"
        if rate and total > done:
            words += f"  ETA {(total - done) / rate:.0f} s"
        return words


def link_of(name: str) -> Link:
    """Return the link that a name is. Raises UsageError for a path, NotFound, FormatError."""
    from bytestag.errors import UsageError
    from bytestag.library.names import read_name
    from bytestag.uri import Link

    found = read_name(name)
    if not isinstance(found, Link):
        raise UsageError(f"{name!r} is a path, not a link")
    return found
