import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import bytestag
from bytestag.cli.main import COMMANDS, _as_ours, _is_very_verbose, load, program
from bytestag.cli.options import node_settings
from bytestag.config import TransferLimits
from bytestag.errors import NoSpace, NotFound, StorageError, UsageError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.rst"
HEAVY = {
    "aiohttp",
    "asyncio",
    "blake3",
    "cryptography",
    "msgspec",
    "platformdirs",
    "rich",
    "sqlalchemy",
}
REPORT = """
import sys
from bytestag.cli.main import program
try:
    program.main(sys.argv[1:], prog_name="bytestag")
except SystemExit as end:
    assert end.code == 0, end.code
print(*sys.modules, sep="\\n", file=sys.stderr)
"""


@pytest.fixture
def invoke(monkeypatch, tmp_path):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))

    def run(*arguments):
        return CliRunner().invoke(program, list(arguments))

    return run


def modules_of(*arguments):
    """Return what a fresh interpreter has imported after a command."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stderr.split("\n")), done.stdout


def test_a_fetch_loads_no_sql():
    program = "import sys, bytestag.daemon.nodes, bytestag.gateway.jobs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "bytestag.client" in done.stdout.split()
    assert not {"sqlalchemy", "watchfiles", "rich", "aiohttp"} & set(done.stdout.split())


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy_and_no_command(option):
    modules, printed = modules_of(option)
    assert "bytestag.cli.main" in modules
    assert modules & HEAVY == set()
    assert not any(f"bytestag.cli.{name}" in modules for name in COMMANDS)
    assert printed


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(name):
    modules, printed = modules_of(name, "--help")
    assert modules & (HEAVY - {"blake3", "msgspec", "platformdirs"}) == set()
    assert "--json" in printed


def test_the_version_is_that_of_the_package(invoke):
    assert invoke("--version").output == f"bytestag, version {bytestag.__version__}\n"


def test_python_m_bytestag_is_the_program():
    done = subprocess.run(
        [sys.executable, "-m", "bytestag", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"bytestag, version {bytestag.__version__}\n"


def test_every_command_is_named_as_it_is_called_and_prints_json():
    for name in COMMANDS:
        command = load(name)
        assert command.name == name
        assert "json" in {param.name for param in command.params}


@pytest.mark.parametrize("name", ["node", "share", "fetch", "find"])
def test_a_command_that_may_start_a_node_takes_host_port_and_known_nodes(name):
    params = {param.name: param for param in load(name).params}
    assert {"host", "port", "known_node"} <= params.keys()
    assert params["known_node"].multiple


def test_flag_environment_variable_and_key_are_one_name():
    for name in COMMANDS:
        for param in load(name).params:
            if isinstance(param, click.Option) and param.name not in ("node_id", "help"):
                flag = next(opt for opt in param.opts if opt.startswith("--"))
                assert param.name == flag.removeprefix("--").replace("-", "_")
                assert param.envvar == f"BYTESTAG_{param.name.upper()}"


# --- Errors --------------------------------------------------------------------------------------


def test_an_unknown_command_is_a_usage_error_with_a_hint(invoke):
    done = invoke("shar")
    assert done.exit_code == 2
    assert "hint" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "link", ["bytestag://zz", "nonsense", "http://example.org/x", "md5://" + 32 * "0"]
)
def test_a_malformed_link_is_a_usage_error(invoke, link):
    done = invoke("fetch", link)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "error" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_is_one_json_object_with_json(invoke):
    done = invoke("fetch", "bytestag://zz", "--json")
    error = json.loads(done.stdout)
    assert error.keys() == {"type", "code", "message", "hint", "exit"}
    assert (error["type"], error["code"], error["exit"]) == ("error", "usage", 2)
    assert done.stderr == ""
    assert done.exit_code == 2


def test_a_wrong_option_is_a_json_error_with_json(invoke):
    done = invoke("status", "--json", "--wrong")
    assert json.loads(done.stdout)["code"] == "usage"
    assert done.exit_code == 2


def test_a_node_id_is_refused_with_a_hint(invoke):
    done = invoke("node", "--node-id", "00" * 20)
    assert done.exit_code == 2
    assert "--identity" in done.stderr


def test_status_without_a_node_is_unreachable_with_a_hint(invoke):
    done = invoke("status")
    assert done.exit_code == 4
    assert "bytestag up" in done.stderr


def test_sharing_what_is_not_there_is_a_usage_error(invoke, tmp_path):
    done = invoke("share", str(tmp_path / "nothing"))
    assert done.exit_code == 2
    assert "nothing" in done.stderr


def test_an_internal_error_has_no_traceback_unless_asked_for(invoke, monkeypatch):
    def fail(*_arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("bytestag.uri.Link.parse", fail)
    quiet, loud = invoke("find", "x"), invoke("find", "x", "-vv")
    assert quiet.exit_code == loud.exit_code == 1
    assert "a bug" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_an_interrupt_exits_with_130(invoke, monkeypatch):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("bytestag.uri.Link.parse", interrupt)
    assert invoke("find", "x").exit_code == 130


def test_the_first_error_of_ours_in_a_group_is_the_error():
    ours = NotFound("gone")
    group = BaseExceptionGroup("outer", [ExceptionGroup("inner", [ours])])
    assert _as_ours(group) is ours


def test_a_full_disk_is_no_space():
    assert isinstance(_as_ours(OSError(28, "No space left on device")), NoSpace)
    assert isinstance(_as_ours(click.UsageError("no")), UsageError)


def test_what_the_system_refuses_is_no_internal_error(invoke, tmp_path):
    error = _as_ours(OSError(5, "I/O error", "/file"))
    assert isinstance(error, StorageError)
    assert error.message == "I/O error: '/file'"
    done = invoke("share", str(tmp_path / ("a" * 300)))
    assert done.exit_code == 1
    assert "too long" in done.stderr
    assert "internal" not in done.stderr


def test_a_tilde_without_such_a_user_is_a_name(invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke("share", "~nobody-of-that-name")
    assert done.exit_code == 2
    assert str(tmp_path / "~nobody-of-that-name") in done.stderr


def test_without_a_command_the_help_is_named(invoke):
    done = invoke()
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "error: Missing command.",
        "  hint: program --help lists what there is",
    ]


def test_usage_errors_of_the_parser_are_ours():
    assert isinstance(_as_ours(click.UsageError("no")), UsageError)


def test_very_verbose_is_two_of_them_however_written():
    assert _is_very_verbose(["-vv"])
    assert _is_very_verbose(["-v", "x", "-v"])
    assert _is_very_verbose(["--verbose", "-v"])
    assert not _is_very_verbose(["-v"])


# --- Configuration -------------------------------------------------------------------------------


def test_a_flag_wins_over_the_environment_and_that_over_the_file(invoke, monkeypatch, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('state_dir = "file"\n')
    seen = []

    def find(state_directory):
        seen.append(str(state_directory))

    monkeypatch.setattr("bytestag.gateway.door.Door.find", find)
    invoke("status", "--config", str(config))
    monkeypatch.setenv("BYTESTAG_STATE_DIR", "environment")
    invoke("status", "--config", str(config))
    invoke("status", "--config", str(config), "--state-dir", "flag")
    assert [Path(path).name for path in seen] == ["file", "environment", "flag"]


def test_the_users_configuration_file_is_read(invoke, tmp_path):
    directory = tmp_path / "home" / "config"
    directory.mkdir(parents=True)
    (directory / "config.toml").write_text("json = true\n")
    assert json.loads(invoke("status").stdout)["code"] == "unreachable"


def test_an_unknown_key_is_refused_with_the_nearest_name(invoke, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("cache_sise = '1GiB'\n")
    done = invoke("status", "--config", str(config))
    assert done.exit_code == 2
    assert "cache_size" in done.stderr


@pytest.mark.parametrize("text", ["= nonsense", "[json]\nx = 1\n"])
def test_a_file_that_is_no_flat_table_is_refused(invoke, tmp_path, text):
    config = tmp_path / "config.toml"
    config.write_text(text)
    assert invoke("status", "--config", str(config)).exit_code == 2


def test_a_configuration_file_that_is_asked_for_must_be_there(invoke, tmp_path):
    done = invoke("status", "--config", str(tmp_path / "none.toml"))
    assert done.exit_code == 2
    assert "cannot read" in done.stderr


def test_keys_of_all_commands_may_stand_in_one_file(invoke, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('cache_size = "1GiB"\nknown_node = ["127.0.0.1:4000"]\nkeep = "7d"\n')
    assert invoke("status", "--config", str(config)).exit_code == 4


@pytest.mark.parametrize("name", ["find", "fetch"])
def test_offline_asks_nobody(invoke, monkeypatch, name):
    monkeypatch.setenv("BYTESTAG_OFFLINE", "1")
    monkeypatch.setattr("bytestag.cli.running.run", None)
    done = invoke(name, "sha1://" + "0" * 40)
    assert done.exit_code == 4
    assert "BYTESTAG_OFFLINE" in done.stderr


# --- The page ------------------------------------------------------------------------------------


def test_every_option_and_exit_code_stands_on_the_page():
    page = PAGE.read_text("utf-8")
    for name in COMMANDS:
        for param in load(name).params:
            if isinstance(param, click.Option):
                for flag in (*param.opts, *param.secondary_opts):
                    assert f"``{flag}" in page, f"{name} {flag}"
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130):
        assert re.search(rf"^{code} +\w", page, re.MULTILINE), code


@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ((), "WARNING"),
        (("-v",), "INFO"),
        (("-vv",), "DEBUG"),
        (("-q",), "CRITICAL"),
        (("-q", "--log-level", "info"), "INFO"),
        (("-q", "--log-filename", "log"), "WARNING"),
    ],
)
def test_quiet_and_verbose_govern_the_log(invoke, monkeypatch, tmp_path, arguments, level):
    monkeypatch.chdir(tmp_path)
    invoke("find", "x", *arguments)
    assert logging.getLevelName(logging.getLogger("bytestag").level) == level


def test_a_node_logs_more_and_can_be_told_to_log_all(invoke, monkeypatch):
    monkeypatch.setattr("bytestag.cli.running.run", lambda _main: 0)
    for arguments, level in (((), logging.INFO), (("-vv",), logging.DEBUG)):
        assert invoke("node", *arguments).exit_code == 0
        assert logging.getLogger("bytestag").level == level


@pytest.mark.slow
def test_share_leaves_with_the_counts_if_its_goal_is_not_reached(invoke, monkeypatch, tmp_path):
    monkeypatch.setattr("bytestag.gateway.sharing.STALLED_SECONDS", 0.3)
    (tmp_path / "file").write_bytes(b"hello")
    arguments = ("share", str(tmp_path / "file"), "--host", "127.0.0.1", "--until-copies", "2")
    done = invoke(*arguments)
    assert done.exit_code == 7
    assert done.stdout.startswith("bytestag://")
    assert done.stdout.count("\n") == 1
    assert re.search(r"0 of \d+ values have 2 copies", done.stderr)
    events = [json.loads(line) for line in invoke(*arguments, "--json").stdout.splitlines()]
    assert [event["type"] for event in events if event["type"] != "progress"] == [
        "link",
        "result",
        "error",
    ]
    assert (events[-2]["ok"], events[-1]["exit"]) == (False, 7)


def test_limits_of_the_line_are_those_of_the_node():
    values = {
        "limit_upload": 1,
        "limit_download": 2,
        "limit_peer_upload": 3,
        "limit_peer_download": 4,
        "background": True,
    }
    assert node_settings(values).limits == TransferLimits(1, 2, 3, 4, True)
    assert node_settings({}).limits == TransferLimits()
