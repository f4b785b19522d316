"""Telling the service manager how far the node is: sd_notify(3) without a library (shell)."""

from __future__ import annotations

import contextlib
import os
import socket

READY, STOPPING = "READY=1", "STOPPING=1"


def notify(state: str) -> bool:
    """Send a state to who started the node, if that wants to know; return whether it was sent."""
    address = os.environ.get("NOTIFY_SOCKET", "")  # the protocol's own place, no option of ours
    if not address.startswith(("/", "@")):
        return False
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.connect(f"\0{address[1:]}" if address[0] == "@" else address)
        sock.sendall(state.encode("ascii"))
        return True
    return False
