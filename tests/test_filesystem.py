"""fsspec: links as files, for every tool that reads files."""

import asyncio
import os
import pickle
import random
import threading

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures
from fsspec.tests.abstract.get import AbstractGetTests

import bytestag
from bytestag import api, filesystem
from bytestag.filesystem import BLOCK_BYTES, EPOCH, BytestagFileSystem
from bytestag.library.library import Library
from bytestag.store.content import ContentStore
from bytestag.uri import Link


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A user without anything, whose computer has no network."""
    for name in os.environ:
        if name.startswith(("BYTESTAG", "KACHERY")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("BYTESTAG_OFFLINE", "1")
    BytestagFileSystem.clear_instance_cache()
    fsspec.asyn.reset_lock()
    yield
    api.close()
    api._library = None
    BytestagFileSystem.clear_instance_cache()
    while filesystem._libraries:
        filesystem._libraries.popitem()[1].close()


@pytest.fixture
def tree(tmp_path):
    rng = random.Random(3)
    root = tmp_path / "tree"
    for name, size in {"a.csv": 100, "b c%20.csv": 200, "sub/x": 300, "sub/deep/y": 0}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(size))
    (root / "big").write_bytes(rng.randbytes(3 * BLOCK_BYTES))
    (root / "hollow").mkdir()
    return root


@pytest.fixture
def uri(tree):
    return bytestag.store_dir(tree)


def test_urls_open_by_their_scheme(tree, uri):
    with fsspec.open(f"{uri}/a.csv") as file:
        assert file.read() == (tree / "a.csv").read_bytes()
    alone = bytestag.store_file(tree / "sub/x")
    for url in (alone, alone.rpartition("/")[0], alone.rpartition("/")[0] + "?label=x"):
        assert fsspec.open(url).open().read() == (tree / "sub/x").read_bytes()
    assert fsspec.open(alone.replace("sha1:", "bytestag:")).open().read(3)


def test_compression_is_inferred_from_the_name_in_every_form(tmp_path):
    import gzip

    (tmp_path / "x.gz").write_bytes(gzip.compress(b"text"))
    path_form = bytestag.store_file(tmp_path / "x.gz")
    bare = path_form.rpartition("/")[0]
    for url in (path_form, f"{bare}?label=x.gz", f"{bare}?x.gz"):
        with fsspec.open(url, "rt", compression="infer") as file:
            assert file.read() == "text"


def test_listings_cost_no_content(tree, uri, monkeypatch):
    fs, path = fsspec.url_to_fs(uri)
    monkeypatch.setattr(Library, "read", None)
    monkeypatch.setattr(Library, "load", None)
    assert [name[len(path) :] for name in fs.ls(path, detail=False)] == [
        "/a.csv", "/b c%20.csv", "/big", "/hollow", "/sub"]  # fmt: skip
    files = [p.relative_to(tree) for p in sorted(tree.rglob("*")) if p.is_file()]
    assert fs.find(path) == [f"{path}/{file}" for file in files]
    assert fs.glob(f"{path}/*.csv") == [f"{path}/a.csv", f"{path}/b c%20.csv"]
    assert fs.glob(f"{path}/**/y") == [f"{path}/sub/deep/y"]
    assert fs.du(path) == sum(p.stat().st_size for p in tree.rglob("*") if p.is_file())
    assert [(root[len(path) :], dirs, files) for root, dirs, files in fs.walk(f"{path}/sub")] == [
        ("/sub", ["deep"], ["x"]),
        ("/sub/deep", [], ["y"]),
    ]
    info = fs.info(f"{path}/sub/x")
    assert (info["size"], info["type"], info["created"], info["islink"]) == (
        300,
        "file",
        None,
        False,
    )
    assert fs.info(path)["size"] == 0
    assert fs.isdir(f"{path}/hollow")
    assert fs.ls(f"{path}/hollow") == []
    assert not fs.exists(f"{path}/none")
    assert fs.ls(f"{path}/a.csv")[0]["name"] == f"{path}/a.csv"
    assert fs.ukey(f"{path}/a.csv") == fs.info(f"{path}/a.csv")["sha1"]
    assert fs.modified(f"{path}/a.csv") == fs.created(path) == EPOCH


@pytest.mark.parametrize("spelling", ["b c%20.csv", "b%20c%2520.csv"])
def test_names_may_be_written_as_they_are_or_as_in_urls(tree, uri, spelling):
    assert fsspec.open(f"{uri}/{spelling}").open().read() == (tree / "b c%20.csv").read_bytes()


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 10), (5, None), (None, 7), (-5, None), (10, 5), (100, 10**9), (-10, -5), (10**9, None),
     (0, 0), (None, None)],
)  # fmt: skip
def test_ranges_are_those_of_python(tree, uri, start, end):
    fs, path = fsspec.url_to_fs(uri)
    data = (tree / "big").read_bytes()
    assert fs.cat_file(f"{path}/big", start, end) == data[start:end]


def test_near_ranges_travel_together_and_failures_are_returned(tree, uri, monkeypatch):
    fs, path = fsspec.url_to_fs(uri)
    data = (tree / "big").read_bytes()
    asked = []
    read = Library.read

    def watched(self, link, start=0, end=None):
        asked.append((start, end))
        return read(self, link, start, end)

    monkeypatch.setattr(Library, "read", watched)
    big = f"{path}/big"
    paths = [big, big, big, f"{path}/none", big]
    starts, ends = [0, 100, 2_000_000, 0, -3], [50, 200, 2_000_010, 5, None]
    found = fs.cat_ranges(paths, starts, ends)
    assert found[:3] == [data[:50], data[100:200], data[2_000_000:2_000_010]]
    assert isinstance(found[3], FileNotFoundError)
    assert found[4] == data[-3:]
    assert {(0, 200), (2_000_000, 2_000_010)} <= set(asked)
    assert (0, 50) not in asked
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([f"{path}/none"], [0], [5], on_error="raise")
    with pytest.raises(ValueError, match="as many"):
        fs.cat_ranges([big], [0, 1], [2, 3])


def test_files_are_complete(tree, uri):
    fs, path = fsspec.url_to_fs(uri)
    data = (tree / "big").read_bytes()
    with fs.open(f"{path}/big") as file:
        file.seek(-10, 2)
        assert file.read() == data[-10:]
        file.seek(BLOCK_BYTES - 5)
        assert file.read(10) == data[BLOCK_BYTES - 5 : BLOCK_BYTES + 5]
        assert file.tell() == BLOCK_BYTES + 5
    with fs.open(f"{path}/a.csv", block_size=10, cache_type="none") as file:
        assert file.readlines() == (tree / "a.csv").read_bytes().splitlines(keepends=True)


def test_it_cannot_be_written_to(uri):
    fs, path = fsspec.url_to_fs(uri)
    for write in (
        lambda: fs.open(f"{path}/new", "wb"),
        lambda: fs.pipe_file(f"{path}/new", b""),
        lambda: fs.rm(f"{path}/a.csv"),
        lambda: fs.rm_file(f"{path}/a.csv"),
        lambda: fs.mkdir(f"{path}/new"),
        lambda: fs.makedirs(f"{path}/new"),
        lambda: fs.touch(f"{path}/new"),
        lambda: fs.cp_file(f"{path}/a.csv", f"{path}/b"),
        lambda: fs.put_file(__file__, f"{path}/b"),
    ):
        with pytest.raises(OSError, match="stored, not written") as caught:
            write()
        assert caught.value.errno == 30


def test_what_nobody_has_is_no_file(uri):
    fs, path = fsspec.url_to_fs(uri)
    for name in (f"{path}/none", "sha1://" + "0" * 40, "sha1://nonsense"):
        with pytest.raises(FileNotFoundError):
            fs.cat_file(name)
        assert not fs.exists(name)


def test_it_travels_to_other_threads_and_by_pickle(tree, uri):
    fs, path = fsspec.url_to_fs(uri)
    data = (tree / "a.csv").read_bytes()
    assert fs.cat_file(f"{path}/a.csv") == data
    assert pickle.loads(pickle.dumps(fs)).cat_file(f"{path}/a.csv") == data
    file = pickle.loads(pickle.dumps(fsspec.open(f"{uri}/a.csv")))
    assert file.open().read() == data
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fs.cat_file(f"{path}/a.csv")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 8


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_reads_with_the_instance_it_inherits(tree, uri):
    fs, path = fsspec.url_to_fs(uri)
    data = (tree / "a.csv").read_bytes()
    assert fs.cat_file(f"{path}/a.csv") == data
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write_end, fs.cat_file(f"{path}/a.csv"))
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        assert pipe.read() == data
    assert os.waitpid(child, 0)[1] == 0


def test_it_is_awaited_where_it_is_made_asynchronous(tree, uri):
    async def main():
        fs = fsspec.filesystem("sha1dir", asynchronous=True)
        path = fs._strip_protocol(uri)
        data = await fs._cat_file(f"{path}/a.csv")
        names = await fs._ls(path, detail=False)
        file = await fs.open_async(f"{path}/a.csv")
        first, rest = await file.read(10), await file.read()
        await file.close()
        return data, len(names), first + rest

    data = (tree / "a.csv").read_bytes()
    assert asyncio.run(main()) == (data, 5, data)


def test_layers_above_cache_and_copy(tree, uri, tmp_path):
    with fsspec.open(f"simplecache::{uri}/a.csv") as file:
        assert file.read() == (tree / "a.csv").read_bytes()
    fs, path = fsspec.url_to_fs(uri)
    fs.get(path, str(tmp_path / "out"), recursive=True)
    assert (tmp_path / "out/sub/x").read_bytes() == (tree / "sub/x").read_bytes()
    mapper = fsspec.get_mapper(uri)
    assert mapper["sub/x"] == (tree / "sub/x").read_bytes()
    assert "none" not in mapper


def test_options_choose_the_store(tree, tmp_path):
    store = ContentStore(tmp_path / "other")
    content = store.add_bytes(b"elsewhere")
    store.close()
    url = str(Link("sha1", content.sha1))
    with pytest.raises(FileNotFoundError):
        fsspec.open(url).open()
    with fsspec.open(url, store_dir=str(tmp_path / "other")) as file:
        assert file.read() == b"elsewhere"


# --- fsspec's own tests of what can be read ------------------------------------------------------


class Fixtures(AbstractFixtures):
    """The scenarios of fsspec's own suite, made here and stored."""

    @pytest.fixture
    def fs(self):
        return BytestagFileSystem()

    @pytest.fixture
    def local_path(self, tmp_path):
        return str(tmp_path)

    def stored(self, make, tmp_path):
        root = tmp_path / "scenario"
        root.mkdir()
        made = make(LocalFileSystem(auto_mkdir=True), os.path.join, str(root))
        path = BytestagFileSystem._strip_protocol(bytestag.store_dir(root))
        return path + made.removeprefix(str(root))

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, tmp_path):
        return self.stored(self._bulk_operations_scenario_0, tmp_path)

    @pytest.fixture
    def fs_glob_edge_cases_files(self, tmp_path):
        return self.stored(self._glob_edge_cases_files, tmp_path)

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, tmp_path):
        return self.stored(self._dir_and_file_with_same_name_prefix, tmp_path)

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, tmp_path):
        return self.stored(self._10_files_with_hashed_names, tmp_path)


class TestGet(Fixtures, AbstractGetTests):
    """``get`` in all its forms. What begins by writing is not for us, as one of these does."""

    test_get_directory_recursive = None
