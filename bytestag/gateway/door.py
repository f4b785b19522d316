"""Knocking at the control door of a running node (shell; standard library only)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bytestag.errors import BytestagError, Unreachable
from bytestag.gateway import place
from bytestag.gateway.place import DoorPlace, door_place

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 120.0
READ_BYTES = 1024 * 1024

Answer = dict[str, Any]


class Door:
    """The door of a running node."""

    def __init__(self, where: DoorPlace, address: tuple[int, str] | None = None) -> None:
        self._place = where
        self._address = address

    @classmethod
    def find(cls, state_directory: Path | None) -> Door | None:
        """Return the door of the node that runs on a state directory, if there is one.

        Raises NotPermitted if somebody else could have opened it.
        """
        where = door_place(state_directory)
        door = cls(where)
        try:
            if not place.HAS_UNIX_SOCKETS or not where.socket_path.exists():
                read = json.loads(where.token_path.read_text("ascii"))
                door = cls(where, (int(read["port"]), str(read["token"])))
            door.connect(CONNECT_SECONDS).close()
        except (OSError, ValueError, KeyError):
            return None
        place.check_directory(where.directory)
        return door

    def connect(self, timeout: float | None) -> socket.socket:
        """Open a connection. Raises OSError."""
        if self._address is None:
            return place.connect(self._place.socket_path, timeout)
        return socket.create_connection(("127.0.0.1", self._address[0]), timeout)

    def ask(self, method: str, path: str, /, **query: str) -> Answer:
        """Ask for one object. Raises the error that the node answers with."""
        with self._answered(method, path, None, ANSWER_SECONDS, query) as response:
            found: Answer = _read(response.read())
            return found

    def read(self, path: str, /, **query: str) -> bytes:
        """Ask for bytes. Raises the error that the node answers with."""
        with self._answered("GET", path, None, ANSWER_SECONDS, query) as response:
            return response.read()

    def read_range(self, path: str, /, start: int, end: int, **query: str) -> bytes:
        """Ask for the bytes from ``start`` to before ``end``, which exist.

        Where an answer breaks off, the rest is asked for anew: it comes, or the node says why not.
        Raises the error that it answers with.
        """
        found = bytearray()
        while len(found) < end - start:
            before = len(found)
            bounds = {"start": str(start + before), "end": str(end)}
            try:
                with self._answered("GET", path, None, ANSWER_SECONDS, query | bounds) as response:
                    while piece := response.read(READ_BYTES):
                        found += piece
            except Unreachable:
                if len(found) == before:
                    raise
            if len(found) == before:
                raise _went_away()
        return bytes(found)

    def stream(self, path: str, body: Answer) -> Iterator[Answer]:
        """Ask for work; yield its events up to its result. Raises the error that ends it."""
        with self._answered("POST", path, body, None, {}) as response:
            while line := response.readline():
                event = _read(line)
                if event["type"] == "error":
                    raise failure(event)
                yield event
                if event["type"] == "result":
                    return
            raise _went_away()  # a killed node ends its lines as a finished one does

    @contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: Answer | None,
        timeout: float | None,
        query: dict[str, str],
    ) -> Iterator[http.client.HTTPResponse]:
        connection = _Connection(self, timeout)
        headers = {"Content-Type": "application/json"}
        if self._address is not None:
            headers["Authorization"] = f"Bearer {self._address[1]}"
            headers["Host"] = f"127.0.0.1:{self._address[0]}"
        try:
            connection.request(
                method,
                f"{path}?{urlencode(query, errors='surrogateescape')}" if query else path,
                None if body is None else json.dumps(body).encode(),
                headers,
            )
            response = connection.getresponse()
            if response.status != 200:
                raise failure(_read(response.read()))
            yield response
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, BytestagError):
                raise
            raise _went_away() from error
        finally:
            connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, door: Door, timeout: float | None) -> None:
        super().__init__("127.0.0.1")
        self._door = door
        self._answer_timeout = timeout

    def connect(self) -> None:
        self.sock = self._door.connect(CONNECT_SECONDS)
        self.sock.settimeout(self._answer_timeout)


def failure(event: Answer) -> BytestagError:
    """Return the error that an error object tells of."""
    code = str(event.get("code", BytestagError.code))
    kind = _kinds(BytestagError).get(code, BytestagError)
    message = str(event.get("message", "unknown"))
    error = kind.__new__(kind, message)  # what some say of their own is in the message already
    BytestagError.__init__(error, message, hint=event.get("hint"))
    error.code = code
    error.exit_status = int(event.get("exit", 1))
    return error


def _kinds(base: type[BytestagError]) -> dict[str, type[BytestagError]]:
    """Return the classes of errors by code."""
    found = {base.code: base}
    for kind in base.__subclasses__():
        found |= {code: c for code, c in _kinds(kind).items() if code not in found}
    return found


def _went_away() -> Unreachable:
    return Unreachable("the running node went away", hint="see its log, and start it again")


def _read(line: bytes) -> Answer:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise BytestagError(
            "the running node answers in a way that is not understood",
            hint="is it of another version? restart it",
        ) from error
    assert isinstance(found, dict)
    return found
