"""The systemd unit: what stands in it, how words are written, whose file is replaced."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bytestag.daemon import unit
from bytestag.errors import UsageError

TEXT = unit.unit_text(["/usr/bin/python3", "-m", "bytestag", "node"], {}, [])


def fields(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def test_the_unit_is_hardened_and_tells_when_it_is_up():
    assert (
        fields(TEXT).items()
        >= {
            "Type": "notify",
            "ExecStart": '"/usr/bin/python3" "-m" "bytestag" "node"',
            "Restart": "on-failure",
            "ProtectSystem": "strict",
            "NoNewPrivileges": "yes",
            "CapabilityBoundingSet": "",
            "SystemCallFilter": "@system-service",
            "MemoryHigh": "1G",
            "UMask": "0022",
            "ReadWritePaths": "%h -/tmp -/var/tmp",
            "PrivateUsers": "yes",
        }.items()
    )


def test_the_service_is_as_the_users_shell_its_modes_and_its_store(tmp_path):
    done = subprocess.run(
        ["sh", "-c", 'umask 002; exec "$0" -m bytestag service show', sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={
            **os.environ,
            "BYTESTAG_HOME": str(tmp_path / "home"),
            "BYTESTAG_STORE_DIR": str(tmp_path / "store"),
        },
    )
    assert fields(done.stdout)["UMask"] == "0002"
    assert f'Environment="BYTESTAG_STORE_DIR={tmp_path}/store"' in done.stdout
    assert f'"{tmp_path}/store"' in fields(done.stdout)["ReadWritePaths"]


def test_words_are_quoted_as_systemd_reads_them():
    text = unit.unit_text(['/a b/py"', "$HOME", "100%"], {"X": "a b%"}, [Path("/x y")])
    assert fields(text)["ExecStart"] == '"/a b/py\\"" "$$HOME" "100%%"'
    assert 'Environment="X=a b%%"' in text
    assert fields(text)["ReadWritePaths"].endswith(' "/x y"')
    with pytest.raises(UsageError):
        unit.unit_text(["a\nb"], {}, [])


def test_only_a_unit_of_ours_is_replaced_or_removed(tmp_path):
    path = tmp_path / "user" / unit.NAME
    assert not unit.uninstall(path)
    unit.install(path, TEXT)
    unit.install(path, TEXT)
    assert path.read_text() == TEXT
    assert [entry.name for entry in path.parent.iterdir()] == [unit.NAME]
    assert unit.uninstall(path)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(UsageError):
        unit.install(path, TEXT)
    with pytest.raises(UsageError):
        unit.uninstall(path)
    assert path.exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / unit.NAME
    path.write_text(unit.unit_text([shutil.which("true"), "a b"], {"X": "1"}, [tmp_path]))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
