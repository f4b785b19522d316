import asyncio
import contextlib
import http.client
import json
import os
import socket
import stat
import threading

import pytest

from bytestag.errors import BytestagError, NotFound, NotPermitted, StateInUse, StorageError
from bytestag.gateway import control, place
from bytestag.gateway.door import Door, failure
from bytestag.gateway.place import check_directory, door_place
from bytestag.gateway.sharing import ShareOrder
from bytestag.tables.landing import Exists


@contextlib.contextmanager
def failing(code):
    """Expect the error with a code."""
    with pytest.raises(BytestagError) as caught:
        yield
    assert caught.value.code == code


# --- Who may enter -------------------------------------------------------------------------------


def test_the_socket_and_its_directory_are_for_the_owner(opened):
    async def check(node):
        path = node.control._place.socket_path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert (await node.ask("GET", "/v1/status"))[
            "node_id"
        ] == node.client.identity.node_id.base16

    opened(check)


def test_another_user_is_refused(opened, monkeypatch):
    async def check(node):
        assert (await node.ask("GET", "/v1/status"))["contacts"] == 0
        monkeypatch.setattr(control, "peer_uid", lambda _request: os.getuid() + 1)
        for method, path in (("GET", "/v1/status"), ("POST", "/v1/fetch"), ("GET", "/nowhere")):
            with failing("not_permitted"):
                await node.ask(method, path)

    opened(check)


def test_the_system_says_who_is_at_the_other_end(opened, monkeypatch):
    seen = []
    asked = control.peer_uid

    def peer_uid(request):
        seen.append(asked(request))
        return seen[-1]

    monkeypatch.setattr(control, "peer_uid", peer_uid)

    async def check(node):
        await node.ask("GET", "/v1/status")

    opened(check)
    assert seen == [os.getuid()]


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(NotPermitted) as caught:
        check_directory(tmp_path)
    assert caught.value.hint == f"chmod 700 {tmp_path}"


def test_a_command_refuses_a_door_that_somebody_else_could_have_opened(opened, tmp_path):
    async def check(_node):
        (tmp_path / "node" / "run").chmod(0o770)
        with pytest.raises(NotPermitted):
            Door.find(tmp_path / "node")

    opened(check)


def test_without_unix_sockets_a_token_opens_a_loopback_port(opened, tmp_path):
    token_path = tmp_path / "node" / "run" / "control.json"

    def ask(port, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/v1/status", headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status

    async def check(node):
        assert (await node.ask("GET", "/v1/status"))["network"] == "local"
        assert stat.S_IMODE(token_path.stat().st_mode) == 0o600
        found = json.loads(token_path.read_text())
        port, right = found["port"], {"Authorization": f"Bearer {found['token']}"}
        offload = node.runtime.offload
        assert await offload(ask, port, **right) == 200
        assert await offload(ask, port) == 403
        assert await offload(ask, port, Authorization="Bearer x") == 403
        assert await offload(ask, port, Authorization="Bearer \xff") == 403
        assert await offload(ask, port, **right, Host="evil.example") == 403

    opened(check, is_unix=False)
    assert not token_path.exists()


# --- Where it is ---------------------------------------------------------------------------------


def test_a_path_too_long_for_a_socket_is_no_obstacle(opened, tmp_path):
    directory = tmp_path / ("long" * 30) / "state"

    async def check(node):
        assert len(str(node.control._place.socket_path)) > 107
        assert (await node.ask("GET", "/v1/shares")) == {"shares": []}

    opened(check, directory=directory)


def test_a_path_too_long_is_a_clear_error_where_there_is_no_way_around(tmp_path, monkeypatch):
    monkeypatch.setattr(place.os.path, "isdir", lambda _path: False)
    with pytest.raises(StorageError, match="too long"), place.short_path(tmp_path / ("x" * 120)):
        pass


def test_a_second_door_at_the_same_place_is_refused(opened):
    async def check(node):
        second = control.ControlDoor(
            node.client, node.shares, node.control._order, node.control._place
        )
        with pytest.raises(StateInUse):
            await second.__aenter__()
        assert (await node.ask("GET", "/v1/shares")) == {"shares": []}

    opened(check)


def test_a_stale_socket_is_replaced_and_another_file_is_not(opened, tmp_path):
    directory = tmp_path / "node" / "run"
    directory.mkdir(parents=True, mode=0o700)
    (tmp_path / "node").chmod(0o700)
    path = directory / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(path))

    async def check(node):
        assert await node.ask("GET", "/v1/shares") == {"shares": []}

    opened(check)
    path.write_text("precious")
    with pytest.raises(StorageError, match="no socket"):
        control._remove_stale(path)
    assert path.read_text() == "precious"


def test_the_door_of_a_given_state_directory_lies_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("BYTESTAG_HOME", str(tmp_path / "home"))
    assert door_place(None).directory == tmp_path / "home" / "runtime"
    assert door_place(tmp_path / "s").directory == tmp_path / "s" / "run"
    assert Door.find(tmp_path / "s") is None


# --- What can be asked ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/shares", {}),
        ("/v1/shares", {"path": "relative"}),
        ("/v1/shares", {"path": "/x\0y"}),
        ("/v1/shares", {"path": "/x", "copies": "8"}),
        ("/v1/shares", {"path": "/x", "copies": 0}),
        ("/v1/shares", {"path": "/x", "copies": True}),
        ("/v1/shares", {"path": "/x", "keep_seconds": -1}),
        ("/v1/shares", {"path": "/x", "known_nodes": ["nowhere"]}),
        ("/v1/shares", {"path": "/does/not/exist"}),
        ("/v1/fetch", {"dest": "/x"}),
        ("/v1/fetch", {"link": "nonsense", "dest": "/x"}),
        ("/v1/fetch", {"link": f"sha1://{'ab' * 20}"}),
        ("/v1/fetch", []),
    ],
)
def test_a_malformed_body_is_a_usage_error(opened, path, body):
    async def check(node):
        with failing("usage"):
            await node.stream(path, body)

    opened(check)


def test_a_body_is_bounded(opened):
    async def check(node):
        with failing("usage"):
            await node.stream("/v1/shares", {"path": "/" + "x" * control.BODY_BYTES_MAX})

    opened(check)


def test_an_unknown_path_is_a_usage_error(opened):
    async def check(node):
        with failing("usage"):
            await node.ask("GET", "/v2/status")
        with failing("usage"):
            await node.ask("GET", "/v1/find", link="nonsense")

    opened(check)


def test_what_nobody_holds_is_said_by_its_code(opened, tmp_path):
    async def check(node):
        body = {"link": f"sha1://{'ab' * 20}", "dest": str(tmp_path / "x"), "timeout": 5}
        with failing("unreachable"):
            await node.stream("/v1/fetch", body)
        with failing("unreachable"):
            await node.ask("GET", "/v1/find", link=body["link"])

    opened(check)


def test_a_bug_is_an_error_to_whoever_asked_and_no_end(opened, tmp_path):
    async def check(node):
        async def fail(*_arguments, **_options):
            raise ZeroDivisionError("a bug")

        node.client.fetch = node.client.find = fail
        body = {"link": f"sha1://{'ab' * 20}", "dest": str(tmp_path / "x")}
        with pytest.raises(BytestagError, match="ZeroDivisionError: a bug"):
            await node.stream("/v1/fetch", body)
        with pytest.raises(BytestagError, match="ZeroDivisionError: a bug"):
            await node.ask("GET", "/v1/find", link=body["link"])
        assert (await node.ask("GET", "/v1/status"))["shares"] == []

    opened(check)


def test_a_share_is_registered_and_stays_when_its_asker_leaves(opened, source):
    async def check(node):
        events = await node.stream("/v1/shares", {"path": str(source)}, stop_at="link")
        assert events[-1]["files"] == 2
        listed = (await node.ask("GET", "/v1/shares"))["shares"]
        assert listed == [{"path": str(source), "link": events[-1]["link"], "is_registered": True}]

    opened(check)

    async def check_again(node):
        assert [share["path"] for share in (await node.ask("GET", "/v1/shares"))["shares"]] == [
            str(source)
        ]
        answer = await node.ask("DELETE", "/v1/shares", path=str(source))
        assert answer == {"path": str(source), "was_shared": True}
        assert await node.ask("GET", "/v1/shares") == {"shares": []}
        answer = await node.ask("DELETE", "/v1/shares", path=str(source))
        assert not answer["was_shared"]

    opened(check_again)


def test_links_have_no_hints_if_none_are_wished(opened, source):
    async def check(node):
        body = {"path": str(source), "has_hints": False}
        events = await node.stream("/v1/shares", body, stop_at="link")
        assert "x.pe=" not in events[-1]["link"]
        assert "&n=" not in events[-1]["link"]

    opened(check)


def test_a_fetch_is_written_by_the_node_and_ended_with_its_asker(opened, source, tmp_path):
    async def check(node):
        link = (await node.stream("/v1/shares", {"path": str(source)}, stop_at="link"))[-1]["link"]
        body = {"link": link, "dest": str(tmp_path / "out")}
        events = await node.stream("/v1/fetch", body)
        assert events[-1]["path"] == str(tmp_path / "out")
        assert (tmp_path / "out" / "big").read_bytes() == (source / "big").read_bytes()

        ended = asyncio.Event()

        async def fetch(*_arguments, report, **_options):
            try:
                report(control.jobs.FetchProgress("found"))
                await asyncio.Event().wait()
            finally:
                ended.set()

        node.client.fetch = fetch
        await node.stream("/v1/fetch", body, stop_at="progress")
        async with asyncio.timeout(10):
            await ended.wait()

    opened(check)


def test_a_path_is_registered_though_its_asker_leaves_while_it_is_hashed(
    opened, source, monkeypatch
):

    async def check(node):
        scan = node.client.shared_files_table.scan
        waiting, go_on = threading.Event(), threading.Event()

        def slow_scan(*arguments):
            waiting.set()
            assert go_on.wait(20)
            return scan(*arguments)

        monkeypatch.setattr(node.client.shared_files_table, "scan", slow_scan)
        asking = asyncio.create_task(
            node.shares.add(ShareOrder(source, copies=1, keep_seconds=0), print)
        )
        assert await node.runtime.offload(waiting.wait, 20)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        assert node.shares.registered() == [source]
        go_on.set()
        async with asyncio.timeout(20):
            await node.shares._shares[source].hashed
        assert (await node.ask("GET", "/v1/shares"))["shares"][0]["link"]

    opened(check)


def test_what_cannot_be_shared_is_not_registered(opened, tmp_path):
    os.mkfifo(tmp_path / "fifo")

    async def check(node):
        with failing("storage"):
            await node.stream("/v1/shares", {"path": str(tmp_path / "fifo")})
        assert await node.ask("GET", "/v1/shares") == {"shares": []}
        assert node.shares.registered() == []

    opened(check)


def test_two_askers_of_one_path_both_hear_of_it(opened, source):
    async def check(node):
        first, second = [], []
        order = ShareOrder(source, copies=1, keep_seconds=0)
        await node.shares.add(order, first.append)
        job = await node.shares.add(order, second.append)
        links = [[e["link"] for e in heard if e["type"] == "link"] for heard in (first, second)]
        assert links == [[job.link, job.link], [job.link]]

    opened(check)


def test_who_asks_while_it_is_hashed_does_not_stop_it_for_the_first(opened, source, monkeypatch):
    async def check(node):
        scan = node.client.shared_files_table.scan
        waiting, go_on = threading.Event(), threading.Event()

        def slow_scan(*arguments):
            waiting.set()
            assert go_on.wait(20)
            return scan(*arguments)

        monkeypatch.setattr(node.client.shared_files_table, "scan", slow_scan)
        order = ShareOrder(source, copies=1, keep_seconds=0)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            first = group.create_task(node.shares.add(order, print))
            assert await node.runtime.offload(waiting.wait, 20)
            second = group.create_task(node.shares.add(order, repr))
            while len(node.shares._shares[source].listeners) < 2:
                await asyncio.sleep(0.01)
            go_on.set()
        assert first.result() is second.result()

    opened(check)


def test_every_error_of_the_node_reaches_who_asked():
    for kind in (Exists, NotFound, NotPermitted, StateInUse):
        event = {"code": kind.code, "message": "why", "hint": "what to do", "exit": 7}
        error = failure(event)
        assert isinstance(error, kind)
        assert (str(error), error.hint, error.exit_status) == ("why", "what to do", 7)
