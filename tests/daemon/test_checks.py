"""What the doctor finds, in states that are made for it."""

import os
import socket
import time

import pytest

from bytestag.crypto.identity import Identity
from bytestag.daemon import checks
from bytestag.daemon.locking import locked
from bytestag.daemon.settings import NodeSettings
from bytestag.errors import StorageError
from bytestag.tables.database_engine import Database

STATUS = {
    "network": "BYTESTAG",
    "address": ["0.0.0.0", 4001],
    "reachable_at": [],
    "contacts": 3,
    "is_donor": True,
}


@pytest.fixture
def settings(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    return NodeSettings(state_directory=state)


def by_name(findings):
    return {finding.name: finding for finding in findings}


def test_a_machine_without_a_node_is_well(tmp_path):
    settings = NodeSettings(state_directory=tmp_path / "state")
    found = by_name(checks.local_findings(settings, time.time, is_up=False))
    for name in ("key", "state", "disk", "port", "clock"):
        assert found[name].is_ok, found[name]
    assert not (tmp_path / "state").exists()


def test_a_finding_is_one_json_object():
    assert checks.Finding("x", "text", "do").to_json() == {
        "name": "x",
        "ok": False,
        "text": "text",
        "fix": "do",
    }
    assert checks.Finding("x", "text").to_json()["fix"] is None


def test_a_key_file_is_read_by_its_owner_only_and_is_a_key(settings):
    path = settings.state / "identity.key"
    identity = Identity.generate(os.urandom)
    path.write_bytes(identity.to_bytes())
    path.chmod(0o644)
    assert checks.key_finding(settings).fix == f"chmod 600 {path}"
    path.chmod(0o600)
    assert identity.node_id.base16 in checks.key_finding(settings).text
    path.write_bytes(b"nonsense")
    assert not checks.key_finding(settings).is_ok


def test_a_state_directory_is_free_or_held_by_the_node_that_answers(settings):
    for is_up, is_ok in ((True, True), (False, False)):
        with locked(settings.state):
            found = by_name(checks.state_findings(settings, is_up=is_up))
            assert found["state"].is_ok is is_ok
    assert by_name(checks.state_findings(settings, is_up=False))["state"].is_ok


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may write anywhere")
def test_a_state_directory_of_somebody_else_is_found(settings):
    settings.state.chmod(0o500)
    assert not by_name(checks.state_findings(settings, is_up=False))["state"].is_ok
    settings.state.chmod(0o700)


def test_a_broken_database_is_found_when_the_node_is_down(settings):
    path = settings.state / "state.db"
    Database(path).close()
    for is_up in (True, False):
        assert all(found.is_ok for found in checks.database_findings(settings, is_up=is_up))
    path.write_bytes(b"no database at all " * 1000)
    for is_up in (True, False):
        found = list(checks.database_findings(settings, is_up=is_up))
        assert [finding.is_ok for finding in found] == [False]


def test_a_limit_beyond_the_disk_is_found(settings):
    small = NodeSettings(state_directory=settings.state, cache_bytes=1)
    large = NodeSettings(state_directory=settings.state, cache_bytes=2**60)
    assert checks.disk_finding(small).is_ok
    assert "--cache-size" in checks.disk_finding(large).fix
    assert checks.disk_finding(NodeSettings(cache="postgresql://x")).is_ok


def test_a_port_that_is_taken_is_found():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert "--port" in checks.port_finding("127.0.0.1", port).fix
    assert checks.port_finding("127.0.0.1", port).is_ok
    assert not checks.port_finding("192.0.2.1", 0).is_ok


def test_a_clock_that_differs_or_went_back_is_found(settings):
    assert checks.clock_finding(settings.state, time.time).is_ok
    off = checks.clock_finding(settings.state, lambda: time.time() - 10)
    assert "10.0 s off" in off.text
    path = settings.state / "state.db"
    path.touch()
    os.utime(path, (time.time() + 600, time.time() + 600))
    assert "in the future" in checks.clock_finding(settings.state, time.time).text
    assert sorted(os.listdir(settings.state)) == ["state.db"]


def test_buffers_are_measured_against_a_full_window(monkeypatch):
    assert "UDP buffers" in checks.buffer_finding().text
    monkeypatch.setattr(checks, "BUFFER_BYTES_MIN", 1)
    assert checks.buffer_finding().is_ok
    monkeypatch.setattr(checks, "BUFFER_BYTES_MIN", 2**40)
    assert checks.buffer_finding().fix


@pytest.mark.parametrize(
    ("works", "said"), [((False, False), "no GSO and no GRO:"), ((True, False), "no GRO:")]
)
def test_missing_offload_is_found(monkeypatch, works, said):
    monkeypatch.setattr(checks.sys, "platform", "linux")
    monkeypatch.setattr(checks.offload, "probe", lambda: works)
    assert said in checks.offload_finding().text
    assert checks.offload_finding().fix


def test_a_donor_behind_a_private_address_is_told_that_it_can_be_no_contact():
    found = by_name(checks.node_findings(STATUS))
    assert found["contacts"].is_ok
    assert "nobody's contact" in found["reachable"].text
    assert "a donor holds nothing" in found["reachable"].text
    assert "UDP 4001" in found["reachable"].fix
    there = by_name(checks.node_findings({**STATUS, "reachable_at": [["192.0.2.7", 4001]]}))
    assert there["reachable"].is_ok
    alone = by_name(checks.node_findings({**STATUS, "contacts": 0}))
    assert "--known-node" in alone["contacts"].fix
    assert alone["reachable"].is_ok


def test_a_state_that_cannot_be_locked_is_found(settings, monkeypatch):
    def refuse(_directory):
        raise StorageError("cannot lock it", hint="another disk")

    monkeypatch.setattr(checks, "locked", refuse)
    found = by_name(checks.state_findings(settings, is_up=False))
    assert (found["state"].text, found["state"].fix) == ("cannot lock it", "another disk")
