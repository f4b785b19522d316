"""The stock dialect on real sockets: unmodified kademlia servers meet through our node."""

import asyncio
import random

from kademlia.network import Server

from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.crypto.identity import Identity
from bytestag.events.runtime import system_runtime
from bytestag.network import packets
from bytestag.tables.stores import memory_stores


class Silent(asyncio.DatagramProtocol):
    """A socket that receives and never answers: the victim of a forged source address."""

    def __init__(self):
        self.received = []

    def datagram_received(self, data, addr):
        self.received.append(data)


async def node(settings=None):
    runtime = system_runtime(2)
    identity = Identity.generate(runtime.token_bytes)
    stores = memory_stores(0, identity.node_id, runtime.wall)
    return Client(identity, stores, ClientOptions(), settings or config.local(), runtime)


async def stock_server(known):
    server = Server()
    await server.listen(0, "127.0.0.1")
    await server.bootstrap([known])
    return server


async def tell(address, datagram, seconds=0.3):
    """Send a datagram from a silent socket; return what came back."""
    loop = asyncio.get_running_loop()
    transport, silent = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
    transport.sendto(datagram, address)
    await asyncio.sleep(seconds)
    transport.close()
    return silent.received


def request(method, *arguments):
    return packets.encode_request(random.Random(1).randbytes(20), method, list(arguments))


def test_an_unmodified_kademlia_server_sets_and_another_one_gets():
    async def main():
        async with await node() as ours:
            servers = [await stock_server(ours.address) for _ in range(3)]
            try:
                assert await servers[0].set("name", "value")
                assert await servers[2].get("name") == "value"
                assert len(ours.protocol.stock) == 3
                assert len(ours.protocol.router) == 0
            finally:
                for server in servers:
                    server.stop()

    asyncio.run(main())


def test_a_stock_request_from_a_silent_address_gets_a_ping_and_no_answer():
    async def main():
        async with await node() as ours:
            asked = request("find_node", bytes(20), bytes(20))
            received = await tell(ours.address, asked)
            assert received
            assert all(datagram[:1] == b"\0" for datagram in received)
            assert sum(map(len, received)) <= 3 * len(asked)

    asyncio.run(main())


def test_what_stock_nodes_store_is_never_seen_by_our_readers():
    async def main():
        async with await node() as ours:
            server = await stock_server(ours.address)
            try:
                await server.set("name", "value")
                assert len(ours.protocol.stock.storage) == 1
                assert len(ours.stores.table) == 0
            finally:
                server.stop()

    asyncio.run(main())


def test_in_the_open_network_the_stock_dialect_is_dropped_and_counted():
    async def main():
        async with await node(config.internet().replace(id_pow_bits=0)) as ours:
            assert await tell(ours.address, request("ping", bytes(20))) == []
            assert ours.protocol.counters["method not spoken here"] == 1

    asyncio.run(main())


def test_malformed_stock_requests_are_dropped_and_counted():
    async def main():
        async with await node() as ours:
            for arguments in ((), ("text",), (bytes(21), bytes(20)), (bytes(20), [[[]]])):
                assert all(
                    d[:1] == b"\0" for d in await tell(ours.address, request("store", *arguments))
                )
            assert len(ours.protocol.stock.storage) == 0

    asyncio.run(main())
