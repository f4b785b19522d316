"""The systemd user unit of a node (pure but for its file).

The node reads shares in place and writes what ``fetch`` asks it to, as the user does: the home
directory stays writable, everything else is read-only but what is named. A user's manager can only
restrict in a user namespace of its own (``PrivateUsers``). ``MemoryDenyWriteExecute`` is left out:
cffi makes its callbacks in memory that is written and run. What ``fetch`` makes has the mode that
the user's own shell would give it; what is for the node alone lies in directories that only its
owner may enter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bytestag.errors import StorageError, UsageError

NAME = "bytestag.service"
MARK = "# Written by `bytestag service install`; it is written anew, so put changes into"

_TEMPLATE = f"""\
{MARK}
# `systemctl --user edit {NAME}`.
[Unit]
Description=bytestag node

[Service]
Type=notify
ExecStart={{command}}
{{environment}}Restart=on-failure
RestartSec=5s
TimeoutStartSec=5min
TimeoutStopSec=15s
UMask={{umask:04o}}
MemoryHigh=1G

PrivateUsers=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
RuntimeDirectory=bytestag
RuntimeDirectoryMode=0700
ReadWritePaths={{paths}}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=default.target
"""
_CONTROLS = re.compile("[\x00-\x1f\x7f]")


def unit_text(
    command: Sequence[str],
    environment: Mapping[str, str],
    writable: Sequence[Path],
    umask: int = 0o022,
) -> str:
    """Return the unit. Raises UsageError for what no line of it can hold."""
    variables = "".join(
        f"Environment={_quoted(f'{name}={value}')}\n" for name, value in environment.items()
    )
    paths = ["%h", "-/tmp", "-/var/tmp", *(_quoted(str(path)) for path in writable)]
    return _TEMPLATE.format(
        command=" ".join(_quoted(word).replace("$", "$$") for word in command),
        environment=variables,
        paths=" ".join(paths),
        umask=umask,
    )


def install(path: Path, text: str) -> None:
    """Write the unit. Raises StorageError, UsageError if there is one that is not ours."""
    if is_there(path) and not _is_ours(path):
        raise UsageError(f"{str(path)!r} was not written by bytestag", hint="move it away first")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise StorageError(f"cannot write {str(path)!r}: {error.strerror}") from error


def uninstall(path: Path) -> bool:
    """Remove the unit; return whether it was there. Raises StorageError, UsageError."""
    if not is_there(path):
        return False
    if not _is_ours(path):
        raise UsageError(f"{str(path)!r} was not written by bytestag", hint="remove it yourself")
    try:
        path.unlink()
    except OSError as error:
        raise StorageError(f"cannot remove {str(path)!r}: {error.strerror}") from error
    return True


def is_there(path: Path) -> bool:
    """Return whether there is a unit of this name, ours or another."""
    return os.path.lexists(path)


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text("utf-8").startswith(MARK)
    except (OSError, ValueError):
        return False


def _quoted(text: str) -> str:
    """Return one word of a unit's line (systemd.syntax(7), systemd.unit(5), "Specifiers")."""
    if _CONTROLS.search(text):
        raise UsageError(f"{text!a} has a control character, which no service unit can hold")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
