"""What a library is told: by its caller, else by the environment (shell over the environment)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bytestag.daemon.settings import NodeSettings
from bytestag.errors import UsageError
from bytestag.uri import Hint, parse_address

TIMEOUT_SECONDS = 20.0
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class LibraryConfig:
    """What a library is told. Unset paths are the user's own."""

    store_dir: Path | None = None
    state_dir: Path | None = None
    known_nodes: tuple[Hint, ...] = ()
    """Nodes to meet, as (host, port)."""
    network: str = ""
    host: str = ""
    """Address to bind for a client of our own."""
    local_only: bool = False
    """Never ask the network."""
    use_daemon: bool = True
    """Ask the running node, if there is one."""
    timeout: float = TIMEOUT_SECONDS
    """Seconds up to the first verified byte."""
    use_hard_links: bool = False
    """Store by hard links where the file system can."""

    def __post_init__(self) -> None:
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout < math.inf:
            raise UsageError(f"the timeout is no number of seconds: {str(self.timeout)[:40]!r}")

    @classmethod
    def from_environment(cls) -> LibraryConfig:
        """Return what the environment says: the variables of the commands' options.

        Raises UsageError for a variable that is malformed.
        """
        get = os.environ.get
        seconds = get("BYTESTAG_TIMEOUT", "")
        try:
            timeout = float(seconds) if seconds else TIMEOUT_SECONDS
        except ValueError:
            raise UsageError(f"BYTESTAG_TIMEOUT is no number: {seconds[:40]!r}") from None
        is_offline = get("BYTESTAG_OFFLINE", "") or get("BYTESTAG_LOCAL_ONLY", "")
        return cls(
            state_dir=_path(get("BYTESTAG_STATE_DIR", "")),
            store_dir=_path(get("BYTESTAG_STORE_DIR", "")),
            known_nodes=tuple(map(parse_address, get("BYTESTAG_KNOWN_NODE", "").split())),
            network=get("BYTESTAG_NETWORK", ""),
            host=get("BYTESTAG_HOST", ""),
            local_only=is_offline.lower() in _TRUE,
            timeout=timeout,
        )

    def changed(self, **changes: Any) -> LibraryConfig:
        """Return a copy with some fields changed, read as a person writes them.

        Raises UsageError for a field that there is not.
        """
        known = {field.name for field in fields(self)}
        for name in changes:
            if name not in known:
                raise UsageError(f"{name!r} is not configured", hint=", ".join(sorted(known)))
        for name in ("store_dir", "state_dir"):
            if changes.get(name) is not None:
                changes[name] = Path(os.path.abspath(os.path.expanduser(changes[name])))
        if isinstance(changes.get("known_nodes"), str):
            changes["known_nodes"] = changes["known_nodes"].split()
        if "known_nodes" in changes:
            changes["known_nodes"] = tuple(
                parse_address(node) if isinstance(node, str) else tuple(node)
                for node in changes["known_nodes"]
            )
        return replace(self, **changes)

    @property
    def node_settings(self) -> NodeSettings:
        """What a client of our own is told."""
        return NodeSettings(
            host=self.host,
            known_nodes=self.known_nodes,
            network=self.network,
            state_directory=self.state_dir,
        )


def _path(text: str) -> Path | None:
    return Path(os.path.abspath(os.path.expanduser(text))) if text else None
