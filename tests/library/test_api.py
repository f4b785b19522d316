"""The Python door."""

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest

import bytestag
from bytestag import aio, api
from bytestag.errors import FormatError, NoSpace, NotFound, StorageError, UsageError
from bytestag.hashing import sha1
from bytestag.library.config import LibraryConfig


def test_values_come_back(tmp_path):
    assert bytestag.load_text(bytestag.store_text("some text")) == "some text"
    value = {"a": [1, 2.5, None, "é"]}
    assert bytestag.load_object(bytestag.store_object(value)) == value
    array = np.arange(12.0).reshape(3, 4)
    assert np.array_equal(bytestag.load_npy(bytestag.store_npy(array)), array)
    assert bytestag.load_bytes(bytestag.store_bytes(b"0123456789"), 2, 5) == b"234"
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,2\n")
    uri = bytestag.store_file(path)
    assert uri == f"sha1://{sha1(path.read_bytes()).hex()}/x.csv"
    assert bytestag.load_file(uri) != str(path)
    dest = bytestag.load_file(uri, tmp_path / "dest")
    assert (tmp_path / "dest").read_bytes() == path.read_bytes()
    assert dest == str(tmp_path / "dest")


def test_names_follow_kachery():
    uri = bytestag.store_text("some text")
    assert uri == "sha1://37aa63c77398d954473262e1a0057c1e632eda77/file.txt"
    uri = bytestag.store_object({"a": ["some", "object", "that", "can", "be", "json-serialized"]})
    assert uri.startswith("sha1://722bb2af")


@pytest.mark.parametrize(
    "form",
    [
        "sha1://{0}",
        "sha1://{0}/any.name",
        "sha1:////{0}/any",
        "sha1://{0}?label=x.csv",
        "sha1://{0}?manifest=" + "1" * 40,
        "kachery:zone:sha1:{0}:label",
        "{0}",
        "bytestag://{0}/name?t=f",
    ],
)
def test_every_form_of_a_link_names_the_same(form):
    text = bytestag.load_text(bytestag.store_text("some text"))
    assert bytestag.load_text(form.format("37aa63c77398d954473262e1a0057c1e632eda77")) == text


def test_md5_names_what_is_here():
    uri = api.store_bytes(b"x", algorithm="md5")
    assert uri == "md5://9dd4e461268c8034f5c8564e155c67a6/file.dat"
    assert bytestag.load_bytes(uri) == b"x"
    with pytest.raises(NotFound):
        bytestag.load_file("md5://" + "0" * 32)


def test_directories_are_snapshots(source, tmp_path):
    uri = bytestag.store_dir(source)
    assert uri == bytestag.store_dir(source)
    assert uri.startswith("sha1dir://")
    assert uri.endswith(".source")
    tree = bytestag.read_dir(uri)
    assert sorted(tree["files"]) == ["a.txt", "big.bin", "empty"]
    assert tree["dirs"]["hollow"] == {"files": {}, "dirs": {}}
    assert bytestag.read_dir(uri, recursive=False)["dirs"]["sub"] == {}
    assert bytestag.read_dir(f"{uri}/sub/deep")["files"]["x.csv"]["size"] == 40
    assert bytestag.load_bytes(f"{uri}/a.txt") == (source / "a.txt").read_bytes()
    assert bytestag.load_bytes(f"{uri}/sub/donn%C3%A9es%2050%25.csv", 0, 3)
    made = bytestag.load_dir(uri, tmp_path / "made")
    assert made == str(tmp_path / "made")
    info = bytestag.get_file_info(uri)
    assert (info["type"], info["files"]) == ("directory", 5)


def test_a_file_object_is_complete(source):
    uri = bytestag.store_file(source / "big.bin")
    data = (source / "big.bin").read_bytes()
    with bytestag.open_file(uri) as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert file.read(3) == data[:3]
        assert file.tell() == 3
        assert file.readline() == io.BytesIO(data[3:]).readline()
        assert file.seek(-4, io.SEEK_END) == len(data) - 4
        assert file.read() == data[-4:]
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_failures_are_exceptions_with_reasons(tmp_path):
    with bytestag.using(local_only=True):
        for call in (bytestag.load_file, bytestag.load_text, bytestag.get_file_info):
            with pytest.raises(NotFound) as caught:
                call("sha1://" + "0" * 40)
            assert caught.value.hint
            assert isinstance(caught.value, FileNotFoundError)
    for name in ("sha1://xyz", "sha9://" + "0" * 40, "md5://" + "0" * 40):
        with pytest.raises(UsageError):
            bytestag.load_file(name)
    with pytest.raises(NotFound, match="no such file"):
        bytestag.load_file("no/such/file")
    with pytest.raises(NotFound):
        bytestag.store_file(tmp_path / "none")
    with pytest.raises(UsageError, match="a directory"):
        bytestag.load_file(tmp_path)
    with pytest.raises(FormatError, match="not JSON"):
        bytestag.load_object(bytestag.store_text("{"))
    with pytest.raises(FormatError, match="not UTF-8"):
        bytestag.load_text(bytestag.store_bytes(b"\xff"))
    with pytest.raises(UsageError, match="not JSON"):
        bytestag.store_object({"a": object()})
    with pytest.raises(UsageError, match="configured"):
        bytestag.set_config(stoer_dir="x")
    with pytest.raises(AttributeError):
        _ = bytestag.nothing


def test_values_that_are_made_to_break_their_readers_are_errors_of_ours():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match="not JSON"):
        bytestag.store_object(deep)
    with pytest.raises(FormatError, match="not JSON"):
        bytestag.load_object(bytestag.store_text("[" * 100_000))
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }"
    for header in (shape, b"{'a':"):
        array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        with pytest.raises(FormatError, match="cannot be loaded"):
            bytestag.load_npy(bytestag.store_bytes(array))


@pytest.mark.parametrize("timeout", ["soon", float("nan"), float("inf"), 0, -1])
def test_a_timeout_is_a_number_of_seconds(timeout, monkeypatch):
    with pytest.raises(UsageError, match="timeout"):
        bytestag.set_config(timeout=timeout)
    monkeypatch.setenv("BYTESTAG_TIMEOUT", str(timeout))
    with pytest.raises(UsageError):
        LibraryConfig.from_environment()


def test_nodes_are_given_as_a_list_or_as_the_variable_has_them():
    for nodes in ("127.0.0.1:4000 127.0.0.2:4001", ["127.0.0.1:4000", ("127.0.0.2", 4001)]):
        with bytestag.using(known_nodes=nodes):
            assert bytestag.get_config().known_nodes == (("127.0.0.1", 4000), ("127.0.0.2", 4001))


def test_nothing_is_unpickled(tmp_path):
    with pytest.raises(UsageError, match="cannot be stored"):
        bytestag.store_npy(np.array([object()], dtype=object))
    np.save(tmp_path / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="cannot be loaded"):
        bytestag.load_npy(bytestag.store_file(tmp_path / "evil.npy"))
    with pytest.raises(FormatError, match="NPY"):
        bytestag.load_npy(bytestag.store_bytes(b"PK\x03\x04"))


def test_a_linked_file_that_changes_is_not_served_any_more(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"before")
    uri = bytestag.link_file(path)
    assert bytestag.load_file(uri) == str(path)
    path.write_bytes(b"after!")
    with bytestag.using(local_only=True), pytest.raises(NotFound):
        bytestag.load_file(uri)


def test_a_linked_file_that_changes_under_its_reader_is_an_error(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"A" * 3_000_000)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with bytestag.open_file(bytestag.link_file(path)) as file:
        assert file.read(2) == b"AA"
        path.write_bytes(b"B" * 3_000_000)
        file.seek(2_000_000)
        with pytest.raises(NotFound, match="changed"):
            file.read(2)


def test_a_linked_file_that_changes_while_it_is_copied_is_no_copy(tmp_path, monkeypatch):
    path, dest = tmp_path / "x", tmp_path / "copy"
    path.write_bytes(b"before")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    uri = bytestag.link_file(path)

    def change_and_copy(source, temporary):
        path.write_bytes(b"after!")
        temporary.write_bytes(path.read_bytes())

    monkeypatch.setattr(shutil, "copyfile", change_and_copy)
    with pytest.raises(NotFound, match="changed"):
        bytestag.load_file(uri, dest)
    assert not dest.exists()


def test_a_path_is_a_name(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([1]))
    assert bytestag.load_object(str(path)) == [1]
    assert bytestag.load_bytes(path, 0, 1) == b"["
    assert bytestag.get_file_info(path)["sha1"] == sha1(b"[1]").hex()


def test_it_works_inside_a_running_loop_and_as_coroutines():
    async def main():
        uri = bytestag.store_text("in a loop")  # a notebook's cell
        assert bytestag.load_text(uri) == "in a loop"
        assert await aio.load_text(uri) == "in a loop"
        return await asyncio.gather(*(aio.store_text(str(n)) for n in range(20)))

    assert len(set(asyncio.run(main()))) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_coroutines_go_on_in_a_forked_child():
    uri = asyncio.run(aio.store_text("before the fork"))
    child = os.fork()
    if not child:
        signal.alarm(10)
        os._exit(asyncio.run(aio.load_text(uri)) != "before the fork")
    assert os.waitpid(child, 0)[1] == 0


def test_a_place_that_cannot_be_is_an_error_of_ours(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "none")
    (tmp_path / "tree").mkdir()
    text, tree = bytestag.store_text("x"), bytestag.store_dir(tmp_path / "tree")
    for place in (tmp_path / "file" / "x", tmp_path / "nowhere"):
        with pytest.raises(StorageError, match="cannot write"):
            bytestag.load_dir(tree, place)
    with pytest.raises(StorageError, match="no directory"):
        bytestag.load_file(text, tmp_path / "file" / "x")

    def fill(*_paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", fill)
    with pytest.raises(NoSpace):
        bytestag.load_file(text, tmp_path / "copy")


def test_what_is_no_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(StorageError, match="no file"):
        bytestag.load_file(bytestag.store_text("x"), pipe)
    assert pipe.is_fifo()


def test_a_name_that_no_file_can_have_is_not_found():
    with pytest.raises(NotFound, match="no such file"):
        bytestag.load_file("a" * 5000)


def test_threads_share_one_library():
    uri = bytestag.store_bytes(bytes(100_000))
    found = []

    def read():
        found.append(len(bytestag.load_bytes(uri, 50_000)))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [50_000] * 8


def test_progress_is_told(tmp_path, capsys):
    path = tmp_path / "x"
    path.write_bytes(bytes(3_000_000))
    told = []
    uri = bytestag.store_file(path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (3_000_000, 3_000_000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    bytestag.load_file(uri, progress=True)
    assert capsys.readouterr().out == ""


def test_importing_the_package_imports_nothing_heavy():
    import subprocess
    import sys

    program = (
        "import sys, bytestag\n"
        "bytestag.load_text(bytestag.store_text('x'))\n"
        "heavy = {'sqlalchemy', 'aiohttp', 'cryptography', 'rich', 'click', 'numpy', 'kademlia'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_pooch_downloads(tmp_path):
    uri = bytestag.store_text("x")
    bytestag.pooch_downloader(uri, str(tmp_path / "out"), None)
    assert (tmp_path / "out").read_text() == "x"
    buffer = io.BytesIO()
    bytestag.pooch_downloader(uri, buffer, None)
    assert buffer.getvalue() == b"x"
