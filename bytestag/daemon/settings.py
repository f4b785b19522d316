"""What a person says about the node to run, and what follows from it (pure but for the route)."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field
from pathlib import Path

from bytestag import basedir, config
from bytestag.config import Config, TransferLimits
from bytestag.uri import OPEN_NETWORK, Hint, Link

ANY_HOST, LOOPBACK = "0.0.0.0", "127.0.0.1"  # noqa: S104 - a node is there to be reached


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a person says about the node to run."""

    host: str = ""
    port: int = 0
    known_nodes: tuple[Hint, ...] = ()
    network: str = ""
    state_directory: Path | None = None
    store_directory: Path | None = None
    identity: Path | None = None
    cache: str = ""
    cache_bytes: int | None = None
    copies: int = 8
    keep_seconds: int = 90 * config.DAY
    has_hints: bool = True
    limits: TransferLimits = field(default_factory=TransferLimits)
    serves_store: bool = False
    """Serve what the user's content store holds to whoever knows its hash."""

    @property
    def hint_host(self) -> str:
        """The host for links, if one was given that names this machine to others."""
        return "" if self.host in ("", ANY_HOST, "::") else self.host

    @property
    def state(self) -> Path:
        """The state directory: the given one, else the user's."""
        given = self.state_directory
        return given.expanduser().absolute() if given is not None else basedir.state_dir()


def network_config(name: str, host: str, link: Link | None = None) -> Config:
    """Return the configuration of the network that is meant.

    The given name, else the link's, else the local network on loopback and the open one elsewhere.
    """
    if not name and link is not None and link.network != OPEN_NETWORK:
        name = link.network
    if not name:
        return config.local() if is_loopback(host) else config.internet()
    return config.internet() if name == OPEN_NETWORK else config.local(name)


def client_host(addresses: list[Hint]) -> str:
    """Return the host that a client of these addresses binds."""
    if addresses and all(is_loopback(host) and ":" not in host for host, _ in addresses):
        return LOOPBACK
    if addresses and all(":" in host for host, _ in addresses):
        return "::"
    return ANY_HOST


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, seen from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_route_host() -> str:
    """Return the address from which this machine would send to others; empty if it could not."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # documentation address; connecting sends nothing
            host: str = probe.getsockname()[0]
        except OSError:
            return ""
    return "" if is_loopback(host) else host
