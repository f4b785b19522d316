"""Failures of kachery and kachery-p2p between nodes: what is named in ``test_regressions.py``,
continued.
"""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

import bytestag
from bytestag.config import PART_BYTES
from bytestag.errors import BytestagError
from bytestag.hashing import sha1
from tests.library.test_regressions_store import can_mount, mounted, one_line, run

pytestmark = pytest.mark.slow
SKEWED = "import time\nreal = time.time\ntime.time = lambda: real() + {seconds}\n"


def inside(link, path):
    location, _, query = link.partition("?")
    return f"{location}/{path}?{query}"


def overwrite(path, data, at=0):
    """Change bytes of a file so that neither its size nor its time shows it."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stored(programs, home, path, *options):
    code, answer, notes = programs.run(home, "store", path, *options)
    assert code == 0, notes
    return answer[0]


def loaded(programs, home, *arguments):
    """Load from a node that started just now, and may not have looked into its store yet."""
    for _ in range(20):
        code, answer, notes = programs.run(home, "load", *arguments)
        if code != 3:
            break
    return code, answer, notes


def test_dest_is_honoured_wherever_the_file_was(shared, source, tmp_path):
    """kachery-p2p ignored it after a load from the network (seeds, §3)."""
    big = inside(shared, "big.bin")
    for name in ("from elsewhere", "from the store"):
        (tmp_path / name).write_text("replaced, whole")
        assert bytestag.load_file(big, tmp_path / name) == str(tmp_path / name)
        assert (tmp_path / name).read_bytes() == (source / "big.bin").read_bytes()
    with pytest.raises(BytestagError):
        bytestag.load_file(inside(shared, "none"), tmp_path / "from the store")
    assert (tmp_path / "from the store").stat().st_size == 3_000_000
    with pytest.raises(BytestagError) as caught:
        bytestag.load_file(big, tmp_path / "no" / "such" / "directory")
    assert "no directory" in caught.value.message


def test_bytes_of_a_small_file_that_is_elsewhere(shared, source):
    """kachery-p2p returned None for a file without manifest (seeds, §3)."""
    data = (source / "a.txt").read_bytes()
    assert bytestag.load_bytes(inside(shared, "a.txt"), 2, 5) == data[2:5]
    assert bytestag.load_bytes(inside(shared, "a.txt")) == data
    assert bytestag.load_bytes(inside(shared, "empty")) == b""


def test_a_script_ends_in_silence(shared, home):
    """Whoever forgot to stop kachery-p2p's client had it hang (seeds, §3)."""
    program = f"import bytestag; print(len(bytestag.load_bytes({inside(shared, 'a.txt')!r})))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "10\n", "")


def test_files_in_their_place_are_served_to_others_until_they_change(programs, tmp_path):
    """kachery-p2p served linked files to nobody (seeds, §3); kachery what they had become."""
    paths = [tmp_path / name for name in ("kept", "changed")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 600_000)
    share = programs.start("one", "share", *paths, "--host", "127.0.0.1")
    kept, changed = share.line(), share.line()
    for link, path in ((kept, paths[0]), (changed, paths[1])):
        code, answer, notes = programs.run("two", "load", link, "--timeout", "5")
        assert code == 0, notes
        with open(answer[0], "rb") as file:
            assert file.read() == path.read_bytes()
    paths[1].write_bytes(b"\2" * 600_000)
    assert programs.run("three", "load", kept, "--timeout", "5")[0] == 0
    code, answer, notes = programs.run("three", "load", changed, "--timeout", "5")
    assert (code in (3, 6), answer) == (True, []), notes
    (line,) = programs.run("three", "list")[1]
    assert line.split()[0] == sha1(paths[0].read_bytes()).hex()


def test_one_full_node_is_not_the_end(programs, source):
    """One full node made a file "not found" for all
    (flatironinstitute/neuropixels-data-sep-2020#19)."""
    _, full = programs.node("full", "--cache-size", "0")
    programs.node("roomy", "--known-node", full)
    code, answer, notes = programs.run(
        "publisher", "share", source, "--until-copies", "1", "--known-node", full,
        "--host", "127.0.0.1", "--no-hints",
    )  # fmt: skip
    assert code == 0, notes
    code, answer, notes = programs.run(
        "loader", "load", inside(answer[0], "big.bin"), "--known-node", full
    )
    assert code == 0, notes
    with open(answer[0], "rb") as file:
        assert file.read() == (source / "big.bin").read_bytes()


def test_one_bad_part_does_not_lose_what_came(programs, source):
    """A download of 5.6 hours was lost for one chunk
    (flatironinstitute/neuropixels-data-sep-2020#12)."""
    link = stored(programs, "one", source / "big.bin")
    path = next((programs.home("one") / "data" / "store" / "objects").glob("*/*"))
    right = path.read_bytes()
    _, address = programs.node("one")
    assert loaded(programs, "three", link, "--known-node", address)[0] == 0
    overwrite(path, b"wrong!", 1_500_000)
    load = ("load", link, "--known-node", address, "--timeout", "5")
    code, answer, notes = programs.run("two", *load)
    assert code != 0
    assert answer == []
    came = next((programs.home("two") / "data" / "store" / "incoming").iterdir())
    parts = range(0, len(right), PART_BYTES)
    there = [came.read_bytes()[at:][:PART_BYTES] == right[at:][:PART_BYTES] for at in parts]
    assert sum(there) >= 4
    uploaded = json.loads(programs.run("one", "status", "--json")[1][0])["bytes_uploaded"]
    overwrite(path, right[1_500_000:1_500_006], 1_500_000)
    code, answer, notes = loaded(programs, "two", *load[1:])  # it is served after the next scan
    assert code == 0, notes
    assert not came.exists()
    with open(answer[0], "rb") as file:
        assert file.read() == right
    again = json.loads(programs.run("one", "status", "--json")[1][0])["bytes_uploaded"] - uploaded
    missing = (len(there) - sum(there)) * PART_BYTES
    assert again < missing + 10_000, "what had come was fetched again"


def test_a_disk_that_is_full_when_content_comes_says_so(shared, tmp_path):
    """A full disk was said as "file not found"
    (flatironinstitute/neuropixels-data-sep-2020#19)."""
    if not can_mount(tmp_path):
        pytest.skip("no file systems of our own here")
    place = tmp_path / "mount"
    load = ("load", inside(shared, "big.bin"))
    before = mounted("2m", place)
    one_line(run(tmp_path / "two", *load, before=before, BYTESTAG_STORE_DIR=str(place)), 8)


def test_an_object_cut_short_is_had_from_elsewhere(shared, source, programs):
    """Every read compares again, or sees by size and time that nothing changed (seeds, §5)."""
    link = inside(shared, "big.bin")
    _, (path,), _ = programs.run("two", "load", link)
    os.chmod(path, 0o644)
    os.truncate(path, 1_000_000)
    code, answer, notes = programs.run("two", "load", link)
    assert code == 0, notes
    with open(answer[0], "rb") as file:
        assert file.read() == (source / "big.bin").read_bytes()
    assert programs.run("two", "verify")[0] == 0


@pytest.mark.long
def test_clocks_that_are_wrong_by_42_seconds_do_no_harm(programs, source, tmp_path):
    """42 s of skew had uploads refused (flatironinstitute/kachery-cloud#10)."""
    skewed = {}
    for seconds in (42, -42):
        skewed[seconds] = tmp_path / str(seconds)
        skewed[seconds].mkdir()
        (skewed[seconds] / "sitecustomize.py").write_text(SKEWED.format(seconds=seconds))
    _, address = programs.node("donor")
    code, answer, notes = programs.run(
        "publisher", "share", source / "big.bin", "--until-copies", "1", "--known-node", address,
        "--host", "127.0.0.1", PYTHONPATH=str(skewed[42]),
    )  # fmt: skip
    assert code == 0, notes
    code, answer, notes = programs.run(
        "loader", "load", answer[0], "--known-node", address, PYTHONPATH=str(skewed[-42])
    )
    assert code == 0, notes


def test_a_directory_from_elsewhere_that_lies_is_not_made(programs, tmp_path):
    """A manifest of kachery is anybody's JSON."""
    (tmp_path / "file").write_bytes(b"harmless")
    digest = stored(programs, "one", tmp_path / "file")[7:47]
    lies = {
        "size": {"files": {"x": {"size": 5, "sha1": digest}}, "dirs": {}},
        "name": {"files": {"../x": {"size": 8, "sha1": digest}}, "dirs": {}},
    }
    links = {}
    for name, value in lies.items():
        (tmp_path / name).write_text(json.dumps(value))
        links[name] = f"sha1dir://{stored(programs, 'one', tmp_path / name)[7:47]}.evil"
    _, address = programs.node("one")
    for name, link in links.items():
        dest = tmp_path / "place" / name
        code, answer, notes = programs.run(
            "two", "load", link, "--dest", dest, "--known-node", address, "--timeout", "5"
        )
        assert code in (6, 7), (name, notes)
        assert answer == []
        assert [path for path in dest.rglob("*") if path.suffix != ".part"] == []
    assert not (tmp_path / "place" / "x").exists()


def test_who_interrupts_a_reader_is_told_so_and_the_store_is_whole(programs):
    """Whatever stops a load in the middle, no bad object is left (seeds, §5)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(30)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        reader = programs.start("r", "load", f"sha1://{'ab' * 20}", "--known-node", address)
        silent.recvfrom(2048)  # it waits for our answer now
        assert reader.end(signal.SIGINT) == 130
    assert not any("Traceback" in line for _, line in reader.heard)
    assert programs.run("r", "verify")[0] == 0
