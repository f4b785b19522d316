"""What kachery, kachery-p2p and kbucket got wrong, one test for each failure: what is named.

Where a thread is cited as owner/name#N it is an issue there. What needs other nodes is in
``test_regressions_network.py``, what ends a store's work early in ``test_regressions_store.py``.
More of these failures are tested where their cause would be:

- the name a URI carries, in every style in the wild (flatironinstitute/spikeforest#24):
  ``test_api.test_every_form_of_a_link_names_the_same``
- a file object without tell and readline (kachery): ``test_api.test_a_file_object_is_complete``
- pickles (kachery-p2p): ``test_api.test_nothing_is_unpickled``
- nothing to list, delete, verify, pin or collect with (magland/sortingview#236):
  ``tests/store/test_keeping.py``
- a write that is killed (kachery): ``tests/store/test_keeping.py``
- sharing that says it is done before anybody can fetch (mountainlab-js#50):
  ``tests/cli/test_processes.py``
- linked files that no peer was served (kachery-p2p): ``test_serving.py``
- one chunk that is wrong: ``tests/dht/test_downloading.py``
"""

import getpass
import json
import os
import random
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner

import bytestag
from bytestag.cli.main import program
from bytestag.errors import Corrupt, FormatError, NotFound, UsageError
from bytestag.hashing import sha1
from bytestag.library.config import LibraryConfig
from bytestag.library.library import Library
from bytestag.uri import Link

NOWHERE = f"sha1://{'ad' * 20}/file.dat"
READING = ["load", "cat", "ls", "info", "why"]


def invoke(*arguments):
    return CliRunner().invoke(program, [str(each) for each in arguments])


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("BYTESTAG_OFFLINE", "1")


# --- Failures that were no failures --------------------------------------------------------------


@pytest.mark.parametrize("command", READING)
def test_not_found_is_no_success(command, offline):
    """kachery-load printed and exited 0 (flatironinstitute/kachery:bin/kachery-load)."""
    done = invoke(command, NOWHERE)
    assert done.exit_code == 3
    assert done.stdout == "" or command == "why"
    assert command == "why" or ("error: " in done.stderr and "hint: " in done.stderr)


@pytest.mark.parametrize(
    "call",
    [
        bytestag.load_file,
        bytestag.load_text,
        bytestag.load_object,
        bytestag.load_npy,
        bytestag.load_bytes,
        bytestag.open_file,
        bytestag.read_dir,
        bytestag.get_file_info,
        bytestag.find,
    ],
)
def test_nothing_returns_none_for_what_is_not_found(call, offline):
    """A None went on into the analysis (flatironinstitute/neuropixels-data-sep-2020#10)."""
    with pytest.raises(NotFound) as caught:
        call(NOWHERE)
    assert caught.value.hint


@pytest.mark.parametrize(
    "uri",
    [
        "sha9://" + "ad" * 20,
        "sha1://" + "ad" * 19,
        "sha1://" + "zz" * 20,
        "sha1://",
        "sha1-enc://" + "ad" * 20,
        "jot://abc",
        "gh://owner/name/main/file",
    ],
)
def test_a_uri_that_is_none_says_so(uri, offline):
    """kachery-cloud returned None for it: ``assert "text"`` is always true
    (flatironinstitute/kachery-cloud:kachery_cloud/load_file.py)."""
    for call in (bytestag.load_file, bytestag.get_file_info, bytestag.read_dir):
        with pytest.raises(UsageError) as caught:
            call(uri)
        assert caught.value.hint
    for command in READING:
        done = invoke(command, uri)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "error: " in done.stderr


def test_a_range_outside_of_the_file_and_one_that_is_none(offline):
    """kachery-p2p ignored the range that it was asked for (seeds, §3)."""
    uri = bytestag.store_bytes(b"0123456789")
    assert bytestag.load_bytes(uri, 4, 99) == b"456789"
    assert bytestag.load_bytes(uri, 10) == b""
    with pytest.raises(UsageError):
        bytestag.load_bytes(uri, 5, 4)
    assert invoke("cat", uri, "--start", 5, "--end", 4).exit_code == 2


# --- Names that were not the same ----------------------------------------------------------------


def test_a_directory_has_one_hash_in_whatever_order_it_was_made(tmp_path):
    """kachery hashed it in the order of the disk (flatironinstitute/kachery:kachery/core.py)."""
    names = ["b", "ä", "a", "Z", "10", "9", "d/y", "d/x", "c/1"]
    hashes = set()
    for number in range(3):
        root = tmp_path / str(number) / "ds"
        for name in random.Random(number).sample(names, len(names)):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
            os.utime(path, (number, number))
        done = subprocess.run(
            [sys.executable, "-m", "bytestag", "store", root, "-q"],
            env={**os.environ, "PYTHONHASHSEED": str(number), "BYTESTAG_HOME": str(root.parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_a_directory_with_a_slash_behind_its_name_keeps_its_label(tmp_path):
    """kachery's store_dir('x/') gave an empty label (seeds, §2)."""
    (tmp_path / "x").mkdir()
    assert bytestag.store_dir(f"{tmp_path}/x/").endswith(".x")
    assert invoke("store", f"{tmp_path}/x/").stdout.endswith(".x\n")


def test_pointers_and_links_leak_neither_path_nor_user(tmp_path, monkeypatch):
    """kbucket wrote the owner's absolute path (flatironinstitute/kbucket:src/kbucket/
    kbnodeshareindexer.js)."""
    secret = tmp_path / "home-of-alice" / "secret-project"
    secret.mkdir(parents=True)
    (secret / "data.bin").write_bytes(b"data")
    monkeypatch.setenv("USER", "alice")
    monkeypatch.chdir(secret)
    said = [invoke("prv", path).stdout for path in (secret / "data.bin", "data.bin", secret)]
    assert invoke("prv", secret / "data.bin", tmp_path / "x.prv").exit_code == 0
    said += [(tmp_path / "x.prv").read_text(), bytestag.store_file(secret / "data.bin")]
    said += [bytestag.link_file(secret / "data.bin")]
    for text in said:
        assert len(text) > 50
        for leak in (str(tmp_path), "alice", os.uname().nodename, f"/{getpass.getuser()}/"):
            assert leak not in text
    assert "secret-project" not in said[0]


@pytest.mark.parametrize("spelling", ["{0}/", "{0}/../store", "{0}/./", "~/store"])
def test_spellings_of_the_store_are_one_store(spelling, tmp_path, monkeypatch, offline):
    """Two spellings of the storage path lost data (LorenFrankLab/spyglass#693)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BYTESTAG_STORE_DIR", spelling.format(tmp_path / "store"))
    uri = bytestag.store_text("some text")
    assert bytestag.load_file(uri).startswith(str(tmp_path / "store" / "objects"))
    monkeypatch.delenv("BYTESTAG_STORE_DIR")
    for written in (spelling.format(tmp_path / "store"), "store"):
        with bytestag.using(store_dir=written):
            assert bytestag.load_text(uri) == "some text"
    if "~" not in spelling:  # a shell would have written it out
        directory = spelling.format(tmp_path / "store")
        assert invoke("cat", uri, "--store-dir", directory).stdout == "some text"


def test_both_of_kacherys_variables_are_read(tmp_path, monkeypatch, offline):
    """What was stored by the one is not lost by the other (LorenFrankLab/spyglass#693)."""
    for variable, text in (("KACHERY_STORAGE_DIR", "one"), ("KACHERY_CLOUD_DIR", "two")):
        digest = sha1(text.encode()).hex()
        path = tmp_path / variable / "sha1" / digest[:2] / digest[2:4] / digest[4:6] / digest
        path.parent.mkdir(parents=True)
        path.write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for text in ("one", "two"):
        assert bytestag.load_text(f"sha1://{sha1(text.encode()).hex()}") == text


# --- Content that was not what its name says -----------------------------------------------------


class Liar:
    """Somebody elsewhere who answers with wrong bytes."""

    def __init__(self, sent):
        self.sent = sent

    def describe(self, link):
        return {"type": "file", "size": len(self.sent), "sha1": link.digest.hex()}

    def fetch(self, link, dest, report):
        dest.write_bytes(self.sent)

    def close(self):
        pass


def test_what_came_is_hashed_before_it_is_stored(home):
    """kachery-p2p stored it under the name that was asked for (seeds, §3)."""
    link = Link("sha1", sha1(b"right"))
    with closing(Library(LibraryConfig())) as library:
        library._elsewhere = Liar(b"wrong")
        with pytest.raises(Corrupt):
            library.load(link)
        assert list(library.store.list()) == []
        with pytest.raises(NotFound):
            library.locate(link)
        library._elsewhere = Liar(b"right")
        assert library.load(link).read_bytes() == b"right"


def test_an_object_cut_short_is_not_served(offline):
    """Every read compares again, or sees by size and time that nothing changed (seeds, §5)."""
    uri = bytestag.store_bytes(bytes(range(256)) * 100)
    path = bytestag.load_file(uri)
    os.chmod(path, 0o644)
    os.truncate(path, 1000)
    for call in (bytestag.load_file, bytestag.load_bytes, bytestag.get_file_info):
        with pytest.raises(NotFound):
            call(uri)
    assert invoke("cat", uri).exit_code == 3
    assert bytestag.store_bytes(bytes(range(256)) * 100) == uri  # and storing it again heals it
    assert len(bytestag.load_bytes(uri)) == 25_600


def test_a_linked_file_is_read_by_ranges(tmp_path, offline):
    """kachery-p2p's load_bytes did not know linked files (seeds, §3)."""
    (tmp_path / "x").write_bytes(b"0123456789")
    uri = bytestag.link_file(tmp_path / "x")
    assert bytestag.load_bytes(uri, 3, 6) == b"345"
    assert invoke("cat", uri, "--start", 3, "--end", 6).stdout == "345"


# --- Directories that lie ------------------------------------------------------------------------


def kachery_directory(files, dirs=None):
    """Store a directory as anybody might write it; return its link."""
    text = json.dumps({"files": files, "dirs": dirs or {}})
    return f"sha1dir://{bytestag.store_text(text)[7:47]}.evil"


def entry(data=b"harmless"):
    uri = bytestag.store_bytes(data)
    return {"size": len(data), "sha1": uri[7:47]}


@pytest.mark.parametrize(
    "name",
    ["../out", "..", ".", "/etc/out", "a/../../out", "a\\..\\out", "", "a\0b", "CON", "a\n"],
)
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_name_that_leads_elsewhere_is_not_written(name, kind, tmp_path, offline):
    """magic-wormhole had two such CVEs in one year (magic-wormhole:NEWS.md, 0.23 and 0.24)."""
    inner = {"files": {"f": entry()}, "dirs": {}}
    link = kachery_directory(*(({name: entry()}, {}) if kind == "file" else ({}, {name: inner})))
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    with pytest.raises(FormatError):
        bytestag.load_dir(link, place / "dest")
    assert invoke("load", link, "--dest", place / "dest").exit_code == 6
    assert list(place.rglob("*")) == []
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "a" / "out").exists()


@pytest.mark.parametrize(
    ("files", "dirs"),
    [
        (["a", "A"], []),
        (["é", "e\u0301"], []),
        (["x"], ["x"]),
        (["x"], ["X"]),
    ],
)
def test_names_that_are_one_file_are_not_written_over_each_other(files, dirs, tmp_path, offline):
    """On disks that fold case or Unicode forms the second would take the place of the first."""
    inner = {"files": {"f": entry(b"inner")}, "dirs": {}}
    link = kachery_directory(
        {name: entry(name.encode()) for name in files}, dict.fromkeys(dirs, inner)
    )
    with pytest.raises(FormatError):
        bytestag.load_dir(link, tmp_path / "dest")
    assert invoke("load", link, "--dest", tmp_path / "dest").exit_code == 6
    assert not (tmp_path / "dest").exists()


@pytest.mark.parametrize("size", [0, 7, 9, 10**15])
def test_a_directory_that_lies_about_a_size_is_refused(size, tmp_path, offline):
    """A manifest of kachery is anybody's JSON; sizes are what people plan their disks by."""
    link = kachery_directory({"x": {**entry(b"harmless"), "size": size}})
    with pytest.raises(FormatError):
        bytestag.load_dir(link, tmp_path / "dest")
    assert not (tmp_path / "dest" / "x").exists()
    with pytest.raises(FormatError):
        bytestag.load_file(f"{link}/x")
    with pytest.raises(FormatError):
        bytestag.load_bytes(f"{link}/x")


@pytest.mark.parametrize(
    "wrong",
    [{"size": -1}, {"size": "8"}, {"size": None}, {"sha1": "xyz"}, {"sha1": None}, {"size": 1.5}],
)
def test_a_directory_that_is_none_is_refused(wrong, tmp_path, offline):
    """People met NoneType errors (flatironinstitute/neuropixels-data-sep-2020#10)."""
    link = kachery_directory({"good": entry(), "x": {**entry(), **wrong}})
    with pytest.raises(FormatError):
        bytestag.load_dir(link, tmp_path / "dest")
    assert invoke("ls", link).exit_code == 6
    assert not (tmp_path / "dest").exists()
