"""Verify, collect, and what is left when a process is killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bytestag.errors import NotFound, NotPermitted
from bytestag.hashing import sha1
from bytestag.store import objects
from bytestag.store.content import ContentStore
from tests.store.test_content import LONG_AGO_NS, files_in, overwrite, settled

DAY = 86_400


class Clock:
    now = 2_000_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    store = ContentStore(tmp_path / "store", wall=clock)
    yield store
    store.close()


# --- Verify --------------------------------------------------------------------------------------


def test_verify_sees_a_change_that_no_stamp_shows(store):
    content = store.add_bytes(b"some text")
    status = content.path.stat()
    overwrite(content.path, b"SOME")
    os.utime(content.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert content.sha1 in store  # bit rot: only reading it all finds it
    (problem,) = store.verify()
    assert (problem.sha1, problem.what) == (content.sha1, "the object was damaged")
    assert problem.path.parent == store.directory / "bad"
    assert content.sha1 not in store
    assert store.verify() == []


def test_verify_looks_at_what_is_asked_for_and_tells_of_each(store, tmp_path):
    contents = [store.add_bytes(b"%d" % number) for number in range(3)]
    link = store.add_file(settled(tmp_path / "a", b"link"), is_linked=True)
    seen = []
    assert store.verify(on_each=lambda content: seen.append(content.sha1)) == []
    assert set(seen) == {content.sha1 for content in [*contents, link]}
    overwrite(contents[0].path, b"x")
    assert store.verify([contents[1].sha1, link.sha1]) == []
    assert [problem.sha1 for problem in store.verify([contents[0].sha1])] == [contents[0].sha1]


def test_verify_forgets_links_that_changed_and_objects_that_are_gone(store, tmp_path):
    path = settled(tmp_path / "a", b"some text")
    store.add_file(path, is_linked=True)
    path.write_bytes(b"SOME TEXT")
    os.utime(path, ns=(0, LONG_AGO_NS))  # as if nothing had happened
    store.add_bytes(b"gone").path.unlink()
    whats = {problem.what for problem in store.verify()}
    assert whats == {"the linked file changed or is gone", "the object is gone"}
    assert store.verify() == []
    assert list(store.list()) == []


def test_two_files_with_one_sha1_are_told_apart_by_verify(store):
    content = store.add_bytes(b"some text")
    row = store.index.object_row(content.sha1)
    assert row is not None
    store.index.put([row._replace(blake3=bytes(32))])  # as if the file were its SHA-1 twin
    assert [problem.what for problem in store.verify()] == ["the object was damaged"]


# --- Collect -------------------------------------------------------------------------------------


def test_the_oldest_go_first_until_so_few_bytes_are_left(store, clock):
    contents = []
    for number in range(5):
        clock.now += DAY
        contents.append(store.add_bytes(b"%d" % number * 10))
    clock.now += DAY
    store.find(contents[0].sha1)  # used again
    would = store.collect(bytes_max=30, is_dry=True)
    assert [content.sha1 for content in would] == [content.sha1 for content in contents[1:3]]
    assert store.used_bytes == 50
    assert store.collect(bytes_max=30) == would
    assert store.used_bytes == 30
    assert [content.sha1 in store for content in contents] == [True, False, False, True, True]


def test_what_was_not_used_for_long_goes(store, clock):
    old = store.add_bytes(b"old")
    clock.now += 10 * DAY
    new = store.add_bytes(b"new")
    assert store.collect() == []
    assert store.collect(unused_seconds=9 * DAY) == [old]
    assert old.sha1 not in store
    assert new.sha1 in store


def test_what_is_pinned_stays_with_all_that_it_names(store, clock, tmp_path):
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_bytes(b"a")
    (tree / "sub" / "b").write_bytes(b"b")
    _, directory = store.add_directory(tree)
    other = store.add_bytes(b"other")
    store.pin(directory.sha1)
    clock.now += DAY
    assert store.collect(bytes_max=0) == [other]
    for value in (b"a", b"b"):
        assert sha1(value) in store
    store.unpin(directory.sha1)
    assert len(store.collect(bytes_max=0)) == 3


def test_an_object_used_between_the_choice_and_the_removal_stays(store, clock, monkeypatch):
    content = store.add_bytes(b"some text")
    clock.now += DAY
    writing = store.index.writing

    def used_first():
        monkeypatch.setattr(store.index, "writing", writing)
        clock.now += 1
        store.add_bytes(b"some text")
        return writing()

    rows = store.index.objects

    def chosen():
        yield from rows()
        monkeypatch.setattr(store.index, "writing", used_first)

    monkeypatch.setattr(store.index, "objects", chosen)
    assert store.collect(bytes_max=0) == []
    assert content.path.exists()


def test_nobody_stores_what_is_just_being_removed(store, tmp_path, monkeypatch):
    """Else its object would be there again when it is removed, and be lost."""
    content = store.add_bytes(b"x")
    unlink, refused = os.unlink, []

    def remove(path, **options):
        if os.fspath(path) == os.fspath(content.path):
            index = tmp_path / "store" / "index.sqlite"
            with (
                closing(sqlite3.connect(index, timeout=0)) as other,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                other.execute("BEGIN IMMEDIATE")
            refused.append(path)
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", remove)
    store.remove(content.sha1)
    assert len(refused) == 1


def test_an_object_without_a_row_is_collected_as_well(store):
    content = store.add_bytes(b"some text")
    store.index.forget_object(content.sha1)
    assert [gone.sha1 for gone in store.collect(bytes_max=0)] == [content.sha1]


def test_only_temporary_files_of_the_dead_go(store, clock, monkeypatch):
    store.add_bytes(b"x")
    clock.now = time.time()
    for name in ("999999999-dead", f"{os.getpid()}-alive", "999999998-young", "strange"):
        path = store.directory / "tmp" / name
        path.touch()
        if "young" not in name:
            os.utime(path, (0, 0))
    store.collect(is_dry=True)
    assert len(files_in(store.directory / "tmp")) == 4
    store.collect()
    assert files_in(store.directory / "tmp") == sorted(["999999998-young", f"{os.getpid()}-alive"])
    monkeypatch.setattr(objects, "_is_alive", lambda pid: False)
    store.collect()
    assert files_in(store.directory / "tmp") == ["999999998-young"]


def test_what_nobody_came_back_to_fetch_goes_after_a_week(store, clock):
    store.add_bytes(b"x")
    clock.now = time.time()
    incoming = store.directory / "incoming"
    incoming.mkdir()
    for name, days in (("old.bytestag-incomplete", 8), ("young.bytestag-incomplete", 6)):
        (incoming / name).touch()
        os.utime(incoming / name, (0, clock.now - days * DAY))
    store.collect()
    assert files_in(incoming) == ["young.bytestag-incomplete"]


# --- Any order of doing --------------------------------------------------------------------------


class Together(RuleBasedStateMachine):
    """Two stores on one directory, as two processes have them, against a dictionary."""

    values = st.sampled_from([b"", b"a", b"bb", b"ccc"])
    which = st.sampled_from([0, 1])

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.stores = [ContentStore(Path(self.directory.name) / "store") for _ in range(2)]
        self.known: set[bytes] = set()
        self.pinned: set[bytes] = set()

    @rule(which=which, value=values)
    def add(self, which, value):
        self.stores[which].add_bytes(value)
        self.known.add(value)

    @rule(which=which, value=values)
    def remove(self, which, value):
        store = self.stores[which]
        if value in self.pinned:
            with pytest.raises(NotPermitted):
                store.remove(sha1(value))
        elif value in self.known:
            store.remove(sha1(value))
            self.known.discard(value)
        else:
            with pytest.raises(NotFound):
                store.remove(sha1(value))

    @rule(which=which, value=values)
    def pin(self, which, value):
        if value in self.known:
            self.stores[which].pin(sha1(value))
            self.pinned.add(value)

    @rule(which=which)
    def collect(self, which):
        self.stores[which].collect(bytes_max=0)
        self.known = {value for value in self.known if value in self.pinned or not value}

    @rule(which=which, value=values)
    def damage(self, which, value):
        if value and value in self.known and value not in self.pinned:
            path = Path(self.stores[which].objects.path(sha1(value)))
            overwrite(path, b"?" * len(value))
            self.known.discard(value)
            assert sha1(value) not in self.stores[which]

    @rule()
    def lose_the_index(self):
        if self.pinned:
            return
        for store in self.stores:
            store.close()
        for path in Path(self.directory.name).glob("store/index.sqlite*"):
            path.unlink()

    @invariant()
    def both_see_what_is_known(self):
        for store in self.stores:
            for value in (b"", b"a", b"bb", b"ccc"):
                assert (sha1(value) in store) == (value in self.known)
            assert {content.sha1 for content in store.list()} == {sha1(v) for v in self.known}

    def teardown(self):
        for store in self.stores:
            store.close()
        self.directory.cleanup()


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


# --- Killed --------------------------------------------------------------------------------------

_VICTIM = """
import os, sys
from pathlib import Path
from bytestag.store.content import ContentStore
store = ContentStore(Path(sys.argv[1]))
tree = Path(sys.argv[2])
large = Path(sys.argv[3])
print("ready", flush=True)
turn = 0
while True:
    turn += 1
    store.add_directory(tree)
    store.add_file(large)
    store.add_bytes(b"%d %d" % (os.getpid(), turn))
    with store.receive(store.add_bytes(b"r%d" % turn).sha1) as incoming:
        incoming.path.write_bytes(b"r%d" % turn)
        incoming.commit()
    store.collect(bytes_max=1000)
"""


def kill_often(tmp_path: Path, kills: int, seconds_max: float) -> None:
    rng = random.Random(4)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(60):
        (tree / str(number)).write_bytes(rng.randbytes(5000))
    settled(tmp_path / "large", rng.randbytes(6_000_000))
    store = ContentStore(tmp_path / "store")
    kept = store.add_bytes(b"kept")
    store.pin(kept.sha1)
    for _ in range(kills):
        arguments = [store.directory, tree, tmp_path / "large"]
        with subprocess.Popen(
            [sys.executable, "-c", _VICTIM, *map(str, arguments)], stdout=subprocess.PIPE
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            timer = rng.uniform(0, seconds_max)
            try:
                victim.wait(timer)
            except subprocess.TimeoutExpired:
                victim.send_signal(signal.SIGKILL)
        assert victim.returncode == -signal.SIGKILL
        damaged = [p for p in store.verify() if p.what != "the object is gone"]
        assert damaged == []
        assert files_in(store.directory / "bad") == []
        assert kept.sha1 in store
        for path in (store.directory / "objects").rglob("*"):
            if path.is_file():
                assert sha1(path.read_bytes()).hex() == path.name
    store.add_directory(tree)
    store.close()


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_no_bad_object(tmp_path):
    kill_often(tmp_path, kills=10, seconds_max=0.25)


@pytest.mark.long
def test_processes_killed_hundreds_of_times_leave_no_bad_object(tmp_path):
    kill_often(tmp_path, kills=150, seconds_max=0.4)


def test_without_the_temporary_name_a_killed_process_leaves_a_bad_object(tmp_path):
    """What the rename is for: a victim that writes under the object's own name."""
    store = ContentStore(tmp_path / "store")
    content = store.add_bytes(b"x" * 1000)
    store.index.forget_object(content.sha1)
    content.path.unlink()
    program = (
        "import os, sys; f = open(sys.argv[1], 'wb'); f.write(b'x' * 500); f.flush();"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(content.path)], check=False)
    assert [problem.what for problem in store.verify()] == ["the object was damaged"]
    store.close()


@pytest.mark.slow
def test_processes_share_a_new_store(tmp_path):
    program = """
import sys
from pathlib import Path
from bytestag.store.content import ContentStore
sys.stdin.readline()
store = ContentStore(Path(sys.argv[1]))
for number in range(40):
    content = store.add_bytes(b"%d" % number)
    assert store.read(store.find(content.sha1)) == b"%d" % number
    store.add_bytes(b"%s %d" % (sys.argv[2].encode(), number))
"""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "store"), str(number)],
            stdin=subprocess.PIPE,
        )
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.close()
    assert [worker.wait() for worker in workers] == [0] * 4
    store = ContentStore(tmp_path / "store")
    assert len(list(store.list())) == 40 + 160
    assert store.verify() == []
    store.close()
