"""What the service manager is told."""

import socket

import pytest

from bytestag.daemon.notify import READY, notify


def test_without_a_manager_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify(READY)
    for address in ("nonsense", "/nowhere/at/all", "vsock:2:1"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert not notify(READY)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_state_is_one_datagram(monkeypatch, tmp_path, is_abstract):
    path = f"@{tmp_path}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path.replace("@", "\0", 1))
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert notify(READY)
        assert manager.recv(100) == b"READY=1"
