"""A node that is stopped and started again: what it knows survives, without pickle."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.config import DAY
from bytestag.crypto.identity import Identity
from bytestag.dht import providing
from bytestag.errors import AddressInUse, Timeout
from bytestag.events.runtime import system_runtime
from bytestag.hashing import sha1
from bytestag.keys import KeyBytes
from bytestag.tables.opening import open_stores
from bytestag.tables.stores import memory_stores

OURS = Identity.from_bytes(bytes(range(64)))


def client(directory: Path, identity=OURS, **options):
    runtime = system_runtime(2)
    stores = open_stores(directory, directory, 2**24, identity.node_id, runtime.wall)
    return Client(identity, stores, ClientOptions(**options), config.local(), runtime)


def other(**options):
    runtime = system_runtime(2)
    identity = Identity.generate(runtime.token_bytes)
    stores = memory_stores(2**24, identity.node_id, runtime.wall)
    return Client(
        identity, stores, ClientOptions(is_donor=True, **options), config.local(), runtime
    )


def set_back(node, seconds):
    """Change a node's clock, as the operating system may."""
    true_wall = node.runtime.wall
    object.__setattr__(node.runtime, "wall", lambda: true_wall() - seconds)


def test_the_port_and_the_contacts_are_kept(tmp_path):
    async def main():
        async with other() as known:
            async with client(tmp_path, known_nodes=(known.address,)) as first:
                await first.join()
                address = first.address
            async with client(tmp_path) as second:
                assert second.address == address
                assert await second.join() == 1

    asyncio.run(main())


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_and_one_remembered_is_not(tmp_path):
    async def main():
        async with client(tmp_path / "a") as first:
            port = first.address[1]
        async with other(address=("127.0.0.1", port)):
            async with client(tmp_path / "a") as again:
                assert again.address[1] != port
            with pytest.raises(AddressInUse) as caught:
                await client(tmp_path / "b", address=("127.0.0.1", port)).__aenter__()
            assert "--port" in caught.value.hint

    asyncio.run(main())


def test_sequence_numbers_rise_across_restarts_though_the_clock_goes_back(tmp_path):
    async def main():
        numbers = []
        for hours_back in (0, 48):
            made = client(tmp_path)
            set_back(made, 3600 * hours_back)
            async with made:
                numbers += [made._seq.next(), made._seq.next()]
        assert numbers == sorted(set(numbers))

    asyncio.run(main())


def test_what_is_due_survives_a_restart_and_is_published_again(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"a" * 5000)

    async def main():
        async with other() as donor:
            async with client(tmp_path, known_nodes=(donor.address,), copies=1) as first:
                await first.join()
                await first.sharing.add(tmp_path / "files")
                await first.sharing.publish(tmp_path / "files")
                rows = len(first.stores.publish_due)
                assert rows == len(donor.stores.cache) == 4
            for kvpid in list(donor.stores.cache.keys()):
                donor.stores.cache.remove(kvpid)
            async with client(tmp_path, copies=1) as second:
                await second.join()
                assert len(second.stores.publish_due) == rows
                set_back(second, -DAY - 60)
                await second.sharing.republish()
                assert len(donor.stores.cache) == rows

    asyncio.run(main())


def test_what_was_hashed_before_anybody_was_known_is_published_once_somebody_is(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"a" * 5000)

    async def main():
        async with client(tmp_path / "node", copies=1) as node, asyncio.timeout(20):
            node.shared_files_table.add_path(tmp_path / "files")
            node.sharing.watch()
            while not len(node.stores.publish_due):
                await asyncio.sleep(0.01)
            await node.sharing.republish()  # to nobody: it stays due
            async with other(known_nodes=(node.address,)) as donor:
                await donor.join()
                while not len(node.protocol.router):
                    await asyncio.sleep(0.01)
                await node.sharing.republish()
                assert len(donor.stores.cache) == len(node.stores.publish_due) == 4

    asyncio.run(main())


@pytest.mark.long
def test_what_is_served_is_announced_part_by_part_and_goes_on_after_a_restart(
    tmp_path,
):
    (tmp_path / "a").write_bytes(b"a" * 5000)

    def spy(node):
        parts, announce = [], node.announcer.announce

        async def noted(keys, *, is_renewal, part, touched):
            parts.append((round(part[0], 2), round(part[1], 2), is_renewal))
            return await announce(keys, is_renewal=is_renewal, part=part, touched=touched)

        node.announcer.announce = noted
        return parts

    async def main():
        period = config.local().provider_renew_seconds
        async with other() as donor:
            async with client(tmp_path / "node", known_nodes=(donor.address,)) as node:
                await node.join()
                await node.sharing.add(tmp_path / "a")
                parts = spy(node)
                await node.sharing.renew()
                assert parts == []
                await node.sharing.provide()
                await node.sharing.renew()
                assert parts == [(0, 1, False)]
                for ahead in (0.5, 0.75, 0.25):
                    set_back(node, -ahead * period)
                    await node.sharing.renew()
                assert parts[1:] == [(0, 0.25, True), (0.25, 0.5, True)]
            async with client(tmp_path / "node", known_nodes=(donor.address,)) as node:
                await node.join()
                parts = spy(node)
                set_back(node, -1.9 * period)
                await node.sharing.renew()
                assert parts == [(0.5, 0.9, True)]
                set_back(node, -2 * period)  # it was off for long: all may be forgotten
                await node.sharing.renew()
                assert parts[1:] == [(0, 1, True)]

    asyncio.run(main())


def test_what_came_or_went_is_announced_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(providing, "BIN_KEYS_MAX", 1)  # so that few keys have many bins
    for number in range(40):
        (tmp_path / f"{number}").write_bytes(b"%d" % number * 1000)

    async def main():
        async with (
            other() as donor,
            client(tmp_path / "node", known_nodes=(donor.address,)) as node,
        ):
            await node.join()
            told, announce = [], node.announcer.announce

            async def noted(*given, **named):
                done = await announce(*given, **named)
                told.append(done.keys)
                return done

            node.announcer.announce = noted
            for number in range(39):
                await node.sharing.add(tmp_path / f"{number}")
            await node.sharing.publish(tmp_path / "1")
            assert len(told) == 1
            assert told[0] > 39
            await node.sharing.publish(tmp_path / "1")
            await node.sharing.add(tmp_path / "39")
            await node.sharing.provide(is_all=False)
            await node.sharing.provide(is_all=False)
            assert len(told) == 3
            assert 0 < told[1] < told[0] / 2
            assert 0 < told[2] < told[0] / 2
            key = KeyBytes(sha1(b"39" * 1000))
            assert donor.stores.providers.lookup(key, node.runtime.wall(), 9)

    asyncio.run(main())


@pytest.mark.long
def test_a_cycle_is_not_begun_anew_because_our_addresses_are_not_known_yet(tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 5000)

    async def main():
        period = config.local().provider_renew_seconds
        async with (
            other() as donor,
            client(tmp_path / "node", known_nodes=(donor.address,)) as node,
        ):
            await node.join()
            await node.sharing.add(tmp_path / "a")
            await node.sharing.provide()
            set_back(node, -1.5 * period)
            await node.sharing.renew()
            cycle = node.stores.state.json("announced", None)
            node.protocol.reachability = SimpleNamespace(addresses=[])
            await node.sharing.renew()
            assert cycle[1] == pytest.approx(0.5, abs=0.01)
            assert node.stores.state.json("announced", None) == cycle

    asyncio.run(main())


def test_whoever_is_being_asked_when_a_node_stops_is_not_held_to_have_failed(tmp_path):
    async def main():
        async with other() as known:
            async with client(tmp_path, known_nodes=(known.address,)) as node:
                await node.join()
                (contact,) = node.protocol.router
                contact.fails = node.config.contact_fails_max - 1
                asking = asyncio.create_task(node.protocol.ask(contact, "bt_ping"))
                await asyncio.sleep(0)
            with pytest.raises(Timeout):
                await asking
            assert list(node.protocol.router) == [contact]

    asyncio.run(main())


def test_a_node_that_comes_back_says_again_what_it_serves(tmp_path):
    (tmp_path / "a").write_bytes(b"a" * 5000)

    async def main():
        async with other() as donor, asyncio.timeout(20):
            async with client(tmp_path / "node", known_nodes=(donor.address,)) as first:
                await first.join()
                await first.sharing.add(tmp_path / "a")
            assert not len(donor.stores.providers)
            async with client(tmp_path / "node") as second:
                await second.join()
                second.sharing.watch()
                while not len(donor.stores.providers):
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_node_that_stops_leaves_no_task_behind(tmp_path):
    async def main():
        async with client(tmp_path) as node, other(known_nodes=(node.address,)) as peer:
            await peer.join()
            await peer.dht_network.link_to(next(iter(peer.protocol.router)))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_what_the_link_names_gets_a_copy_on_every_donor_up_to_twenty(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_bytes(b"a" * 5000)

    async def main():
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(other())
            donors = [first]
            for _ in range(3):
                donors.append(await stack.enter_async_context(other(known_nodes=(first.address,))))
                await donors[-1].join()
            async with client(tmp_path, known_nodes=(first.address,)) as node:
                await node.join()
                root, _ = await node.sharing.add(tmp_path / "files")
                outcome = await node.sharing.publish(tmp_path / "files", copies=1)
                assert outcome.copies_min == 1
                assert all(d.stores.cache.records_by_key(root.sha1) for d in donors)
                assert sum(len(d.stores.cache) for d in donors) == outcome.rows + 3

    asyncio.run(main())


def test_two_nodes_that_do_not_know_their_own_addresses_meet_at_the_first_try(tmp_path):
    async def main():
        async with other(address=("0.0.0.0", 0)) as first:
            known = ("127.0.0.1", first.address[1])
            async with client(tmp_path, address=("0.0.0.0", 0), known_nodes=(known,)) as second:
                assert await second.join() == 1
                assert [c.address for c in second.protocol.router] == [known]

    asyncio.run(main())
