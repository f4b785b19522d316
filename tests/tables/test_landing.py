"""Files on their way to disk: whole, resumed, and never outside their directory."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bytestag.errors import NoSpace, StorageError
from bytestag.hashing import blake3, sha1
from bytestag.models.parts import PartEntry
from bytestag.tables import landing
from bytestag.tables.landing import (
    INCOMPLETE_SUFFIX,
    Exists,
    LandingDirectory,
    check_space,
    translated,
)

PARTS = [bytes([n]) * 1000 for n in range(4)]
WHOLE = b"".join(PARTS)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def directory(root):
    made = LandingDirectory(root)
    yield made
    made.close()


@contextlib.contextmanager
def landing_file(directory, *path, size=len(WHOLE), **options):
    file = directory.file(path, size, **options)
    try:
        yield file
    finally:
        file.close()


def land(directory, *path, whole=WHOLE, **options):
    with landing_file(directory, *path, size=len(whole), **options) as file:
        file.write(0, whole)
        file.finish(sync=True)


def open_files():
    return len(os.listdir("/proc/self/fd"))


# --- Writing -------------------------------------------------------------------------------------


def test_a_file_has_another_name_until_it_is_finished(directory, root):
    with landing_file(directory, "a", "b", "file") as file:
        for number in (2, 0, 3, 1):
            file.write(1000 * number, PARTS[number])
        assert os.listdir(root / "a/b") == ["file" + INCOMPLETE_SUFFIX]
        assert file.matches(sha1=sha1(WHOLE), blake3=blake3(WHOLE))
        file.finish(sync=True)
    assert os.listdir(root / "a/b") == ["file"]
    assert (root / "a/b/file").read_bytes() == WHOLE


def test_an_empty_file_lands_too(directory, root):
    land(directory, "file", whole=b"")
    assert (root / "file").read_bytes() == b""


def test_a_file_matches_only_if_all_that_is_known_of_it_agrees(directory):
    with landing_file(directory, "file") as file:
        file.write(0, WHOLE)
        assert file.matches(sha1=sha1(WHOLE))
        assert file.matches(blake3=blake3(WHOLE))
        assert not file.matches(sha1=sha1(b""), blake3=blake3(WHOLE))
        assert not file.matches(sha1=sha1(WHOLE), blake3=blake3(b""))
        file.write(5, b"!")
        assert not file.matches(blake3=blake3(WHOLE))


def test_a_file_that_became_longer_does_not_match(directory, root):
    with landing_file(directory, "file") as file:
        file.write(0, WHOLE)
        with open(root / ("file" + INCOMPLETE_SUFFIX), "ab") as stranger:
            stranger.write(b"more")
        assert not file.matches(blake3=blake3(WHOLE))


def part(number, sha1_=b"", blake3_=b""):
    return PartEntry(sha1_, blake3_, 1000 * number, 1000)


def test_parts_that_are_there_are_recognised_by_the_hash_that_is_known(directory):
    with landing_file(directory, "file") as file:
        file.write(1000, PARTS[1])
    with landing_file(directory, "file") as file:
        known = [part(1, sha1(PARTS[1]), blake3(PARTS[1])), part(1, sha1(PARTS[1])),
                 part(1, b"", blake3(PARTS[1]))]  # fmt: skip
        assert file.land([[(entry, None) for entry in known]]) == [[True] * 3]
        others = [part(1, sha1(PARTS[2])), part(1, sha1(PARTS[1]), blake3(PARTS[2])),
                  part(2, sha1(PARTS[2]), blake3(PARTS[2]))]  # fmt: skip
        assert file.land([[(entry, None) for entry in others]]) == [[False] * 3]


def test_parts_are_written_if_they_fit_and_the_whole_is_hashed_on_the_way(directory, monkeypatch):
    entries = [part(n, sha1(PARTS[n]), blake3(PARTS[n])) for n in range(4)]
    with landing_file(directory, "file") as file:
        file.expect(sha1=sha1(WHOLE), blake3=blake3(WHOLE))
        wrong = [(entries[0], PARTS[1]), (entries[0], b"")]
        assert file.land([wrong]) == [[False, False]]
        some = [(entries[n], PARTS[n]) for n in (2, 0, 0, 3)]
        assert file.land([some[:1], some[1:]]) == [[True], [True] * 3]
        short = part(1, b"", blake3(b"short"))
        assert file.land([[(short, b"short")]]) == [[True]]  # its hash fits: the description lies
        assert file.land([[(entries[1], memoryview(PARTS[1]))]]) == [[True]]
        read = []
        monkeypatch.setattr(landing.os, "pread", lambda *args: read.append(args))
        assert file.matches(sha1=sha1(WHOLE), blake3=blake3(WHOLE))
        assert not read
        monkeypatch.undo()
        assert file.matches(blake3=blake3(WHOLE))  # as it lies there


@pytest.mark.parametrize("found", [b"", b"x", WHOLE + b"more"])
def test_an_incomplete_file_takes_the_right_length(directory, root, found):
    root.joinpath("file" + INCOMPLETE_SUFFIX).write_bytes(found)
    with landing_file(directory, "file") as file:
        assert file.was_there == bool(found)
        assert root.joinpath("file" + INCOMPLETE_SUFFIX).stat().st_size == len(WHOLE)


def test_two_fetches_never_write_one_file(directory, root):
    entries = [part(n, b"", blake3(PARTS[n])) for n in range(4)]
    with landing_file(directory, "file") as file:
        file.expect(blake3=blake3(WHOLE))
        with (
            pytest.raises(StorageError, match="another fetch"),
            landing_file(directory, "file") as other,
        ):
            other.write(0, PARTS[3])
        assert file.land([list(zip(entries, PARTS, strict=True))]) == [[True] * 4]
        assert file.matches(blake3=blake3(WHOLE))
        file.finish(sync=False)
    assert (root / "file").read_bytes() == WHOLE
    with landing_file(directory, "file"):
        pass


def test_a_file_that_gets_its_name_while_it_is_opened_again_is_not_written_to(
    directory, root, monkeypatch
):
    file = directory.file(("file",), len(WHOLE))
    file.write(0, WHOLE)
    lock = landing._lock

    def finish_first(fd):
        monkeypatch.setattr(landing, "_lock", lock)
        file.finish(sync=False)
        return lock(fd)

    monkeypatch.setattr(landing, "_lock", finish_first)
    with pytest.raises(StorageError, match="another fetch"):
        directory.file(("file",), 1)
    assert (root / "file").read_bytes() == WHOLE


def test_where_files_cannot_be_locked_they_land_all_the_same(directory, root, monkeypatch):
    def flock(fd, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", flock)
    land(directory, "file")
    assert (root / "file").read_bytes() == WHOLE


def test_closing_keeps_what_was_written_and_may_happen_twice(directory, root):
    with landing_file(directory, "file") as file:
        file.write(0, WHOLE)
        file.close()
        file.close()
    assert root.joinpath("file" + INCOMPLETE_SUFFIX).read_bytes() == WHOLE
    directory.close()
    directory.close()


def test_nothing_is_written_after_closing(directory):
    with landing_file(directory, "file") as file:
        file.close()
        for use in (
            lambda: file.write(0, b"x"),
            lambda: file.matches(blake3=bytes(32)),
            lambda: file.finish(sync=False),
        ):
            with pytest.raises(StorageError):
                use()
    directory.close()
    with pytest.raises(StorageError):
        directory.file(("other",), 1)


def test_a_write_under_way_ends_before_its_descriptor_is_given_to_another(
    directory, root, monkeypatch
):
    began, may_go_on = threading.Event(), threading.Event()
    true_pwrite = os.pwrite

    def slow_pwrite(fd, buffer, offset):
        began.set()
        may_go_on.wait(10)
        return true_pwrite(fd, buffer, offset)

    monkeypatch.setattr(landing.os, "pwrite", slow_pwrite)
    file = directory.file(("file",), 3)
    writer = threading.Thread(target=file.write, args=(0, b"new"))
    writer.start()
    began.wait(10)
    file.close()
    with open(root / "innocent", "w+b") as innocent:
        innocent.write(b"precious")
        innocent.flush()
        may_go_on.set()
        writer.join(10)
    assert (root / "innocent").read_bytes() == b"precious"
    assert (root / ("file" + INCOMPLETE_SUFFIX)).read_bytes() == b"new"


def test_no_descriptor_is_left_open_whatever_fails(directory, root, monkeypatch):
    (root / "taken").write_bytes(b"x")
    (root / ("link" + INCOMPLETE_SUFFIX)).symlink_to(root / "taken")
    os.mkfifo(root / ("fifo" + INCOMPLETE_SUFFIX))
    land(directory, "warm")
    before = open_files()
    land(directory, "a", "b", "fine")
    with pytest.raises(Exists), landing_file(directory, "taken") as file:
        file.finish(sync=True)
    for path in (("link",), ("fifo",), ("taken", "below"), ("x" * 300,)):
        with pytest.raises(StorageError):
            directory.file(path, 10)
    with pytest.raises(NoSpace):
        directory.file(("huge",), 2**63 - 1)
    for path in (("taken", "below"), ("none", "below"), ("taken",), ("none",)):
        with contextlib.suppress(StorageError, Exists):
            directory.has(path, 10)
    assert open_files() == before


# --- What is there -------------------------------------------------------------------------------


def test_what_has_the_name_is_compared(directory, root):
    path = ("a", "file")
    assert not directory.has(path, 4000, blake3=blake3(WHOLE))
    assert not (root / "a").exists()
    land(directory, *path)
    assert directory.has(path, 4000, sha1=sha1(WHOLE))
    assert directory.has(path, 4000, blake3=blake3(WHOLE))
    for size, digests in (
        (3999, {"blake3": blake3(WHOLE)}),
        (4000, {"blake3": blake3(b"")}),
        (4000, {"sha1": sha1(b""), "blake3": blake3(WHOLE)}),
    ):
        with pytest.raises(Exists, match="a/file"):
            directory.has(path, size, **digests)


@pytest.mark.parametrize("kind", ["directory", "fifo", "link to nowhere", "loop"])
def test_what_is_no_plain_file_is_something_else(directory, root, kind):
    place = root / "file"
    match kind:
        case "directory":
            place.mkdir()
        case "fifo":
            os.mkfifo(place)
        case "link to nowhere":
            place.symlink_to(root / "nowhere")
        case "loop":
            place.symlink_to(place)
    with pytest.raises(Exists):
        directory.has(("file",), 0, blake3=blake3(b""))


def test_a_name_taken_meanwhile_is_not_overwritten_unless_it_may_be(directory, root):
    with landing_file(directory, "file") as file:
        file.write(0, WHOLE)
        (root / "file").write_bytes(b"mine")
        with pytest.raises(Exists):
            file.finish(sync=True)
    assert (root / "file").read_bytes() == b"mine"
    assert (root / ("file" + INCOMPLETE_SUFFIX)).read_bytes() == WHOLE
    land(directory, "file", replaces=True)
    assert (root / "file").read_bytes() == WHOLE


def test_a_link_to_nowhere_has_the_name_too(directory, root):
    (root / "file").symlink_to(root / "nowhere")
    with pytest.raises(Exists):
        land(directory, "file")
    assert not (root / "nowhere").exists()


# --- Links ---------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path):
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_bytes(b"precious")
    return place


def unharmed(outside):
    return {p.name: p.read_bytes() for p in outside.iterdir()} == {"file": b"precious"}


def test_a_directory_that_is_a_link_is_not_entered(directory, root, outside):
    (root / "a").mkdir()
    (root / "a/b").symlink_to(outside)
    for path in (("a", "b", "file"), ("a", "b", "new", "file")):
        with pytest.raises(StorageError):
            directory.file(path, 10)
        with pytest.raises(StorageError):
            directory.has(path, 8, blake3=blake3(b"precious"))
    with pytest.raises(StorageError):
        directory.make_directories(("a", "b", "c"))
    assert unharmed(outside)


@pytest.mark.parametrize("make", ["symlink_to", "hardlink_to"])
def test_an_incomplete_file_that_is_a_link_is_not_opened(directory, root, outside, make):
    getattr(root / ("file" + INCOMPLETE_SUFFIX), make)(outside / "file")
    with pytest.raises(StorageError):
        directory.file(("file",), 10)
    assert unharmed(outside)


def test_replacing_a_link_replaces_the_link(directory, root, outside):
    (root / "file").symlink_to(outside / "file")
    land(directory, "file", replaces=True)
    assert not (root / "file").is_symlink()
    assert unharmed(outside)


NAMES = st.sampled_from(["a", "b", "file"])
TARGETS = st.sampled_from(["dir", "file", "up", "inside"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    planted=st.lists(
        st.tuples(PATHS, st.sampled_from(["dir", "file", "up", "inside"])), max_size=4
    ),
    wanted=st.lists(PATHS, min_size=1, max_size=6),
    replaces=st.booleans(),
    suffixed=st.booleans(),
)
def test_whatever_links_are_planted_nothing_outside_changes(
    tmp_path_factory, planted, wanted, replaces, suffixed
):
    base = tmp_path_factory.mktemp("base")
    outside, root = base / "outside", base / "root"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    root.mkdir()
    targets = {"dir": outside, "file": outside / "file", "up": base, "inside": root / "a"}
    for path, kind in planted:
        place = root.joinpath(*path)
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            if suffixed:
                place = place.with_name(place.name + INCOMPLETE_SUFFIX)
            if place.parent.resolve().is_relative_to(root):
                place.symlink_to(targets[kind])
    before = everything_but(root, base)
    directory = LandingDirectory(root)
    for path in wanted:
        with contextlib.suppress(StorageError, Exists):
            if not directory.has(path, len(WHOLE), blake3=blake3(WHOLE)):
                land(directory, *path, replaces=replaces)
        with contextlib.suppress(StorageError):
            os.close(directory.make_directories(path))
    directory.close()
    assert everything_but(root, base) == before
    shutil.rmtree(base)


def everything_but(root, base):
    """Return all that is below ``base`` and not below ``root``."""
    places = [p for p in base.rglob("*") if not p.is_relative_to(root)]
    return {(p, p.read_bytes() if p.is_file() else b"") for p in places}


@pytest.mark.slow
def test_a_directory_that_becomes_a_link_again_and_again_leads_nowhere(directory, root, outside):
    (root / "real").mkdir()
    (root / "link").symlink_to(outside)
    is_over = threading.Event()

    def swap():
        while not is_over.is_set():
            for name in ("real", "link"):
                with contextlib.suppress(OSError):
                    os.rename(root / name, root / "d")
                with contextlib.suppress(OSError):
                    os.rename(root / "d", root / name)

    swapper = threading.Thread(target=swap)
    swapper.start()
    landed = 0
    try:
        for number in range(300):
            with contextlib.suppress(StorageError):
                land(directory, "d", f"{number}", whole=b"evil")
                landed += 1
    finally:
        is_over.set()
        swapper.join()
    assert unharmed(outside)
    assert landed


# --- Space ---------------------------------------------------------------------------------------


def test_space_is_asked_for_where_the_file_is_to_be_made(tmp_path, monkeypatch):
    asked = []
    true_statvfs = os.statvfs

    def statvfs(path):
        asked.append(path)
        return true_statvfs(path)

    monkeypatch.setattr(landing.os, "statvfs", statvfs)
    check_space(tmp_path / "not/yet/there", 1000)
    assert set(asked) == {tmp_path}
    with pytest.raises(NoSpace, match="are needed"):
        check_space(tmp_path / "not/yet/there", 2**62)


def test_what_was_begun_is_gone_on_with_whatever_is_free(tmp_path):
    (tmp_path / ("file" + INCOMPLETE_SUFFIX)).write_bytes(b"")
    check_space(tmp_path / "file", 2**62)
    check_space(tmp_path, 2**62)
    with pytest.raises(NoSpace):
        check_space(tmp_path / "other", 2**62)


def test_a_full_disk_keeps_what_was_written_before(directory, root, monkeypatch):
    true_pwrite = os.pwrite

    def pwrite(fd, buffer, offset):
        if offset >= 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return true_pwrite(fd, bytes(buffer)[:300], offset)

    with landing_file(directory, "file") as file:
        monkeypatch.setattr(landing.os, "pwrite", pwrite)
        file.write(0, PARTS[0])
        file.write(1000, PARTS[1])
        with pytest.raises(NoSpace):
            file.write(2000, PARTS[2])
    monkeypatch.undo()
    with landing_file(directory, "file") as file:
        entries = [part(n, sha1(p), blake3(p)) for n, p in enumerate(PARTS)]
        has = file.land([[(entry, None) for entry in entries]])
    assert has == [[True, True, False, False]]
    assert not (root / "file").exists()


@pytest.mark.slow
def test_a_limit_of_the_system_on_file_sizes_is_no_space(tmp_path):
    program = f"""
import resource, signal
from pathlib import Path
from bytestag.errors import NoSpace
from bytestag.tables.landing import LandingDirectory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
directory = LandingDirectory(Path({str(tmp_path)!r}))
try:
    directory.file(("large",), 10_000)
except NoSpace as error:
    print("refused")
file = directory.file(("small",), 4000)
file.write(0, bytes(4000))
try:
    file.write(4500, bytes(1000))
except NoSpace:
    print("full")
file.close()
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.split() == ["refused", "full"]
    assert (tmp_path / ("small" + INCOMPLETE_SUFFIX)).stat().st_size >= 4000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_errors_of_the_system_about_space_are_no_space(number):
    assert isinstance(translated(OSError(number, "x"), "path"), NoSpace)


def test_other_errors_of_the_system_say_what_and_where(root):
    error = translated(OSError(errno.EACCES, os.strerror(errno.EACCES)), "/some/where")
    assert type(error) is StorageError
    assert "/some/where" in error.message
    assert "Permission denied" in error.message


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(StorageError):
            LandingDirectory(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_a_storage_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError):
        LandingDirectory(tmp_path / "below")


def test_a_name_of_255_bytes_lands_though_no_suffix_fits_behind_it(tmp_path):
    directory = LandingDirectory(tmp_path)
    try:
        file = directory.file(("n" * 255,), 3)
        file.write(0, b"abc")
        file.finish(sync=False)
    finally:
        directory.close()
    assert [path.name for path in tmp_path.iterdir()] == ["n" * 255]
