import errno
import os
import stat
from pathlib import Path

import pytest

from bytestag import config
from bytestag.crypto.identity import Identity
from bytestag.daemon.keyfiles import has_work, load_identity, own_identity
from bytestag.daemon.locking import locked
from bytestag.daemon.nodes import default_cache_bytes, open_node
from bytestag.daemon.settings import NodeSettings, client_host, is_loopback, network_config
from bytestag.errors import NotPermitted, StateInUse, StorageError, UsageError
from bytestag.events.runtime import system_runtime
from bytestag.uri import Link

KEY = "00" * 20


# --- Networks ------------------------------------------------------------------------------------


def test_the_network_is_local_on_loopback_and_the_open_one_elsewhere():
    assert network_config("", "127.0.0.1") == config.local()
    assert network_config("", "0.0.0.0") == config.internet()


def test_a_name_wins_over_the_link_and_the_link_over_the_host():
    link = Link.parse(f"bytestag://{KEY}?net=lab")
    assert network_config("", "0.0.0.0", link) == config.local("lab")
    assert network_config("mine", "0.0.0.0", link) == config.local("mine")
    assert network_config("BYTESTAG", "127.0.0.1", link) == config.internet()


def test_a_bare_link_on_loopback_is_of_the_local_network():
    assert network_config("", "127.0.0.1", Link.parse(f"sha1://{KEY}")) == config.local()


def test_a_client_binds_what_reaches_its_addresses():
    assert client_host([("127.0.0.1", 4000), ("127.0.0.2", 4000)]) == "127.0.0.1"
    assert client_host([("127.0.0.1", 4000), ("192.0.2.1", 4000)]) == "0.0.0.0"
    assert client_host([("2001:db8::1", 4000)]) == "::"
    assert client_host([]) == "0.0.0.0"
    assert is_loopback("localhost")
    assert not is_loopback("example.org")


# --- The state directory -------------------------------------------------------------------------


def test_a_state_directory_is_for_one_process_at_a_time(tmp_path):
    with locked(tmp_path / "state"):
        with pytest.raises(StateInUse) as caught, locked(tmp_path / "state"):
            pass
        assert "--state-dir" in caught.value.hint
    with locked(tmp_path / "state"):
        pass


def test_a_file_system_that_cannot_lock_is_said_to_be_so(tmp_path, monkeypatch):
    def flock(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StorageError, match="No locks available"), locked(tmp_path / "state"):
        pass


def test_the_state_directory_is_for_its_owner(tmp_path):
    with locked(tmp_path / "state"):
        assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


# --- Key files -----------------------------------------------------------------------------------


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "a" / "identity.key"
    made = load_identity(path, 0)
    assert path.read_bytes() == made.to_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_identity(path, 0).node_id == made.node_id
    assert os.listdir(path.parent) == ["identity.key"]


def test_a_key_file_that_others_may_read_is_refused_with_a_hint(tmp_path):
    path = tmp_path / "identity.key"
    load_identity(path, 0)
    path.chmod(0o640)
    with pytest.raises(NotPermitted) as caught:
        load_identity(path, 0)
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_file_that_is_no_key_is_refused(tmp_path):
    path = tmp_path / "identity.key"
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(UsageError):
        load_identity(path, 0)
    with pytest.raises(UsageError):
        own_identity(tmp_path, "identity.key", 4)
    assert path.read_bytes() == b"short"


def test_a_network_with_work_gets_a_key_of_its_own(tmp_path):
    secret = next(
        key for key in (Identity.generate(os.urandom) for _ in range(1000)) if not has_work(key, 4)
    )
    path = tmp_path / "identity.key"
    path.write_bytes(secret.to_bytes())
    path.chmod(0o600)
    notes = []
    with pytest.raises(UsageError):
        load_identity(path, 4)
    made = own_identity(tmp_path, "identity.key", 4, notes.append)
    assert has_work(made, 4)
    assert len(notes) == 1
    assert own_identity(tmp_path, "identity.key", 4, notes.append).node_id == made.node_id
    assert len(notes) == 1
    assert own_identity(tmp_path, "identity.key", 0).node_id == secret.node_id


def test_a_key_half_written_by_a_killed_process_is_no_obstacle(tmp_path):
    (tmp_path / f"identity.key.{os.getpid()}.part").write_bytes(b"half")
    made = load_identity(tmp_path / "identity.key", 0)
    assert load_identity(tmp_path / "identity.key", 0).node_id == made.node_id


# --- Nodes ---------------------------------------------------------------------------------------


def test_the_default_cache_is_a_tenth_of_the_free_disk_at_most_10_gib(tmp_path, monkeypatch):
    free = 20 * config.GIB

    def usage(path):
        assert Path(path).exists()
        return (0, 0, free)

    monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": usage(path)[2]}))
    assert default_cache_bytes(tmp_path / "not" / "yet") == 2 * config.GIB
    free = 500 * config.GIB
    assert default_cache_bytes(tmp_path) == 10 * config.GIB


async def status_of(settings, *, is_donor=True):
    runtime = system_runtime(4)
    try:
        async with open_node(settings, runtime, is_donor=is_donor) as client:
            return client.status()
    finally:
        runtime.close()


@pytest.fixture
def run():
    import asyncio

    return asyncio.run


def test_a_node_keeps_its_identity_and_its_port(tmp_path, run):
    settings = NodeSettings(host="127.0.0.1", state_directory=tmp_path, cache_bytes=2**20)
    first, second = run(status_of(settings)), run(status_of(settings))
    assert first["node_id"] == second["node_id"]
    assert first["address"] == second["address"]
    assert first["cache_bytes_max"] == 2**20
    assert first["is_donor"]


def test_a_cache_of_no_bytes_makes_no_donor(tmp_path, run):
    settings = NodeSettings(host="127.0.0.1", state_directory=tmp_path, cache_bytes=0)
    assert not run(status_of(settings))["is_donor"]


@pytest.mark.parametrize("cache", ["postgresql-data", "~nobody-of-that-name"])
def test_a_cache_is_a_directory_unless_it_is_a_url(tmp_path, run, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    settings = NodeSettings(
        host="127.0.0.1", state_directory=tmp_path / "s", cache=cache, cache_bytes=2**20
    )
    assert run(status_of(settings))["is_donor"]
    assert (tmp_path / cache).is_dir()


def test_a_cache_of_an_unknown_kind_is_a_usage_error(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = NodeSettings(host="127.0.0.1", state_directory=tmp_path, cache="mysql://u:secret@h")
    with pytest.raises(UsageError) as caught:
        run(status_of(settings))
    assert "secret" not in caught.value.message


def test_the_node_of_share_is_no_donor_and_leaves_the_cache_alone(tmp_path, run):
    settings = NodeSettings(
        host="127.0.0.1", state_directory=tmp_path / "s", cache=str(tmp_path / "cache")
    )
    status = run(status_of(settings, is_donor=False))
    assert (status["is_donor"], status["cache_bytes_max"]) == (False, 0)
    assert not (tmp_path / "cache").exists()
