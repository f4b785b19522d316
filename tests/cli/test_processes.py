"""The program as people run it: real processes on loopback, each with a home of its own."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from bytestag.hashing import sha1

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.rst"

pytestmark = pytest.mark.slow


def tree(directory):
    return {
        path.relative_to(directory): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def documented_keys():
    """Return object -> keys, as the page lists them."""
    rows = re.findall(r"\* - ``([a-z -]+)``\n\s+- ``([a-z0-9_ ]+)``", PAGE.read_text("utf-8"))
    return {name: set(keys.split()) for name, keys in rows}


def network(programs, number=3):
    """Start nodes that know each other; return them and the address of the first."""
    first, address = programs.node("node-0")
    nodes = [first]
    for i in range(1, number):
        nodes.append(programs.node(f"node-{i}", "--known-node", address)[0])
    return nodes, address


# --- Sharing and fetching ------------------------------------------------------------------------


def test_a_share_outlives_its_publisher_and_the_publishers_first_reader(programs, source, tmp_path):
    nodes, address = network(programs)
    code, links, notes = programs.run(
        "publisher", "share", source, "--host", "127.0.0.1", "--known-node", address,
        "--until-copies", "2",
    )  # fmt: skip
    assert code == 0, notes
    assert len(links) == 1
    assert any("to push" in note and "8 copies" in note for note in notes)
    assert nodes[-1].end(signal.SIGKILL) == -signal.SIGKILL

    dest = tmp_path / "fetched"
    code, answer, notes = programs.run("reader", "fetch", links[0], dest, "--known-node", address)
    assert (code, answer) == (0, [str(dest)]), notes
    assert tree(dest) == tree(source)

    code, answer, notes = programs.run("reader", "fetch", links[0], dest, "--known-node", address)
    assert (code, answer) == (0, [str(dest)]), notes
    assert tree(dest) == tree(source)
    assert any("here already" in note for note in notes)

    for node in nodes[:-1]:
        assert node.end() == 0


def test_share_goes_through_a_running_node_and_survives_its_restart(programs, source, tmp_path):
    node, address = programs.node("one")
    share = programs.start("one", "share", source, "--copies", "1")
    link = share.line()
    share.line("goes on sharing", "stderr")
    assert share.end(signal.SIGINT) == 0
    assert node.end() == 0

    node, again = programs.node("one")
    assert again == address
    _, status, _ = programs.run("one", "status", "--json")
    assert json.loads(status[0])["shares"] == [str(source)]
    code, _, notes = programs.run("two", "fetch", link, tmp_path / "out", "--known-node", address)
    assert code == 0, notes
    assert tree(tmp_path / "out") == tree(source)


def test_fetch_goes_through_a_running_node(programs, source, tmp_path):
    _, address = programs.node("one", "--share-dir", source, "--initial-scan")
    programs.node("two", "--known-node", address)
    _, found, _ = programs.run("one", "share", source / "big", "--until-copies", "1")
    code, answer, notes = programs.run("two", "fetch", found[0], cwd=tmp_path)
    assert code == 0, notes
    assert answer == [str(tmp_path / "big")]
    assert (tmp_path / "big").read_bytes() == (source / "big").read_bytes()
    assert not (programs.home("two") / "state" / "client.key").exists()

    programs.node("three")
    bare = found[0].split("?")[0] + "?net=local"
    assert programs.run("three", "find", bare)[0] == 4
    assert programs.run("three", "find", found[0], "--no-hints")[0] == 4
    assert programs.run("three", "find", bare, "--known-node", address)[0] == 0

    code, answer, _ = programs.run("two", "find", found[0], "--json")
    node_ids = [holder["node_id"] for holder in json.loads(answer[0])["holders"]]
    assert code == 0
    assert node_ids
    assert len(set(node_ids)) == len(node_ids)


def test_share_without_peers_prints_the_link_warns_and_stays(programs, source):
    share = programs.start("alone", "share", source / "a.txt", source, "--host", "127.0.0.1")
    assert "/a.txt?t=f" in share.line()
    assert "/source?t=d" in share.line()
    share.line("no peers are known", "stderr")
    share.line("not safe to leave", "stderr")
    assert share.process.poll() is None
    assert share.end(signal.SIGTERM) == 0


def test_a_changed_share_tells_its_new_link(programs, source):
    share = programs.start("alone", "share", source, "--host", "127.0.0.1", "--json")
    first = json.loads(share.line('"link"'))
    (source / "more").write_bytes(b"new")
    second = json.loads(share.line('"type":"link"'))
    assert second["path"] == first["path"]
    assert second["link"] != first["link"]
    assert share.end(signal.SIGINT) == 0


def test_two_fetches_of_one_user_run_at_the_same_time(programs, source, tmp_path):
    _, address = programs.node("one", "--initial-scan")
    share = programs.start("one", "share", source)
    link = share.line()
    fetches = [
        programs.start("reader", "fetch", link, tmp_path / f"out-{i}", "--known-node", address)
        for i in range(3)
    ]
    assert [fetch.code() for fetch in fetches] == [0, 0, 0], [fetch.heard for fetch in fetches]
    assert all(tree(tmp_path / f"out-{i}") == tree(source) for i in range(3))


def test_a_path_behind_a_directorys_name_fetches_what_lies_there(programs, source, tmp_path):
    _, address = programs.node("one")
    link = programs.start("one", "share", source).line()
    inner = link.replace("/source?", "/source/big?")
    code, answer, notes = programs.run("two", "fetch", inner, cwd=tmp_path)
    assert (code, answer) == (0, [str(tmp_path / "big")]), notes
    assert (tmp_path / "big").read_bytes() == (source / "big").read_bytes()
    missing = link.replace("/source?", "/source/none?")
    assert programs.run("two", "fetch", missing, "--known-node", address)[0] == 3


def test_different_content_is_kept_without_force(programs, source, tmp_path):
    programs.node("one")
    link = programs.start("one", "share", source / "a.txt").line()
    dest = tmp_path / "mine"
    dest.write_bytes(b"my own")
    code, answer, notes = programs.run("one", "fetch", link, dest)
    assert (code, answer) == (1, [])
    assert any("--force" in note for note in notes)
    assert dest.read_bytes() == b"my own"
    assert programs.run("one", "fetch", link, dest, "--force")[0] == 0
    assert dest.read_bytes() == (source / "a.txt").read_bytes()


def test_unreadable_files_are_warnings(programs, source):
    os.symlink("nowhere", source / "dangling")
    (source / "bad\udcff").write_bytes(b"no Unicode")
    share = programs.start("alone", "share", source, "--host", "127.0.0.1")
    assert share.line()
    share.line("warning", "stderr")
    assert share.end() == 0


# --- Refusals ------------------------------------------------------------------------------------


def test_a_second_node_on_the_same_state_is_refused_with_a_hint(programs, source):
    programs.node("one")
    code, answer, notes = programs.run("one", "node", "--host", "127.0.0.1")
    assert (code, answer) == (1, [])
    assert any("--state-dir" in note for note in notes)


def test_share_of_its_own_keeps_a_node_from_the_same_state(programs, source):
    programs.start("one", "share", source, "--host", "127.0.0.1").line()
    assert programs.run("one", "node", "--host", "127.0.0.1")[0] == 1
    assert programs.run("one", "share", source, "--host", "127.0.0.1")[0] == 1


def test_a_port_in_use_is_an_error_with_a_hint(programs):
    _, address = programs.node("one")
    port = address.rpartition(":")[2]
    code, _, notes = programs.run("two", "node", "--host", "127.0.0.1", "--port", port)
    assert code == 1
    assert any("--port" in note for note in notes)


def test_another_network_than_the_running_nodes_is_refused(programs, source):
    programs.node("one")
    assert programs.run("one", "share", source, "--network", "other")[0] == 2


def test_what_nobody_holds_is_not_found_and_nobody_is_unreachable(programs, tmp_path):
    _, address = programs.node("one")
    link = f"sha1://{'ab' * 20}"
    assert programs.run("r", "fetch", link, tmp_path / "x", "--known-node", address)[0] == 3
    code, _, said = programs.run("r", "find", link, "--known-node", address)
    assert code == 3
    assert "hint" in said[-1]
    assert programs.run("r", "fetch", link, tmp_path / "x", "--host", "127.0.0.1")[0] == 4
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("option", ["--json", "--hints"])
def test_a_share_whose_reader_leaves_ends_in_silence(programs, source, tmp_path, option):
    (tmp_path / "other").write_bytes(bytes(50_000_000))
    paths = source, tmp_path / "other"
    share = programs.start("s", "share", *paths, option, "--host", "127.0.0.1", is_read=False)
    assert share.process.stdout.readline()
    share.process.stdout.close()
    assert share.code() == 1
    assert not [line for line in share.rest("stderr") if "rror" in line or "Traceback" in line]


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_an_interrupted_fetch_says_so(programs, tmp_path, number, expected):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(30)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        link = f"sha1://{'ab' * 20}"
        fetch = programs.start("r", "fetch", link, tmp_path / "x", "--known-node", address)
        silent.recvfrom(2048)  # it waits for our answer now
        assert fetch.end(number) == expected
    assert not any("Traceback" in line for _, line in fetch.heard)


def test_a_node_ends_cleanly_on_both_signals(programs):
    for number in (signal.SIGINT, signal.SIGTERM):
        node, _ = programs.node("one")
        assert node.end(number) == 0
    assert not (programs.home("one") / "runtime" / "control.sock").exists()


def test_a_socket_left_by_a_killed_node_is_replaced(programs):
    node, _ = programs.node("one")
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    assert (programs.home("one") / "runtime" / "control.sock").exists()
    assert programs.run("one", "status")[0] == 4
    programs.node("one")
    assert programs.run("one", "status")[0] == 0


def test_a_node_killed_under_a_share_with_a_goal_has_gone_away(programs, source):
    node, _ = programs.node("one")
    share = programs.start("one", "share", source, "--until-copies", "3")
    share.line("bytestag://")
    node.end(signal.SIGKILL)
    assert share.code() == 4
    share.line("went away", "stderr")


# --- JSON ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_json_of_every_command_has_the_keys_of_its_page(programs, source, tmp_path):
    seen = {}

    def note(name, text):
        found = json.loads(text)
        if "type" in found:
            name = f"{name} {found['type']}" if found["type"] != "error" else "error"
            if name == "share progress":
                name += " hashing" if found["phase"] == "hashing" else " publishing"
        seen.setdefault(name, set()).update(found)

    node = programs.start("one", "node", "--host", "127.0.0.1", "--cache-size", "9MB", "--json")
    text = node.line()
    note("node", text)
    address = "127.0.0.1:{}".format(json.loads(text)["address"][1])
    programs.node("two", "--known-node", address)
    lines = programs.run("one", "share", source, "--until-copies", "1", "--json")[1]
    for line in lines:
        note("share", line)
    link = next(found["link"] for line in lines if "link" in (found := json.loads(line)))
    for line in programs.run("one", "fetch", link, tmp_path / "out", "--json")[1]:
        note("fetch", line)
    note("find", programs.run("one", "find", link, "--json")[1][0])
    big = f"sha1://{sha1((source / 'big').read_bytes()).hex()}"
    info = json.loads(programs.run("three", "info", big, "--known-node", address, "--json")[1][0])
    assert documented_keys()["info"] - info.keys() == {"path", "origin", "files"}
    assert info.keys() <= documented_keys()["info"]
    note("status", programs.run("one", "status", "--json")[1][0])
    note("status", programs.run("none", "status", "--json")[1][0])
    code, demo, _ = programs.run("none", "demo", "--json", TMPDIR=str(tmp_path))
    note("demo", demo[0])
    assert code == 0
    documented = documented_keys()
    assert seen == {name: documented[name] for name in seen}


def test_the_demo_shows_what_it_promises_and_leaves_nothing_behind(programs, tmp_path):
    place = tmp_path / "tmp"
    place.mkdir()
    code, answer, notes = programs.run("none", "demo", "--json", TMPDIR=str(place))
    shown = json.loads(answer[0])
    assert len(answer) == 1
    assert code == 0, notes
    assert shown["ok"]
    assert shown["publisher_stopped"]
    assert shown["verified"]
    assert shown["nodes"] >= 20
    assert shown["copies_min"] >= 3
    assert shown["files"] > 10
    assert shown["seconds"] < 30
    assert list(place.iterdir()) == []
    assert not programs.home("none").exists()
