"""``up``, ``down`` and ``service``, with real processes."""

import json
import os
import signal
import socket
import stat
import sys

import pytest
from click.testing import CliRunner

from bytestag.cli.main import program
from tests.cli.test_processes import documented_keys

NODE = ("--host", "127.0.0.1", "--cache-size", "16MiB")


@pytest.fixture
def ended(programs):
    """End the nodes that a test leaves behind, by their homes."""
    homes = []
    yield homes.append
    for home in homes:
        programs.run(home, "down")


@pytest.mark.slow
def test_up_starts_a_node_once_and_down_ends_it(programs, ended):
    ended("one")
    code, lines, notes = programs.run("one", "up", *NODE)
    assert code == 0, notes
    assert len(lines) == 1
    _, status, _ = programs.run("one", "status", "--json")
    assert lines == ["{}:{}".format(*json.loads(status[0])["address"])]
    state = programs.home("one") / "state"
    for name in ("node.pid", "node.log"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    code, again, _ = programs.run("one", "up", "--json")
    answer = json.loads(again[0])
    assert (code, answer["was_running"], answer["address"]) == (0, True, lines[0])
    assert answer.keys() == documented_keys()["up"]
    assert answer["pid"] == int((state / "node.pid").read_text().split()[0])
    code, down, _ = programs.run("one", "down", "--json")
    assert (code, json.loads(down[0])) == (0, {"was_running": True, "pid": answer["pid"]})
    assert not (state / "node.pid").exists()
    code, down, _ = programs.run("one", "down", "--json")
    assert (code, json.loads(down[0])) == (0, {"was_running": False, "pid": None})


@pytest.mark.slow
def test_a_node_that_cannot_start_says_why(programs, ended):
    ended("one")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        code, lines, notes = programs.run("one", "up", *NODE, "--port", port)
    assert (code, lines) == (1, [])
    assert any("cannot bind UDP" in note for note in notes)
    assert not (programs.home("one") / "state" / "node.pid").exists()


@pytest.mark.slow
def test_down_ends_a_node_that_somebody_started_otherwise(programs):
    node, _ = programs.node("one")
    code, _, _ = programs.run("one", "down")
    assert (code, node.code()) == (0, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="systemd's protocol")
def test_a_node_tells_the_service_manager_when_it_is_up_and_when_it_ends(programs, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        node = programs.start("one", "node", *NODE, NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(100) == b"READY=1"
        assert node.end(signal.SIGTERM) == 0
        assert manager.recv(100) == b"STOPPING=1"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a program that stands for systemctl")
def test_up_takes_the_service_where_it_is_installed_and_a_manager_runs(programs, ended, tmp_path):
    ended("one")
    config, tools = tmp_path / "config", tmp_path / "tools"
    tools.mkdir()
    variables = {"XDG_CONFIG_HOME": str(config), "PATH": f"{tools}:{os.environ['PATH']}"}
    code, lines, _ = programs.run("one", "service", "install", "--user", **variables)
    assert code == 0
    assert lines[1] == "systemctl --user enable --now bytestag"
    manager = tools / "systemctl"
    manager.write_text("#!/bin/sh\necho running\ntest $2 = is-system-running\n")
    manager.chmod(0o755)
    code, lines, notes = programs.run("one", "up", **variables)
    assert (code, lines) == (4, [])
    assert any("the service did not start" in note for note in notes)
    manager.write_text(
        "#!/bin/sh\necho running\ntest $2 = is-system-running || "
        f"exec env XDG_CONFIG_HOME=/nowhere {sys.executable} -m bytestag up {' '.join(NODE)}\n"
    )
    code, lines, notes = programs.run("one", "up", *NODE, "--json", **variables)
    assert code == 0, notes
    assert json.loads(lines[0])["is_service"] is True
    assert any("from the configuration file" in note for note in notes)
    assert programs.run("one", "down")[0] == 0
    manager.write_text("#!/bin/sh\necho offline\nexit 1\n")
    code, lines, notes = programs.run("one", "up", *NODE, "--json", **variables)
    assert code == 0, notes
    assert json.loads(lines[0])["is_service"] is False


# --- The service ---------------------------------------------------------------------------------


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*arguments):
        return CliRunner().invoke(program, list(map(str, arguments)))

    return run


def test_a_service_is_installed_shown_and_removed(invoke, tmp_path):
    path = tmp_path / "config" / "systemd" / "user" / "bytestag.service"
    shown = invoke("service", "show")
    assert "to be installed at" in shown.stderr
    assert f'"{sys.executable}" "-m" "bytestag" "node"' in shown.stdout
    done = invoke("service", "install", "--user", "--json")
    answer = json.loads(done.stdout)
    assert (answer["path"], answer["is_installed"]) == (str(path), True)
    assert path.read_text() == shown.stdout == answer["unit"]
    assert f'Environment="BYTESTAG_HOME={tmp_path / "home"}"' in answer["unit"]
    for name in ("state", "cache"):
        assert (tmp_path / "home" / name).is_dir()
        assert f'"{tmp_path / "home" / name}"' in answer["unit"]
    done = invoke("service", "uninstall")
    assert done.stdout.startswith("systemctl --user disable --now bytestag\n")
    assert not path.exists()
    assert invoke("service", "uninstall").stdout == ""


def test_a_service_is_for_the_user(invoke, tmp_path):
    done = invoke("service", "install")
    assert (done.exit_code, done.stdout) == (2, "")
    assert not (tmp_path / "config").exists()
    assert invoke("service", "restart").exit_code == 2


def test_a_state_directory_is_passed_on(invoke, tmp_path):
    unit = invoke("service", "show", "--state-dir", tmp_path / "other").stdout
    assert f'"--state-dir" "{tmp_path / "other"}"' in unit
