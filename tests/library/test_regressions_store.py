"""Stores that are full or cannot be used, and people who leave early: what is named in
``test_regressions.py``, continued. Each ends with its exit code, one line of cause and a hint.
"""

import os
import signal
import subprocess
import sys

import pytest

from bytestag.store.content import ContentStore

NOWHERE = f"sha1://{'ad' * 20}/file.dat"


# --- Stores that cannot be used ------------------------------------------------------------------


def one_line(done, code):
    """Check the exit code, and that a cause and a hint are said, without a traceback."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def run(home, *arguments, before=(), **environment):
    return subprocess.run(
        [*before, sys.executable, "-m", "bytestag", *map(str, arguments)],
        env={**os.environ, "BYTESTAG_HOME": str(home), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def mounted(size, place, options="rw", then="true"):
    """Return the words before a command that give it a file system of its own at a place."""
    script = (
        f"mount -t tmpfs -o size={size} none {place} && {then} && "
        f'mount -o remount,{options} {place} && exec "$@"'
    )
    return ["unshare", "-rm", "sh", "-c", script, "sh"]


def can_mount(tmp_path):
    place = tmp_path / "mount"
    place.mkdir()
    try:
        return not subprocess.run(
            [*mounted("1m", place), "true"], capture_output=True, timeout=10
        ).returncode
    except OSError:
        return False


def test_a_full_disk_says_so_and_leaves_the_store_whole(tmp_path):
    """A full disk was said as "file not found" (flatironinstitute/neuropixels-data-sep-2020#19)."""
    if not can_mount(tmp_path):
        pytest.skip("no file systems of our own here")
    place, big, small = tmp_path / "mount", tmp_path / "big", tmp_path / "small"
    big.write_bytes(bytes(5_000_000))
    small.write_bytes(b"small")
    done = run(tmp_path / "h", "store", big, before=mounted("3m", place), BYTESTAG_STORE_DIR=place)
    one_line(done, 8)
    program = f'"{sys.executable}" -m bytestag'
    script = (
        f"{program} store {small} && ! {program} store {big} && {program} verify -q && "
        f"{program} list -q && ls {place}/tmp"
    )
    before = mounted("3m", place)
    done = subprocess.run(
        [*before, "sh", "-c", script],
        env={**os.environ, "BYTESTAG_STORE_DIR": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2  # the link, and what is listed: nothing on its way


def test_a_store_that_cannot_be_written_says_so_and_is_read(tmp_path):
    """Stores that several users share have modes that are wrong (LorenFrankLab/spyglass#693)."""
    if not can_mount(tmp_path):
        pytest.skip("no file systems of our own here")
    place, small = tmp_path / "mount", tmp_path / "small"
    small.write_bytes(b"small")
    other = ContentStore(tmp_path / "other")
    digest = other.add_bytes(b"already there").sha1.hex()
    other.close()
    fill = f"cp -a {tmp_path}/other/. {place}"
    before = mounted("3m", place, "ro", fill)
    where = {"BYTESTAG_STORE_DIR": str(place)}
    one_line(run(tmp_path / "h", "store", small, before=before, **where), 1)
    done = run(tmp_path / "h", "cat", f"sha1://{digest}", before=before, **where)
    assert (done.returncode, done.stdout) == (0, "already there"), done.stderr


@pytest.mark.parametrize("command", ["store", "load", "list", "verify"])
def test_a_store_whose_place_is_taken_says_so(command, tmp_path):
    (tmp_path / "file").write_text("in the way")
    argument = {"store": [tmp_path / "file"], "load": [NOWHERE, "--local-only"]}
    done = run(
        tmp_path / "h",
        command,
        *argument.get(command, ()),
        BYTESTAG_STORE_DIR=str(tmp_path / "file" / "store"),
    )
    expected = {"store": 1, "load": 3, "list": 0, "verify": 0}[command]
    if expected:
        one_line(done, expected)
    assert done.returncode == expected, done.stderr
    assert "Traceback" not in done.stderr


# --- Who leaves early ----------------------------------------------------------------------------


def test_a_reader_who_has_enough_is_no_failure_of_the_store(programs, tmp_path):
    """``kachery-cat`` answered on standard output alone; ``| head`` is how people look at it."""
    (tmp_path / "big").write_bytes(bytes(20_000_000))
    _, (link,), _ = programs.run("one", "store", tmp_path / "big")
    cat = programs.start("one", "cat", link, is_read=False)
    assert cat.process.stdout.read(1)
    cat.process.stdout.close()
    assert cat.code() == 1
    assert cat.rest("stderr") == []
    assert programs.run("one", "verify")[0] == 0


def test_a_store_interrupted_in_the_middle_is_whole(programs, tmp_path):
    """Whatever stops a store in the middle, no bad object is left (seeds, §5: local CAS store)."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1_500_000_000)
    store = programs.start("one", "store", tmp_path / "big")
    where = programs.home("one") / "data" / "store"
    while not any(path.stat().st_size for path in where.glob("tmp/**/*") if path.is_file()):
        assert store.process.poll() is None, store.heard
    assert store.end(signal.SIGINT) == 130
    assert store.rest() == []
    assert not any("Traceback" in line for line in store.rest("stderr"))
    assert [path for path in where.glob("tmp/**/*") if path.is_file()] == []
    assert programs.run("one", "verify")[0] == 0
    assert programs.run("one", "list")[1] == []
