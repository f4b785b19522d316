"""Contenders: how each program is told to serve a file and to fetch it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.syncthing_node import Node
from benchmarks.processes import free_port

PEER = "benchmarks.peers."
WORMHOLE_CODE = "7-bench-mark"
WORMHOLE_SECONDS = 2.0
"""Its servers and its sender say nothing when they are ready."""
SCAN_SECONDS = 60
NGINX = """worker_processes 1; daemon off; master_process off; pid {place}/pid;
error_log {place}/errors; events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; tcp_nopush on;
client_body_temp_path {place}/a; proxy_temp_path {place}/b; fastcgi_temp_path {place}/c;
uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;
server {{ listen 127.0.0.1:{port}; root {root}; }} }}
"""


@dataclass(frozen=True)
class Served:
    """A file that is being served: who serves it, and how to fetch it to a path."""

    servers: Sequence[subprocess.Popen[str]]
    fetch: Callable[[Path], list[str]]
    environment: dict[str, str]


@dataclass(frozen=True)
class Contender:
    """A program, or a way to use it."""

    name: str
    is_here: Callable[[], bool]
    serve: Callable[[Path, Path], Any]
    """Called with the file and a directory for its state; a context manager of :class:`Served`."""
    mib_max: int = 1 << 20
    """It would take minutes for more."""


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _wormhole_is_here() -> bool:
    modules = ("wormhole", "wormhole_mailbox_server", "wormhole_transit_relay")
    return all(importlib.util.find_spec(name) is not None for name in modules)


def _program(*names: str) -> Callable[[], bool]:
    return lambda: all(shutil.which(name) for name in names)


@contextmanager
def _running(
    command: list[str], first_line: str | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server, wait for the line that says it is ready, and end it."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = ""
        while first_line is not None and not line.startswith(first_line):
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"it ended early: {' '.join(command)}")
        yield process, line.strip()
    finally:
        process.terminate()
        process.wait(20)


# --- Ours ----------------------------------------------------------------------------------------


def bytestag(sources: int = 1, **environment: str) -> Callable[[Path, Path], Any]:
    """Share from several nodes; ``fetch --json``, from its start to its end."""

    @contextmanager
    def serve(file: Path, place: Path) -> Iterator[Served]:
        program = [sys.executable, "-m", "bytestag"]
        with _several(
            sources, lambda n: _share(program, file, place / f"node{n}", environment)
        ) as all_:
            links = [line for _, line in all_]
            hints = [part for link in links for part in link.split("&") if part.startswith("x.pe=")]
            link = links[0] if sources == 1 else _with_hints(links[0], hints)
            home = {"BYTESTAG_HOME": str(place / "reader"), **environment}
            local = ["--host", "127.0.0.1"]
            yield Served(
                [process for process, _ in all_],
                lambda out: [*program, "fetch", "--json", *local, link, str(out)],
                home,
            )

    return serve


def _share(program: list[str], file: Path, home: Path, environment: dict[str, str]) -> Any:
    options = ["--host", "127.0.0.1", "--port", str(free_port())]
    return _running(
        [*program, "share", *options, str(file)],
        "bytestag:",
        BYTESTAG_HOME=str(home),
        **environment,
    )


def _with_hints(link: str, hints: Sequence[str]) -> str:
    """Return the link with the addresses of all that serve it, and nobody's node ID."""
    parts = [p for p in link.split("&") if not p.startswith(("x.pe=", "n="))]
    return "&".join([*parts, *hints])


@contextmanager
def _several(count: int, begin: Callable[[int], Any]) -> Iterator[list[Any]]:
    if not count:
        yield []
        return
    with begin(count) as one, _several(count - 1, begin) as others:
        yield [one, *others]


# --- Others --------------------------------------------------------------------------------------


def libtorrent(mode: str, buffers: int = 0, sources: int = 1) -> Callable[[Path, Path], Any]:
    @contextmanager
    def serve(file: Path, place: Path) -> Iterator[Served]:
        program = [sys.executable, "-m", PEER + "libtorrent_node"]
        torrent, rest = str(place / "torrent"), [mode, str(buffers)]
        subprocess.run([*program, "make", str(file), torrent], check=True)
        ports = [str(free_port()) for _ in range(sources)]

        def seed(number: int) -> Any:
            port = ports[number - 1]
            return _running([*program, "seed", torrent, str(file.parent), port, *rest], "ready")

        with _several(sources, seed) as seeds:
            yield Served(
                [process for process, _ in seeds],
                lambda out: [
                    *program, "leech", torrent, str(out.parent), str(free_port()), *rest, *ports
                ],
                {},
            )  # fmt: skip

    return serve


@contextmanager
def iroh(file: Path, place: Path) -> Iterator[Served]:
    program, port = [sys.executable, "-m", PEER + "iroh_node"], str(free_port())
    with _running([*program, "seed", str(place / "seed"), str(file), port], "ready") as (
        node,
        line,
    ):
        _, hash_, node_id = line.split()

        def fetch(out: Path) -> list[str]:
            store = str(out.parent / "iroh")
            return [*program, "leech", store, str(out), str(free_port()), hash_, node_id, port]

        yield Served([node], fetch, {})


@contextmanager
def wormhole(file: Path, place: Path) -> Iterator[Served]:
    """Send with a mailbox and a transit relay of our own, so that nothing leaves this machine."""
    programs, (mailbox, transit) = Path(sys.executable).parent, (free_port(), free_port())
    twist, at = str(programs / "twist"), "interface=127.0.0.1"
    databases = [f"--channel-db={place}/channels", f"--usage-db={place}/usage"]
    command = [str(programs / "wormhole"), "--relay-url", f"ws://127.0.0.1:{mailbox}/v1"]
    command += ["--transit-helper", f"tcp:127.0.0.1:{transit}"]
    send = [*command, "send", "--hide-progress", "--code", WORMHOLE_CODE, str(file)]
    with (
        _running([twist, "wormhole-mailbox", f"--port=tcp:{mailbox}:{at}", *databases]),
        _running([twist, "transitrelay", f"--port=tcp:{transit}:{at}"]),
    ):
        time.sleep(WORMHOLE_SECONDS)
        with _running(send) as (sender, _):
            time.sleep(WORMHOLE_SECONDS)

            def fetch(out: Path) -> list[str]:
                receive = ["receive", "--hide-progress", "--accept-file", "-o", str(out)]
                return [*command, *receive, WORMHOLE_CODE]

            yield Served([sender], fetch, {})


@contextmanager
def syncthing(file: Path, place: Path) -> Iterator[Served]:
    """Two that know each other's device; the sender has hashed the file before."""
    sender, receiver = (
        Node.make(place / name, free_port(), free_port()) for name in ("sender", "receiver")
    )
    (place / "sent").mkdir()
    os.link(file, place / "sent" / file.name)
    size = file.stat().st_size
    with _running(sender.command) as (server, _):
        sender.wait_until_up()
        sender.meet(receiver.device, receiver.port)
        sender.share(place / "sent", receiver.device, "sendonly")
        sender.wait_until_it_has(size, SCAN_SECONDS)
        other = [str(receiver.home), sender.device, str(sender.port)]
        program = [sys.executable, "-m", PEER + "syncthing_node", "receive", *other]
        yield Served([server], lambda out: [*program, str(out), str(size)], {})


def nginx(client: str) -> Callable[[Path, Path], Any]:
    @contextmanager
    def serve(file: Path, place: Path) -> Iterator[Served]:
        port = free_port()
        settings = place / "nginx.conf"
        settings.write_text(NGINX.format(place=place, port=port, root=file.parent))
        url = f"http://127.0.0.1:{port}/{file.name}"
        with _running(["nginx", "-p", str(place), "-c", str(settings)]) as (server, _):
            yield Served([server], lambda out: _http_client(client, url, out, file), {})

    return serve


def _http_client(client: str, url: str, out: Path, file: Path) -> list[str]:
    if client == "curl":
        retry = ["--retry", "5", "--retry-connrefused", "--retry-delay", "1"]
        return ["curl", "-s", *retry, "-o", str(out), url]
    command = ["aria2c", "-q", "--file-allocation=none", "-d", str(out.parent), "-o", out.name]
    if client == "aria2-sha1":
        with file.open("rb") as whole:
            command.append(f"--checksum=sha-1={hashlib.file_digest(whole, 'sha1').hexdigest()}")
    return [*command, url]


FOUR_MIB = 4 * 1024 * 1024
OURS = Contender("bytestag", lambda: True, bytestag())
PEERS = (
    Contender("libtorrent", _module("libtorrent"), libtorrent("tcp")),
    Contender("libtorrent_4mib", _module("libtorrent"), libtorrent("tcp", FOUR_MIB)),
    Contender("utp_4mib", _module("libtorrent"), libtorrent("utp", FOUR_MIB)),
    Contender("utp", _module("libtorrent"), libtorrent("utp"), mib_max=64),
    Contender("iroh", _module("iroh"), iroh),
    Contender("wormhole", _wormhole_is_here, wormhole),
    Contender("syncthing", _program("syncthing"), syncthing),
    Contender("curl", _program("nginx", "curl"), nginx("curl")),
    Contender("aria2", _program("nginx", "aria2c"), nginx("aria2")),
    Contender("aria2_sha1", _program("nginx", "aria2c"), nginx("aria2-sha1")),
)
FOUR_SOURCES = (
    Contender("bytestag", lambda: True, bytestag(4)),
    Contender("libtorrent", _module("libtorrent"), libtorrent("tcp", 0, 4)),
)
