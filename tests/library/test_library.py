"""Reading through a client of our own and through a running node: the same answers."""

import os
import signal
import threading
from contextlib import closing
from dataclasses import replace

import pytest

from bytestag.errors import Corrupt, FormatError, NotFound, UsageError
from bytestag.hashing import sha1
from bytestag.keys import KeyBytes
from bytestag.library.config import LibraryConfig
from bytestag.library.elsewhere import Nowhere, OwnClient, ThroughDoor
from bytestag.library.incoming import arriving
from bytestag.library.library import Library
from bytestag.tables.prv_making import make_prv
from bytestag.uri import Link


def inside(link, *path):
    text, _, query = link.partition("?")
    return Link.parse("/".join((text, *path)) + f"?{query}")


@pytest.fixture(params=["own client", "running node"])
def library(request, programs, home):
    if request.param == "running node":
        programs.node("reader")
        os.environ["BYTESTAG_HOME"] = str(programs.home("reader"))
    library = Library(LibraryConfig(timeout=20.0))
    with closing(library):
        kind = OwnClient if request.param == "own client" else ThroughDoor
        assert isinstance(library.elsewhere, kind)
        yield library


def test_files_and_directories_are_read_from_elsewhere(library, shared, source, tmp_path):
    whole = Link.parse(shared)
    assert library.describe(whole)["files"] == 5
    assert sorted(library.manifest(whole).dirs) == ["hollow", "sub"]

    big, data = inside(shared, "big.bin"), (source / "big.bin").read_bytes()
    assert library.describe(big) | {"type": "file"} == library.describe(big)
    assert library.describe(big)["size"] == len(data)
    assert library.read(big, 1_000_000, 1_000_100) == data[1_000_000:1_000_100]
    assert library.read(big, 2_999_990, 9_999_999) == data[-10:]
    assert library.read(big, 5_000_000) == b""
    with library.open(big) as file:
        file.seek(-5, 2)
        assert file.read() == data[-5:]
        file.seek(262_140)
        assert file.read(10) == data[262_140:262_150]
    with pytest.raises(NotFound):
        library.locate(big)

    path = library.load(big)
    assert path.read_bytes() == data
    assert library.locate(big).path == path
    assert library.load(big, tmp_path / "copy").read_bytes() == data
    assert library.load(Link("sha1", sha1(data))) == path
    assert not any((library.store.directory / "incoming").iterdir())

    dest = library.load_directory(whole, tmp_path / "all")
    assert {p.relative_to(dest): p.is_file() and p.read_bytes() for p in dest.rglob("*")} == {
        p.relative_to(source): p.is_file() and p.read_bytes() for p in source.rglob("*")
    }


def test_what_is_elsewhere_is_looked_for_with_limits_and_reasons(library, shared):
    with pytest.raises(NotFound, match="not in the directory") as caught:
        library.describe(inside(shared, "none"))
    assert caught.value.hint
    with pytest.raises(UsageError, match="a directory"):
        library.load(inside(shared, "sub"))
    with pytest.raises(UsageError, match="a directory"):
        library.read(Link.parse(shared), 0, 5)
    with pytest.raises(UsageError, match="is a file"):
        library.manifest(inside(shared, "a.txt"))
    with pytest.raises(UsageError, match="no range"):
        library.read(inside(shared, "a.txt"), 5, 3)
    nobody = replace(Link.parse(shared), scheme="sha1", digest=bytes(20), kind=None, b3=b"")
    with pytest.raises(NotFound, match="answered"):
        library.load(nobody)


def test_a_part_of_a_file_is_had_from_the_whole_that_is_elsewhere(library, shared, source):
    data = (source / "big.bin").read_bytes()
    hints = Link.parse(shared).hints
    chunk = data[100:900_000]
    link = Link(
        "sha1", sha1(chunk), hints=hints, chunk_of=(Link("sha1", sha1(data)).key, 100, 900_000)
    )
    assert library.load(link).read_bytes() == chunk
    wrong = Link("sha1", sha1(b"x"), hints=hints, chunk_of=(Link("sha1", sha1(data)).key, 100, 200))
    with pytest.raises(Corrupt):
        library.load(wrong)


def test_nothing_asks_the_network_if_it_must_not(home):
    with closing(Library(LibraryConfig(local_only=True))) as library:
        content = library.store.add_bytes(b"here")
        link = Link("sha1", content.sha1)
        assert library.read(link) == b"here"
        assert library.find(link)["here"] == str(content.path)
        for ask in (library.load, library.describe, library.find, library.read):
            with pytest.raises(NotFound, match="not in the store"):
                ask(Link("sha1", bytes(20)))


def test_a_directory_that_is_here_is_made_without_asking(home, source, tmp_path):
    with closing(Library(LibraryConfig(local_only=True))) as library:
        _, content = library.store.add_directory(source)
        link = Link("sha1dir", content.sha1, "x", "d")
        made = library.load_directory(link, tmp_path / "made")
        assert sorted(p.name for p in made.rglob("*")) == sorted(p.name for p in source.rglob("*"))
        assert (made / "hollow").is_dir()
        one = Link("sha1dir", content.sha1, "x", "d", path=("sub", "deep", "x.csv"))
        assert library.load(one).read_bytes() == (source / "sub/deep/x.csv").read_bytes()


def tree_of(directory):
    return {p.relative_to(directory): p.is_file() and p.read_bytes() for p in directory.rglob("*")}


def test_a_directory_that_was_begun_is_gone_on_with(library, shared, source, tmp_path):
    whole, dest, told = Link.parse(shared), tmp_path / "all", []
    library.load_directory(whole, dest)
    written = (dest / "big.bin").stat().st_mtime_ns
    (dest / "a.txt").unlink()
    (dest / "sub/deep/x.csv").rename(dest / "sub/deep/x.csv.bytestag-incomplete")
    library.load_directory(whole, dest, lambda *progress: told.append(progress))
    assert tree_of(dest) == tree_of(source)
    assert (dest / "big.bin").stat().st_mtime_ns == written

    (dest / "a.txt").write_bytes(b"mine")
    with pytest.raises(UsageError, match="differs"):
        library.load_directory(whole, dest)
    assert (dest / "a.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("strange", ["mine", "sub/mine", "empty/"])
def test_a_directory_that_is_another_is_not_loaded_into(strange, home, source, tmp_path):
    with closing(Library(LibraryConfig(local_only=True))) as library:
        _, content = library.store.add_directory(source)
        dest = tmp_path / "made"
        dest.joinpath("sub").mkdir(parents=True)
        (dest / strange).mkdir() if strange[-1] == "/" else (dest / strange).write_bytes(b"")
        before = tree_of(dest)
        with pytest.raises(UsageError, match="not of this directory") as caught:
            library.load_directory(Link("sha1dir", content.sha1, "x", "d"), dest)
        assert caught.value.hint == "name a directory that is to be made"
        assert tree_of(dest) == before


def test_what_a_manifest_here_names_is_had_though_nobody_else_has_the_manifest(
    library, shared, source, tmp_path
):
    """As somebody has it who stored the directory, or has a .prvdir of it."""
    made = make_prv(source, Link.parse(shared).hints, lambda size: None)
    (tmp_path / "x.prvdir").write_bytes(made.prv.to_bytes())
    link = library.named(tmp_path / "x.prvdir")
    assert (link.name, link.kind) == ("x", "d")
    assert (
        library.read(replace(link, path=("big.bin",)), 5, 9)
        == ((source / "big.bin").read_bytes()[5:9])
    )
    path = library.load(replace(link, path=("a.txt",)))
    assert path.read_bytes() == (source / "a.txt").read_bytes()
    assert tree_of(library.load_directory(link, tmp_path / "out")) == tree_of(source)

    with closing(Library(library.config.changed(local_only=True))) as alone:
        link = alone.named(tmp_path / "x.prvdir")
        assert sorted(alone.manifest(link).dirs) == ["hollow", "sub"]
        with pytest.raises(NotFound):
            alone.load_directory(link, tmp_path / "nothing")
        assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("lie", [{"size": 11}, {"b3": bytes(32)}])
def test_a_prvdir_that_lies_of_a_file_is_found_out(lie, library, shared, source, tmp_path):
    made = make_prv(source, Link.parse(shared).hints, lambda size: None)
    made.prv.files["a.txt"] = replace(made.prv.files["a.txt"], **lie)
    (tmp_path / "x.prvdir").write_bytes(made.prv.to_bytes())
    link = library.named(tmp_path / "x.prvdir")
    with pytest.raises(FormatError, match="the directory says"):
        library.load_directory(link, tmp_path / "out")
    assert not (tmp_path / "out" / "a.txt").exists()
    with pytest.raises(FormatError, match="the directory says"):
        library.load(replace(link, path=("a.txt",)))


def test_a_chunk_that_cannot_be_of_the_file_here_is_looked_for_elsewhere(home):
    with closing(Library(LibraryConfig(local_only=True))) as library:
        whole = KeyBytes(library.store.add_bytes(b"short").sha1)
        link = Link("sha1", bytes(20), chunk_of=(whole, 0, 10))
        with pytest.raises(NotFound):
            library.locate(link)


def test_a_forked_child_reads_on_its_own(shared, source, home):
    with closing(Library(LibraryConfig())) as library:
        link = inside(shared, "big.bin")
        data = (source / "big.bin").read_bytes()
        assert library.read(link, 0, 10) == data[:10]
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(write_end, library.read(link, 500_000, 500_010))
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            assert pipe.read() == data[500_000:500_010]
        assert os.waitpid(child, 0)[1] == 0
        assert library.read(link, 10, 20) == data[10:20]


def test_a_child_that_is_forked_while_a_thread_is_at_work_does_not_wait_for_it(home):
    with closing(Library(LibraryConfig(local_only=True))) as library:
        link = Link("sha1", library.store.add_bytes(b"here").sha1)
        is_held, may_go = threading.Event(), threading.Event()

        def hold():
            with library._lock:
                is_held.set()
                may_go.wait(30)

        thread = threading.Thread(target=hold)
        thread.start()
        is_held.wait(30)
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(0 if library.read(link) == b"here" else 1)
        may_go.set()
        thread.join()
        assert os.waitpid(child, 0)[1] == 0


def test_a_load_goes_on_where_it_was_killed(shared, source, home, programs):
    """Killed in the middle, a second try ends whole; the store holds nothing half-made."""
    link = str(inside(shared, "big.bin"))
    first = programs.start("loader", "load", link)
    first.end(signal.SIGKILL)
    code, answer, notes = programs.run("loader", "load", link)
    assert code == 0, notes
    with open(answer[0], "rb") as file:
        assert file.read() == (source / "big.bin").read_bytes()
    assert programs.run("loader", "verify")[0] == 0


def test_processes_that_load_the_same_at_once_all_have_it(programs, tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(os.urandom(30_000_000))
    link = programs.start("publisher", "share", path, "--host", "127.0.0.1").line()
    loading = [programs.start("reader", "load", link) for _ in range(3)]
    codes = [program.code() for program in loading]
    assert codes == [0, 0, 0], [program.rest("stderr") for program in loading]
    (kept,) = {program.line() for program in loading}
    assert os.listdir(programs.home("reader") / "data" / "store" / "incoming") == []
    with open(kept, "rb") as file:
        assert file.read() == path.read_bytes()


def test_what_arrived_before_its_process_was_killed_is_kept_or_fetched_again(library, shared):
    link = inside(shared, "big.bin")
    digest = bytes.fromhex(library.describe(link)["sha1"])
    with arriving(library.store.directory, digest) as arrived:
        arrived.write_bytes(b"wrong")
    assert sha1(library.load(link).read_bytes()) == digest
    assert not arrived.exists()


def test_who_waits_for_a_content_to_arrive_goes_on_when_the_first_is_done(tmp_path):
    order = []

    def second():
        with arriving(tmp_path, bytes(20)):
            order.append("second")

    waiting = threading.Thread(target=second)
    with arriving(tmp_path, bytes(20)) as arrived, arriving(tmp_path, b"x" * 20) as other:
        assert arrived != other
        waiting.start()
        waiting.join(0.05)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


class Liar(Nowhere):
    """One who describes a file truly and gives other bytes."""

    def describe(self, link):
        return {"type": "file", "size": 3, "sha1": sha1(b"yes").hex(), "blake3": ""}

    def read(self, link, start, end):
        return b"no!"[start:end]


def test_a_whole_file_that_is_read_as_a_range_is_compared_with_its_hash(home):
    with closing(Library(LibraryConfig())) as library:
        library._elsewhere = Liar()
        link = Link("sha1", sha1(b"yes"))
        assert library.read(link, 0, 2) == b"no"
        with pytest.raises(Corrupt):
            library.read(link)
