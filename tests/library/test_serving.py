"""What one user stores, another one reads by its hash alone, from a node that runs."""

import json
import os
from contextlib import closing

import bytestag
from bytestag.hashing import sha1
from bytestag.library.telling import Teller
from bytestag.store.content import ContentStore
from bytestag.uri import Link


def test_a_node_serves_what_its_user_stored(programs, tmp_path):
    first, second = tmp_path / "first.bin", tmp_path / "second.txt"
    first.write_bytes(bytes(range(256)) * 3000)
    second.write_text("stored while the node runs")
    code, (link,), _ = programs.run("one", "store", first)
    assert code == 0
    _, address = programs.node("one")
    _, other = programs.node("two", "--known-node", address)
    _, (late,), _ = programs.run("one", "store", second)

    def read(link, **options):
        return programs.run("three", "load", link, "--known-node", other, **options)

    for stored, wanted in ((first, link), (second, late)):
        for _ in range(20):
            code, answer, notes = read(wanted)
            if code == 0:
                break
        assert code == 0, notes
        with open(answer[0], "rb") as file:
            assert file.read() == stored.read_bytes()

    code, answer, _ = programs.run("three", "find", link, "--known-node", other, "--json")
    assert json.loads(answer[0])["providers"]
    assert programs.run("one", "status", "--json")[1]
    assert json.loads(programs.run("one", "status", "--json")[1][0])["shares"] == []


def test_a_file_that_is_linked_is_served_as_long_as_it_does_not_change(programs, tmp_path):
    path = tmp_path / "linked.bin"
    path.write_bytes(bytes(range(256)) * 3000)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    _, address = programs.node("one")
    _, (link,), _ = programs.run("one", "store", "--link", path)
    code, answer, notes = programs.run("two", "load", link, "--known-node", address)
    assert code == 0, notes
    with open(answer[0], "rb") as file:
        assert file.read() == path.read_bytes()
    path.write_bytes(bytes(768_000))
    code, _, _ = programs.run("three", "load", link, "--known-node", address)
    assert code in (3, 5)


def test_the_node_is_told_of_what_python_links_to(programs, tmp_path, monkeypatch):
    _, address = programs.node("one")
    monkeypatch.setenv("BYTESTAG_HOME", str(programs.home("one")))
    links = []
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(os.urandom(5000))
        links.append(bytestag.link_file(tmp_path / name))
    bytestag.api.close()
    for link in links:
        code, _, notes = programs.run("two", "load", link, "--known-node", address)
        assert code == 0, notes


def test_much_news_is_told_now_and_then_and_the_last_at_the_end():
    told = []
    teller = Teller(told.append)
    for now in (0.0, 1.0, 1.9, 2.0, 3.0):
        teller.note(None, now)
    assert len(told) == 2
    teller.flush()
    teller.flush()
    assert len(told) == 3


def test_what_python_links_to_is_served_though_nobody_tells_the_node(programs, tmp_path):
    path = tmp_path / "linked.bin"
    path.write_bytes(os.urandom(5000))
    _, address = programs.node("one")
    with closing(ContentStore(programs.home("one") / "data" / "store")) as store:
        link = f"sha1://{store.add_file(path, is_linked=True).sha1.hex()}"
        store.add_bytes(b"anything: the node looks")
    for _ in range(20):
        code, _, notes = programs.run("two", "load", link, "--known-node", address)
        if code == 0:
            break
    assert code == 0, notes


def test_a_node_that_must_not_serve_the_store_does_not(programs, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(5000))
    _, (link,), _ = programs.run("one", "store", path)
    _, address = programs.node("one", "--no-serve-store")
    code, _, _ = programs.run("three", "load", link, "--known-node", address)
    assert code == 3


def test_a_node_serves_the_store_that_the_configuration_file_names(programs, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(os.urandom(5000))
    config = programs.home("one") / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f"store_dir = {json.dumps(str(tmp_path / 'elsewhere'))}\n")
    _, (link,), _ = programs.run("one", "store", path)
    _, address = programs.node("one")
    for _ in range(20):
        code, _, notes = programs.run("two", "load", link, "--known-node", address)
        if code == 0:
            break
    assert code == 0, notes


def test_a_lone_node_finds_what_it_serves_itself(programs, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(bytes(5000))
    _, (link,), _ = programs.run("one", "store", path)
    _, address = programs.node("one", "--share-dir", path, "--initial-scan")
    code, answer, notes = programs.run("one", "find", link, "--json")
    assert code == 0, notes
    assert [holder["address"] for holder in json.loads(answer[0])["holders"]] == [address]


def test_a_lone_node_reads_its_own_share_of_many_parts_by_its_hash_alone(programs, tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir()
    content = os.urandom(3_000_000)
    (directory / "large").write_bytes(content)
    for number in range(3000):  # so that the manifest has parts, too
        (directory / f"{number} {'x' * 200}").write_bytes(b"%d" % number)
    programs.node("one", "--share-dir", directory, "--initial-scan", "--no-serve-store")
    link = f"sha1://{sha1(content).hex()}"
    code, answer, notes = programs.run("one", "load", link)
    assert code == 0, notes
    with open(answer[0], "rb") as file:
        assert file.read() == content
    shared = Link.parse(programs.start("one", "share", directory).line())
    code, listed, notes = programs.run("one", "ls", f"sha1dir://{shared.key}")
    assert (code, len(listed)) == (0, 3001), notes


def test_a_node_serves_the_store_it_is_given_and_none_that_it_had_before(programs, tmp_path):
    links = {}
    for name in ("old", "new"):
        given = {"BYTESTAG_STORE_DIR": str(tmp_path / name)}
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode() * 4000)
        code, (links[name],), _ = programs.run("one", "store", path, **given)
        assert code == 0
        node = programs.start(
            "one", "node", "--host", "127.0.0.1", "--cache-size", "64MiB", **given
        )
        address = node.line()
        for _ in range(20):
            code, _, notes = programs.run("two", "load", links[name], "--known-node", address)
            if code == 0:
                break
        assert code == 0, notes
        if name == "new":
            code, _, _ = programs.run("three", "load", links["old"], "--known-node", address)
            assert code == 3
        assert node.end() == 0
