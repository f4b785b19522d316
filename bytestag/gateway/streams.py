"""Bodies of the control door: read with suspicion, answered line by line (shell over aiohttp)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from bytestag.errors import BytestagError, UsageError
from bytestag.gateway.events import Emit, Event, error_event

_logger = logging.getLogger(__name__)

EVENTS_WAITING_MAX = 256
SENT_BYTES = 4 * 1024 * 1024
T = TypeVar("T")


class _Events:
    """Events on their way to somebody who may read slowly: then progress is left out."""

    def __init__(self) -> None:
        self._events: deque[Event | None] = deque()
        self._ready = asyncio.Event()

    def put(self, event: Event | None) -> None:
        is_progress = event is not None and event["type"] == "progress"
        if not is_progress or len(self._events) < EVENTS_WAITING_MAX:
            self._events.append(event)
            self._ready.set()

    async def next(self) -> Event | None:
        while not self._events:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft()


async def stream(
    request: web.Request, work: Callable[[Emit], Awaitable[None]]
) -> web.StreamResponse:
    """Run work and send its events, one a line; the work ends when nobody listens."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    events = _Events()

    async def run() -> None:
        try:
            await work(events.put)
        except BytestagError as error:
            events.put(error_event(error))
        except Exception as error:  # a bug: whoever asked must not take the end for success
            events.put(error_event(internal_error(error)))
        finally:
            events.put(None)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        try:
            while (event := await events.next()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
            await response.write_eof()
        except ConnectionError:
            task.cancel()  # whoever asked has gone
    return response


async def send_bytes(
    request: web.Request, read: Callable[[int, int], Awaitable[bytes]], start: int, end: int
) -> web.StreamResponse:
    """Answer with the bytes from ``start`` to before ``end``, piece by piece.

    What ``read`` raises at first is raised; if it fails later the connection breaks, so that
    nobody takes the part for the whole.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    response.content_length = max(end - start, 0)
    piece = await read(start, min(start + SENT_BYTES, end))
    await response.prepare(request)
    try:
        while piece:
            await response.write(piece)
            start += len(piece)
            piece = await read(start, min(start + SENT_BYTES, end))
    except BytestagError as error:
        _logger.warning("! reading on for the user: %s", error)
        if request.transport is not None:
            request.transport.abort()
    await response.write_eof()
    return response


def internal_error(error: Exception) -> BytestagError:
    """Return what is said of a bug; the log gets the rest."""
    _logger.error("! the control door", exc_info=error)
    return BytestagError(
        f"internal error of the running node: {type(error).__name__}: {error}",
        hint="see its log, and report what it says",
    )


# --- Reading and checking ------------------------------------------------------------------------


async def body_of(request: web.Request) -> Event:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise UsageError("the body is not JSON") from error
    if not isinstance(body, dict):
        raise UsageError("the body is no JSON object")
    return body


def field(body: Event, name: str, kind: type[T], default: T) -> T:
    value = body.get(name)
    if value is None:
        return default
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UsageError(f"{name} is not {kind.__name__}")
    found: T = value
    return found


def absolute_path(body: dict[str, Any], name: str) -> Path:
    path = Path(field(body, name, str, ""))
    if not path.is_absolute() or "\0" in str(path):
        raise UsageError(f"{name} is no absolute path")
    return path


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """Return a number of a query. Raises UsageError if it is none, or negative."""
    text = query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"{name} is no number")
    return int(text)
