import asyncio
import threading

import pytest

from bytestag.crypto.identity import DONOR
from bytestag.daemon.nodes import open_client, open_node
from bytestag.daemon.settings import NodeSettings
from bytestag.dht.publishing import PublishOutcome
from bytestag.dht.routing import Contact
from bytestag.errors import Incomplete, StorageError, Timeout, Unreachable, UsageError
from bytestag.events.runtime import system_runtime
from bytestag.gateway import events, jobs, sharing
from bytestag.gateway.events import Throttle
from bytestag.gateway.shares import forget_others
from bytestag.gateway.sharing import ShareJob, ShareOrder
from bytestag.gateway.streams import _Events
from bytestag.uri import Link


@pytest.fixture
def with_node(tmp_path):
    """Run ``await check(client)`` with a node that shares."""

    def run(check, **settings):
        async def main():
            runtime = system_runtime(4)
            told = NodeSettings(host="127.0.0.1", state_directory=tmp_path / "state", **settings)
            try:
                async with open_node(told, runtime, is_donor=False) as client:
                    await check(client)
            finally:
                runtime.close()

        asyncio.run(main())

    return run


def test_a_goal_that_is_not_reached_ends_with_the_counts(with_node, source, monkeypatch):
    monkeypatch.setattr(sharing, "STALLED_SECONDS", 0.05)
    heard = []

    async def check(client):
        job = ShareJob(client, ShareOrder(source, copies=3, keep_seconds=0), heard.append)
        await job.hash()
        job._note_copies(PublishOutcome(5, 3, donors=1, copies=[2, 3, 0, 0]))
        with pytest.raises(Incomplete) as caught:
            await job.reach(2)
        assert caught.value.exit_status == 7
        assert "0 of 5 values have 2 copies (2 with 0, 3 with 1)" in caught.value.message

    with_node(check)
    assert (heard[-1]["type"], heard[-1]["ok"], heard[-1]["copies"]) == (
        "result",
        False,
        [2, 3, 0, 0],
    )


def test_each_new_copy_gives_a_goal_more_time(with_node, source, monkeypatch):
    monkeypatch.setattr(sharing, "STALLED_SECONDS", 10.0)
    heard = []

    async def check(client):
        clock = [0.0]
        object.__setattr__(client.runtime, "monotonic", lambda: clock[0])
        job = ShareJob(client, ShareOrder(source, copies=2, keep_seconds=0), heard.append)
        reaching = asyncio.ensure_future(job.reach(2))
        await asyncio.sleep(0)
        for clock[0], copies in ((9.0, [1, 1, 0]), (18.0, [0, 2, 0]), (27.0, [0, 0, 2])):
            job._note_copies(PublishOutcome(2, 2, copies=copies))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await reaching

    with_node(check)
    assert heard[-1]["ok"]


def test_hashing_ends_soon_after_it_is_stopped(with_node, source):
    async def check(client):
        job = ShareJob(client, ShareOrder(source, copies=1, keep_seconds=0), lambda event: None)
        job.stop()
        with pytest.raises(StorageError, match="stopped"):
            await job.hash()

    with_node(check)


def test_what_is_not_there_is_a_usage_error(with_node, tmp_path):
    async def check(client):
        order = ShareOrder(tmp_path / "nothing", copies=1, keep_seconds=0)
        with pytest.raises(UsageError):
            await ShareJob(client, order, lambda event: None).hash()

    with_node(check)


def test_a_link_says_the_default_route_where_nobody_told_an_address(with_node, source):
    async def check(client):
        client.sharing.hints = list
        order = ShareOrder(source, copies=1, keep_seconds=0, default_host="192.0.2.7")
        event = await ShareJob(client, order, lambda event: None).hash()
        link = Link.parse(event["link"])
        assert link.hints == (("192.0.2.7", client.address[1]),)
        assert link.node_id == client.identity.node_id

    with_node(check)


def test_what_an_earlier_run_shared_is_shared_no_longer(with_node, source, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"private")

    async def check(client):
        await client.sharing.add(source)
        await client.sharing.add(other)
        await forget_others(client, [source])
        assert client.shared_files_table.shared_directories == [source]

    with_node(check)


def test_a_fetch_that_hears_nothing_in_time_says_whether_peers_are_known(with_node, tmp_path):
    link = Link.parse(f"sha1://{'ab' * 20}")

    async def never(*_arguments, **_options):
        await asyncio.Event().wait()

    async def fetch(client):
        return await jobs.fetch(client, link, tmp_path, print, first_byte_seconds=0.02)

    async def check(client):
        client.fetch = never
        with pytest.raises(Unreachable):
            await fetch(client)
        async with open_client(
            NodeSettings(known_nodes=(client.address,), state_directory=tmp_path / "reader"),
            link,
            client.runtime,
        ) as reader:
            await reader.join()
            reader.fetch = never
            with pytest.raises(Timeout):
                await fetch(reader)

    with_node(check)


# --- Events --------------------------------------------------------------------------------------


def test_safe_to_leave_needs_six_copies_and_all_that_can_be():
    def event(copies, donors, wanted=8):
        outcome = PublishOutcome(1, wanted, donors, [0] * copies + [1])
        return events.publishing_event("published", "/x", outcome, 0)

    assert event(8, 20)["is_safe_to_leave"]
    assert event(6, 6)["is_safe_to_leave"]
    assert not event(6, 20)["is_safe_to_leave"]
    assert not event(5, 5)["is_safe_to_leave"]
    assert event(2, 3)["availability_min"] == pytest.approx(0.91)


def test_the_chance_of_the_whole_is_that_of_all_values():
    outcome = PublishOutcome(3, 2, 2, [0, 1, 2])
    event = events.publishing_event("published", "/x", outcome, 0)
    assert event["availability_whole"] == pytest.approx(0.7 * 0.91 * 0.91)


def test_a_throttle_lets_one_pass_in_its_time():
    clock = [0.0]
    throttle = Throttle(lambda: clock[0], 1.0)
    passed = []
    for clock[0] in (0.0, 0.5, 1.0, 1.5, 2.5):
        passed.append(throttle())
    assert passed == [True, False, True, False, True]


def test_a_throttle_lets_one_thread_pass():
    throttle = Throttle(lambda: 0.0, 1.0)
    passed = []
    threads = [threading.Thread(target=lambda: passed.append(throttle())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed.count(True) == 1


def test_a_slow_reader_misses_progress_and_nothing_else():
    async def main():
        waiting = _Events()
        for number in range(1000):
            waiting.put({"type": "progress", "number": number})
        waiting.put({"type": "result"})
        waiting.put(None)
        seen = []
        while (event := await waiting.next()) is not None:
            seen.append(event)
        return seen

    seen = asyncio.run(main())
    assert len(seen) == 257
    assert seen[-1] == {"type": "result"}


def test_only_a_donor_or_the_first_peer_ends_the_wait_for_more(with_node, source, monkeypatch):
    monkeypatch.setattr(sharing, "RETRY_SECONDS", 0.01)

    async def check(client):
        def meet(number, capabilities):
            id_ = number.to_bytes(20, "big")
            contact = Contact(id_, ("127.0.0.1", 4000 + number), capabilities=capabilities)
            client.protocol.router.add_contact(contact)

        async def ends_soon():
            try:
                await asyncio.wait_for(asyncio.shield(waiting), 0.3)
            except TimeoutError:
                return False
            return True

        job = ShareJob(client, ShareOrder(source, copies=2, keep_seconds=0), lambda event: None)
        waiting = asyncio.ensure_future(job._wait_for_peers(0.02))
        assert not await ends_soon()  # each try would go through all rows for nobody
        meet(1, 0)
        assert await ends_soon()  # somebody can be told that we serve
        waiting = asyncio.ensure_future(job._wait_for_peers(60))
        await asyncio.sleep(0)
        meet(2, 0)
        assert not await ends_soon()
        meet(3, DONOR)
        assert await ends_soon()

    with_node(check)
