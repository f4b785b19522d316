"""The control door: HTTP and JSON for the user's own commands (shell over aiohttp).

======  ============  =====================================================================
GET     /v1/status    how the node is
GET     /v1/shares    what it shares
POST    /v1/shares    share a path: JSON Lines, as ``share --json`` prints them
DELETE  /v1/shares    share a path no longer
POST    /v1/stored    serve what came into the content store
POST    /v1/fetch     fetch a link: JSON Lines, as ``fetch --json`` prints them
GET     /v1/find      who holds what a link names
GET     /v1/info      whether a link names a file or a directory, its size and hashes
GET     /v1/content   bytes of a file, from ``start`` to before ``end``
GET     /v1/manifest  a directory, as its canonical manifest
======  ============  =====================================================================

Only the user who runs the node may knock: the socket and its directory are theirs alone, and the
system says who is at the other end. On the loopback port, where there are no such sockets, a token
from a file that only they can read does the same, and the Host header must be ours.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from bytestag import basedir
from bytestag.client import Client
from bytestag.errors import BytestagError, NotPermitted, StateInUse, StorageError, UsageError
from bytestag.gateway import jobs, place
from bytestag.gateway.events import Emit, Event, error_event, fetch_result
from bytestag.gateway.place import DoorPlace
from bytestag.gateway.reading import OpenLinks, described
from bytestag.gateway.shares import Shares
from bytestag.gateway.sharing import ShareOrder
from bytestag.gateway.streams import (
    absolute_path,
    body_of,
    field,
    internal_error,
    number,
    send_bytes,
    stream,
)
from bytestag.uri import Link, parse_address

BODY_BYTES_MAX = 256 * 1024
CLOSE_SECONDS = 1.0
STATUS_OF_CODE = {
    "usage": 400,
    "not_permitted": 403,
    "not_found": 404,
    "unreachable": 502,
    "timeout": 504,
    "no_space": 507,
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_UCRED = struct.Struct("3i")


class ControlDoor:
    """The door of one node; use it as ``async with``."""

    def __init__(
        self,
        client: Client,
        shares: Shares,
        order: ShareOrder,
        where: DoorPlace,
        *,
        is_unix: bool = place.HAS_UNIX_SOCKETS,
    ) -> None:
        self._client = client
        self._shares = shares
        self._order = order
        self._place = where
        self._is_unix = is_unix
        self._token = client.runtime.token_bytes(32).hex()
        self._hosts: tuple[str, ...] = ()
        self._runner: web.AppRunner | None = None
        self._links = OpenLinks(client)

    # --- Life ------------------------------------------------------------------------------------

    async def __aenter__(self) -> ControlDoor:
        app = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES_MAX)
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/shares", self._list_shares),
                web.post("/v1/shares", self._share),
                web.delete("/v1/shares", self._unshare),
                web.post("/v1/stored", self._look_into_store),
                web.post("/v1/fetch", self._fetch),
                web.get("/v1/find", self._find),
                web.get("/v1/info", self._info),
                web.get("/v1/content", self._content),
                web.get("/v1/manifest", self._manifest),
            ]
        )
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=CLOSE_SECONDS
        )
        await self._runner.setup()
        try:
            sock = self._open_unix() if self._is_unix else self._open_loopback()
            await web.SockSite(self._runner, sock).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        return self

    async def __aexit__(self, *_exception: object) -> None:
        assert self._runner is not None
        path = self._place.socket_path if self._is_unix else self._place.token_path
        path.unlink(missing_ok=True)
        await self._runner.cleanup()
        self._links.close()

    def _open_unix(self) -> socket.socket:
        path = self._place.socket_path
        place.check_directory(basedir.ensure(self._place.directory))
        _remove_stale(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with place.short_path(path) as name:
                sock.bind(name)
            os.chmod(path, 0o600)
            sock.listen(64)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise StorageError(
                f"cannot open the control socket {str(path)!r}: {error.strerror}"
            ) from error
        return sock

    def _open_loopback(self) -> socket.socket:
        place.check_directory(basedir.ensure(self._place.directory))
        sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        sock.setblocking(False)
        port = sock.getsockname()[1]
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        path = self._place.token_path
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            json.dump({"port": port, "token": self._token}, file)
        return sock

    # --- Who may enter ---------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let the user in and nobody else; answer errors as JSON."""
        try:
            self._check_caller(request)
            return await handler(request)
        except BytestagError as error:
            status = STATUS_OF_CODE.get(error.code, 500)
            return web.json_response(error_event(error), status=status)
        except web.HTTPException as error:
            ours = UsageError(f"{request.method} {request.path}: {error.reason}")
            return web.json_response(error_event(ours), status=error.status)
        except Exception as error:  # a bug: said in our words, and whole in the log
            return web.json_response(error_event(internal_error(error)), status=500)

    def _check_caller(self, request: web.Request) -> None:
        if self._is_unix:
            uid = peer_uid(request)
            if uid is not None and uid != os.getuid():
                raise NotPermitted("the control door is for the user who runs the node")
            return
        given = request.headers.get("Authorization", "")
        is_ours = hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), f"Bearer {self._token}".encode()
        )
        if not is_ours or request.headers.get("Host") not in self._hosts:
            raise NotPermitted("the control door wants its token")

    # --- What can be asked -----------------------------------------------------------------------

    async def _status(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._client.runtime.offload(self._client.status))

    async def _list_shares(self, _request: web.Request) -> web.StreamResponse:
        shares = await self._client.runtime.offload(self._shares.list)
        return web.json_response({"shares": shares})

    async def _share(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        order = ShareOrder(
            absolute_path(body, "path"),
            copies=field(body, "copies", int, self._order.copies),
            keep_seconds=field(body, "keep_seconds", int, self._order.keep_seconds),
            has_hints=field(body, "has_hints", bool, True),
            default_host=self._order.default_host,
        )
        if not 1 <= order.copies <= 64 or order.keep_seconds < 0:
            raise UsageError("copies are 1 to 64, and keep_seconds is not negative")
        until_copies = field(body, "until_copies", int, 0)
        await self._meet(body)

        async def work(emit: Emit) -> None:
            try:
                job = await self._shares.add(order, emit)
                if until_copies:
                    await job.reach(until_copies)
                else:
                    await asyncio.Event().wait()  # what happens to it is told until they leave
            finally:
                self._shares.leave(order.path, emit)

        return await stream(request, work)

    async def _unshare(self, request: web.Request) -> web.StreamResponse:
        path = absolute_path(dict(request.query), "path")
        return web.json_response({"path": str(path), "was_shared": await self._shares.remove(path)})

    async def _look_into_store(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({"is_served": await self._client.sharing.look_into_store()})

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        body = await body_of(request)
        link, dest = Link.parse(field(body, "link", str, "")), absolute_path(body, "dest")
        seconds = field(body, "timeout", float, self._client.config.lookup_seconds)
        is_forced = field(body, "force", bool, False)
        await self._meet(body)

        async def work(emit: Emit) -> None:
            progress = await jobs.fetch(
                self._client,
                link,
                dest,
                emit,
                is_forced=is_forced,
                first_byte_seconds=seconds,
            )
            emit(fetch_result(str(dest), progress))

        return await stream(request, work)

    async def _find(self, request: web.Request) -> web.StreamResponse:
        link = Link.parse(request.query.get("link", ""))
        await self._meet({"known_nodes": request.query.get("known_nodes", "").split()})
        return web.json_response(await jobs.find(self._client, link))

    async def _info(self, request: web.Request) -> web.StreamResponse:
        link, seconds = await self._asked(request)
        opened = await self._links.open(link, seconds)
        return web.json_response(await self._client.runtime.offload(described, opened))

    async def _content(self, request: web.Request) -> web.StreamResponse:
        link, seconds = await self._asked(request)
        file = await self._links.file(link, seconds)
        start, end = number(request.query, "start", 0), number(request.query, "end", file.size)
        try:
            return await send_bytes(request, file.read, start, min(end, file.size))
        except BytestagError:
            self._links.forget(link)
            raise

    async def _manifest(self, request: web.Request) -> web.StreamResponse:
        link, seconds = await self._asked(request)
        manifest = await self._links.directory(link, seconds)
        packed = await self._client.runtime.offload(manifest.to_bytes)
        return web.Response(body=packed, content_type="application/json")

    async def _asked(self, request: web.Request) -> tuple[Link, float]:
        link = Link.parse(request.query.get("link", ""))
        await self._meet({"known_nodes": request.query.get("known_nodes", "").split()})
        seconds = number(request.query, "timeout", round(self._client.config.lookup_seconds))
        return link, float(seconds)

    async def _meet(self, body: Event) -> None:
        addresses = field(body, "known_nodes", list, [])
        await jobs.meet(self._client, tuple(parse_address(str(a)) for a in addresses[:8]))


# --- Who may enter, by the system ----------------------------------------------------------------


def peer_uid(request: web.Request) -> int | None:
    """Return who is at the other end of a Unix socket, where the system says so."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None or request.transport is None:
        return None
    sock = request.transport.get_extra_info("socket")
    uid: int = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))[1]
    return uid


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises StateInUse if somebody does."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StorageError(f"{str(path)!r} is no socket", hint="move it away")
        place.connect(path, 1.0).close()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
            raise StorageError(f"cannot look at {str(path)!r}: {error.strerror}") from error
        path.unlink(missing_ok=True)
        return
    raise StateInUse(
        "another node of this user has its control door open",
        hint="stop it, or give this one a --state-dir of its own",
    )
