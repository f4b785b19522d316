"""Requests that one core serves, and whether the keys held make a packet dearer.

``ping``, ``find_node``: requests are given to ``datagram_received`` of a node that has met 10,000
others, one after the other, and answered to an endpoint that only counts; sockets are not part of
it. Requests come from one proven address with a token, as in a walk.
``store``: values of 100 bytes, put one copy each into another process over real sockets on
loopback, 256 at a time, by our ``Putter``, which packs values that wait for one holder into one
offer of at most 64; the session is warm. Counted: values that the holder confirmed, for each CPU
second of the holder's process, sockets, encryption and hashing among it.
``flat``: how many times as long one packet takes with the most keys held as with 10^5, for the
worst of ping, find node, and find value of a held and of an absent key; best of five rounds each.
The keys are in a Python dictionary as in the table in memory, but their rows are made when looked
at, for 10^7 real ones do not fit. ``--quick``: 10^6.

The peer is stock kademlia: the same datagrams as it packs them, to its unmodified protocol, in its
loop; its stores are separate ``store`` requests of 100 bytes (200 of them, 800 keys held before).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator

from benchmarks.dht_rows.figures import (
    Figure,
    Measured,
    Scale,
    figure,
    in_child,
    median,
    over_seeds,
)
from benchmarks.dht_rows.held import CompactTable
from benchmarks.dht_rows.stock_rate import stock_rates
from benchmarks.dht_rows.store_rate import store_rate
from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.config import TRAIN_DATAGRAM_BYTES_MAX
from bytestag.crypto.identity import Address, Identity
from bytestag.dht.routing import Contact
from bytestag.events.runtime import system_runtime
from bytestag.network import packets
from bytestag.network.burst import Burst
from bytestag.network.endpoint import Receiver
from bytestag.network.packets import Query
from bytestag.tables.stores import memory_stores

NODES = 10_000
REQUESTS = 20_000
QUICK_REQUESTS = 5000
ROUNDS = 5
PLACE = ("10.0.0.1", 4000)
ASKER = ("10.1.2.3", 4000)
RATES = {"ping": 40_000, "find_node": 20_000, "store": 30_000}
KINDS = ("ping", "find_node", "find_held", "find_absent")
FEW_KEYS = 100_000
FLAT_MAX = 1.3


class CountingEndpoint:
    """Takes what is sent, and only counts the answers: newcomers are pinged as well."""

    burst_bytes = 1 << 21
    datagram_bytes_max = TRAIN_DATAGRAM_BYTES_MAX

    def __init__(self) -> None:
        self.address: Address = PLACE
        self.counters: Counter[str] = Counter()
        self.sent = 0

    def send(self, datagram: bytes, address: Address) -> None:
        self.sent += datagram[0] == packets.RESPONSE

    def send_burst(self, burst: Burst, address: Address) -> None:
        self.sent += 1

    def close(self) -> None:
        """There is nothing to close."""


def measure(scale: Scale) -> Iterator[Figure]:
    requests = QUICK_REQUESTS if scale.is_quick else REQUESTS

    def ours(seed: int) -> Measured:
        costs = in_child(packet_seconds, 0, seed, requests)
        return {kind: 1 / costs[kind] for kind in ("ping", "find_node")} | {
            "store": in_child(store_rate, seed)
        }

    found = over_seeds(ours, scale.seeds)
    theirs = over_seeds(lambda seed: in_child(stock_rates, seed), min(scale.seeds, 3))
    for kind, target in RATES.items():
        peers = {"kademlia": median(theirs, kind)}
        yield figure(f"served_{kind}", found[kind], "1/s/core", ">=", target, peers, 0)
    most = 10**6 if scale.is_quick else 10**7
    costs = {keys: in_child(packet_seconds, keys, 1, requests) for keys in (0, FEW_KEYS, most)}
    for keys, of_kind in costs.items():
        for kind in KINDS if keys else KINDS[:2]:
            yield figure(f"packet_{kind}_{keys}_keys", 1e6 * of_kind[kind], "µs", decimals=1)
    worst = max(costs[most][kind] / costs[FEW_KEYS][kind] for kind in KINDS)
    yield figure(f"packet_{most}_keys_flat", worst, "times", "<=", FLAT_MAX)


def packet_seconds(keys: int, seed: int, requests: int) -> dict[str, float]:
    """Return the seconds that each kind of request takes a node that holds so many keys."""
    return asyncio.run(_packet_seconds(keys, seed, requests))


async def _packet_seconds(keys: int, seed: int, requests: int) -> dict[str, float]:
    runtime, rng, endpoint = system_runtime(), random.Random(seed), CountingEndpoint()
    identity = Identity.generate(runtime.token_bytes)
    stores = memory_stores(2**40, identity.node_id, runtime.wall)
    stores.cache = stores.table = table = CompactTable(keys, rng, runtime.wall)

    async def open_endpoint(address: Address, receiver: Receiver) -> CountingEndpoint:
        return endpoint

    options = ClientOptions(address=PLACE, is_donor=True, open_endpoint=open_endpoint)
    client = Client(identity, stores, options, config.local(), runtime)
    async with client:
        router = client.protocol.router
        for i in range(NODES):
            address = (f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", 4000)
            router.add_contact(Contact(rng.randbytes(20), address))
        token = client.protocol._mint.issue(ASKER, runtime.wall())
        asked: dict[str, tuple[str, Callable[[], bytes | None]]] = {
            "ping": ("bt_ping", lambda: None),
            "find_node": ("bt_find_node", lambda: rng.randbytes(20)),
            "find_held": ("bt_find_value", table.some_key),
            "find_absent": ("bt_find_value", lambda: rng.randbytes(20)),
        }
        network_id, found = client.config.network_id, {}
        for kind, (method, make) in asked.items():
            if kind == "find_held" and not keys:
                continue
            made = [
                packets.encode_request(
                    rng.randbytes(20),
                    method,
                    [Query(1, network_id, rng.randbytes(20), 1, token, make())],
                )
                for _ in range(requests)
            ]
            datagrams = [memoryview(datagram) for datagram in made]
            found[kind] = min(_serve(client, endpoint, datagrams) for _ in range(ROUNDS))
        return found


def _serve(client: Client, endpoint: CountingEndpoint, datagrams: list[memoryview]) -> float:
    """Return the seconds for each of the requests, all of which are answered."""
    receive, before = client.protocol.datagram_received, endpoint.sent
    began = time.process_time()
    for datagram in datagrams:
        receive(datagram, ASKER)
    seconds = time.process_time() - began
    assert endpoint.sent - before == len(datagrams), "requests were left unanswered"
    return seconds / len(datagrams)
