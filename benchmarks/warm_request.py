"""How many round trips the first byte of a request takes: in a session, and with none yet.

``python -m benchmarks.warm_request HOST PORT KEY OWN-HOST`` asks a node on the local network for
one KiB of a value, again and again, and pings it in between: both are one datagram each way at
best. Then it asks as often without a session, with the token that a ping brought. Prints the
medians in seconds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time

from bytestag import config
from bytestag.client import Client, ClientOptions
from bytestag.crypto.identity import Identity
from bytestag.events.runtime import system_runtime
from bytestag.tables.stores import memory_stores

REQUESTS = 20
BYTES = 1024
IDLE_SECONDS = 10.0


async def measure(host: str, port: int, key: bytes, own_host: str) -> dict[str, float]:
    runtime = system_runtime(1)
    identity = Identity.generate(runtime.token_bytes)
    stores = memory_stores(0, identity.node_id, runtime.wall)
    options = ClientOptions((own_host, 0), is_client=True, known_nodes=((host, port),))
    requests, pings, firsts = [], [], []
    async with Client(identity, stores, options, config.local(), runtime) as client:
        await client.join()
        contact = await client.protocol.ping((host, port))
        link = await client.dht_network.link_to(contact)
        for number in range(REQUESTS + 1):
            began = time.perf_counter()
            await link.get(key, offset=number * BYTES, length=BYTES, idle_seconds=IDLE_SECONDS)
            requests.append(time.perf_counter() - began)
            began = time.perf_counter()
            await client.protocol.ping((host, port))
            pings.append(time.perf_counter() - began)
        for _ in range(REQUESTS + 1):
            client.sessions.close()
            began = time.perf_counter()
            early = client.sessions.early(key, None, b"", BYTES)
            link = await client.dht_network.link_to(contact, early)
            await link.get(key, length=BYTES, idle_seconds=IDLE_SECONDS, early=early)
            firsts.append(time.perf_counter() - began)
    # The first of each meets cold code.
    took = {"request": requests, "ping": pings, "first": firsts}
    return {name: statistics.median(seconds[1:]) for name, seconds in took.items()}


def main() -> int:
    host, port, key, own_host = sys.argv[1:5]
    print(json.dumps(asyncio.run(measure(host, int(port), bytes.fromhex(key), own_host))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
