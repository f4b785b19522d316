"""What ``bytestag doctor`` looks at: one finding a check, with what to do about it (shell).

Nothing is sent beyond this machine, and nothing is written but a temporary file in the state
directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bytestag.config import MIB
from bytestag.crypto.identity import Identity
from bytestag.daemon.keyfiles import NODE_NAME
from bytestag.daemon.locking import locked
from bytestag.daemon.nodes import cache_directory, default_cache_bytes
from bytestag.daemon.settings import ANY_HOST, NodeSettings, default_route_host
from bytestag.errors import BytestagError, StateInUse
from bytestag.network import offload
from bytestag.network.endpoint import SOCKET_BUFFER_BYTES
from bytestag.tables.database_file import faults
from bytestag.uri import OPEN_NETWORK, format_address

CLOCK_SECONDS_MAX = 2.0  # file systems of other machines are that far off without harm
FUTURE_SECONDS_MAX = 60.0
FREE_BYTES_MIN = 64 * MIB
BUFFER_BYTES_MIN = 4 * MIB  # a quarter of it is what a sender may have in flight: a full window


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. ``fix`` is empty if all is well."""

    name: str
    text: str
    fix: str = ""

    @property
    def is_ok(self) -> bool:
        return not self.fix

    def to_json(self) -> dict[str, Any]:
        """Return the object of ``--json``."""
        return {"name": self.name, "ok": self.is_ok, "text": self.text, "fix": self.fix or None}


def local_findings(
    settings: NodeSettings, wall: Callable[[], float], *, is_up: bool
) -> Iterator[Finding]:
    """Yield what can be seen without asking a node; ``is_up`` is whether one runs here."""
    yield key_finding(settings)
    yield from state_findings(settings, is_up=is_up)
    yield disk_finding(settings)
    if not is_up:
        yield port_finding(settings.host or ANY_HOST, settings.port)
    yield clock_finding(settings.state, wall)
    yield buffer_finding()
    yield offload_finding()


# --- Files ---------------------------------------------------------------------------------------


def key_finding(settings: NodeSettings) -> Finding:
    """The key file can be read, by nobody else, and is one."""
    path = settings.identity or settings.state / NODE_NAME
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        secret = path.read_bytes()
    except FileNotFoundError:
        return Finding("key", "there is none yet; the first start makes it")
    except OSError as error:
        return Finding("key", f"cannot read {path}: {error.strerror}", f"chmod 600 {path}")
    if os.name == "posix" and mode & 0o077:
        return Finding("key", f"others may read {path} (mode {mode:04o})", f"chmod 600 {path}")
    try:
        identity = Identity.from_bytes(secret)
    except BytestagError:
        fix = "put the key back from a copy, or move the file away: then a new node ID is made"
        return Finding("key", f"{path} is no key file", fix)
    return Finding("key", f"{path}, node ID {identity.node_id.base16}")


def state_findings(settings: NodeSettings, *, is_up: bool) -> Iterator[Finding]:
    """The state directory is ours and free, or held by the node that answers; its data is whole."""
    parent = state = settings.state
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK):
        yield Finding(
            "state",
            f"{parent} cannot be written to",
            f"chown it to yourself: chown -R $USER {parent}, or give a --state-dir",
        )
        return
    if not state.exists():
        yield Finding("state", f"{state} is made at the first start")
        return
    try:
        with locked(state):
            yield Finding("state", f"{state}, not in use")
            yield from database_findings(settings, is_up=False)
    except StateInUse:
        if is_up:
            yield Finding("state", f"{state}, in use by the running node")
        else:
            yield Finding(
                "state",
                f"{state} is held by a process that does not answer",
                f"wait until it has ended; its number says: fuser {state / 'lock'}",
            )
        yield from database_findings(settings, is_up=True)
    except BytestagError as error:
        yield Finding("state", error.message, error.hint or "give another --state-dir")


def database_findings(settings: NodeSettings, *, is_up: bool) -> Iterator[Finding]:
    """The databases open, and are whole if the node is down."""
    paths = [settings.state / "state.db"]
    if "://" not in settings.cache:
        paths.append(cache_directory(settings) / "cache.db")
    there = [path for path in paths if path.exists()]
    if not there:
        yield Finding("database", "there is none yet; the first start makes it")
    for path in there:
        yield _database_finding(path, is_up=is_up)


def _database_finding(path: Path, *, is_up: bool) -> Finding:
    if is_up:
        try:
            with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as base:
                base.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            return Finding("database", f"{path}: {error}", "stop the node, and run this again")
        return Finding("database", f"{path} opens; it is read as a whole when the node is down")
    broken = faults(path)
    if broken:
        return Finding(
            "database",
            f"{path} is broken: {broken[0]}",
            f"mv {path} {path}.bad; a new one begins empty",
        )
    return Finding("database", f"{path} is whole")


def disk_finding(settings: NodeSettings) -> Finding:
    """There is room for what is given to others."""
    if "://" in settings.cache:
        return Finding("disk", "the cache is a database server's, which is not looked at")
    directory = cache_directory(settings)
    here = directory.absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    free = shutil.disk_usage(here).free
    limit = settings.cache_bytes
    limit = default_cache_bytes(directory) if limit is None else limit
    used = _used(directory / "cache.db")
    text = f"{_size(free)} free, {_size(limit)} given to others, {_size(used)} of it used"
    if free < FREE_BYTES_MIN or limit > free + used:
        return Finding("disk", text, "free some space, or give less: --cache-size 1GiB")
    return Finding("disk", text)


def _used(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size(size: int) -> str:
    return f"{size / MIB / 1024:.1f} GiB" if size >= 1024 * MIB else f"{size / MIB:.0f} MiB"


# --- The machine ---------------------------------------------------------------------------------


def port_finding(host: str, port: int) -> Finding:
    """The address can be bound."""
    where = format_address(host, port)
    try:
        with _udp_socket(host) as sock:
            sock.bind((host, port))
    except (OSError, OverflowError) as error:
        return Finding(
            "port",
            f"cannot bind UDP {where}: {getattr(error, 'strerror', error)}",
            "choose another --port, or 0 for any; --host must be an address of this machine",
        )
    return Finding("port", f"UDP {where} can be bound" if port else "a UDP port can be bound")


def clock_finding(state: Path, wall: Callable[[], float]) -> Finding:
    """The clock agrees with the file system's and has not gone back since the node wrote."""
    directory = state if state.exists() else None
    fix = "set the clock: timedatectl set-ntp true"
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".clock-") as file:
            file.write(b"x")
            file.flush()
            offset = os.fstat(file.fileno()).st_mtime - wall()
        written = [path.stat().st_mtime for path in state.glob("*")] if directory else []
    except OSError as error:
        return Finding("clock", f"cannot write to {state}: {error.strerror}", "see the line above")
    if abs(offset) > CLOCK_SECONDS_MAX:
        return Finding("clock", f"{offset:+.1f} s off that of the file system", fix)
    ahead = max(written, default=0.0) - wall()
    if ahead > FUTURE_SECONDS_MAX:
        return Finding("clock", f"the node's files are {ahead:.0f} s in the future", fix)
    return Finding("clock", "agrees with the file system's; no other clock was asked")


def buffer_finding() -> Finding:
    """The kernel grants the socket buffers that are asked for."""
    granted = []
    with _udp_socket() as sock:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
            granted.append(sock.getsockopt(socket.SOL_SOCKET, option))
    receive, send = (f"{size // 1024:,} KiB" for size in granted)
    text = f"UDP buffers of {receive} to receive and {send} to send"
    if min(granted) >= BUFFER_BYTES_MIN:
        return Finding("buffers", text)
    wanted = SOCKET_BUFFER_BYTES
    return Finding(
        "buffers",
        f"{text}, less than {BUFFER_BYTES_MIN // 1024:,} KiB: slower over long ways",
        f"sudo sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}"
        if sys.platform == "linux"
        else f"raise the limit to {wanted} (kern.ipc.maxsockbuf)",
    )


def offload_finding() -> Finding:
    """The kernel cuts and merges datagrams (UDP_SEGMENT, UDP_GRO): a train over loopback tells."""
    if sys.platform != "linux":
        return Finding("offload", "this system has none: datagrams go one by one")
    has = zip(("GSO", "GRO"), offload.probe(), strict=True)
    if missing := [name for name, works in has if not works]:
        return Finding(
            "offload",
            f"no {' and no '.join(missing)}: datagrams go one by one, and cost more",
            "run Linux 5.0 or later, outside a sandbox that emulates it",
        )
    return Finding("offload", "GSO and GRO work")


def _udp_socket(host: str = ANY_HOST) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)


# --- The running node ----------------------------------------------------------------------------


def node_findings(status: dict[str, Any]) -> Iterator[Finding]:
    """Yield what follows from the status of the running node."""
    address = format_address(*status["address"])
    yield Finding("node", f"runs on UDP {address}, its door answers")
    contacts = status["contacts"]
    if contacts:
        yield Finding("contacts", f"{contacts:,} in network {status['network']}")
    else:
        yield Finding(
            "contacts",
            f"none in network {status['network']}",
            "start it with --known-node HOST:PORT of a node that is up",
        )
    yield reachable_finding(status)


def reachable_finding(status: dict[str, Any]) -> Finding:
    """Others can reach the node, so that it can be their contact."""
    reachable = [format_address(*address) for address in status["reachable_at"]]
    if reachable:
        return Finding("reachable", f"others reach it at {', '.join(reachable)}")
    if not status["contacts"]:
        return Finding("reachable", "nobody has said yet: there are no contacts")
    port, host = status["address"][1], default_route_host() or "this machine"
    text = "no address is known by which others reach it"
    if status["network"] == OPEN_NETWORK:
        text += "; behind a private address it can fetch and share, but be nobody's contact"
        text += ", and a donor holds nothing" if status["is_donor"] else ""
    return Finding(
        "reachable",
        text,
        f"forward UDP {port} to {host} on the router, or run it on a machine with a public address",
    )
