"""``share`` through a running node: it keeps the shares when the command ends (shell)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bytestag.cli.output import Output
from bytestag.cli.screens import ShareScreen
from bytestag.errors import BytestagError, UsageError
from bytestag.gateway.door import Door

if TYPE_CHECKING:
    from bytestag.daemon.settings import NodeSettings


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end blocking work as SIGINT does."""

    def on_signal(_number: int, _frame: object) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, on_signal)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def known_nodes(settings: NodeSettings) -> list[str]:
    """Return the known nodes as the door wants them."""
    from bytestag.uri import format_address

    return [format_address(*address) for address in settings.known_nodes]


def check_network(door: Door, settings: NodeSettings) -> None:
    """Raise UsageError if another network is asked for than the running node is in."""
    if settings.network:
        network = door.ask("GET", "/v1/status")["network"]
        if network != settings.network:
            raise UsageError(
                f"the running node is in the network {network!r}, not {settings.network!r}",
                hint="give a --state-dir of its own to be in another network",
            )


def share_through(
    door: Door,
    output: Output,
    screen: ShareScreen,
    paths: list[Path],
    until_copies: int,
    settings: NodeSettings,
) -> int:
    """Register paths with the running node and show how it goes."""
    check_network(door, settings)
    body: dict[str, Any] = {
        "copies": settings.copies,
        "keep_seconds": settings.keep_seconds,
        "until_copies": until_copies,
        "has_hints": settings.has_hints,
        "known_nodes": known_nodes(settings),
    }
    events: SimpleQueue[Any] = SimpleQueue()
    with interruptible():
        try:
            for path in paths:
                # Each link before the next path is begun; then all of them at the same time.
                thread = threading.Thread(
                    target=_listen, args=(door, {**body, "path": str(path)}, events), daemon=True
                )
                thread.start()
                _show_until(events, screen, "link")
            output.note("the running node goes on sharing when this command ends")
            return _show_rest(events, screen, len(paths))
        except KeyboardInterrupt as interrupt:
            if len(screen.links) == len(paths) and not until_copies:
                return 0
            return 143 if isinstance(interrupt, Terminated) else 130


def _listen(door: Door, body: dict[str, Any], events: SimpleQueue[Any]) -> None:
    try:
        for event in door.stream("/v1/shares", body):
            events.put(event)
        events.put(None)
    except BaseException as error:
        events.put(error)


def _show_until(events: SimpleQueue[Any], screen: ShareScreen, kind: str) -> None:
    """Show events up to the first of a kind; raise the error that comes instead."""
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        screen.show(event)
        if event["type"] == kind:
            return


def _show_rest(events: SimpleQueue[Any], screen: ShareScreen, left: int) -> int:
    """Show events until all streams ended; the first failure is raised at the end."""
    failures: list[BaseException] = []
    while left:
        event = events.get()
        if isinstance(event, dict):
            screen.show(event)
            continue
        left -= 1
        if isinstance(event, BaseException):
            failures.append(event)
            if not isinstance(event, BytestagError):
                raise event
    if failures:
        raise failures[0]
    return 0
