"""One node announces 10^6 keys into 10^4 nodes, k = 20 records each, and renews them unchanged.

``requests``: the datagrams that the announcing node sends, look-ups and handshakes among them, for
each key, but for replies and mere acknowledgements; ``datagrams`` counts these, too. ``bytes``: all
that anybody sends meanwhile, both ways, for each key.
``recall``: share of the 20 nodes truly closest to a key that have its record (100 keys).
``renewal_requests``: the same for renewing the same keys, which nobody changed.

Nodes are born when spoken to, with the tables of a network at rest. Their provider tables keep
20 bytes a key (``packed_providers``): those of real nodes would take 10 GiB here. One seed. No peer
of ours can do this: stock ``Server.set`` walks and stores for each key, 43 requests and 26 kB.
``--quick``: 20,000 keys into 1,000 nodes, not judged, for the cost of a region is shared by fewer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.dht_rows.figures import Figure, Scale, figure, in_child
from benchmarks.dht_rows.packed_providers import PackedProviderTable
from benchmarks.trials import make_trial, play
from bytestag.keys import KeyBytes
from bytestag.sim import population
from bytestag.tables.stores import Stores, memory_stores


def measure(scale: Scale) -> Iterator[Figure]:
    keys, nodes = (20_000, 1000) if scale.is_quick else (1_000_000, 10_000)
    found = in_child(_play, keys, nodes, 1)
    name = f"sweep_{keys}_keys_{nodes}_nodes"
    limits = (None, None, None) if scale.is_quick else (0.40, 500.0, 0.02)
    asked, bytes_ = found["announce_requests_per_key"], found["announce_bytes_per_key"]
    yield figure(f"{name}_requests", asked, "datagrams/key", "<=", limits[0])
    yield figure(f"{name}_datagrams", found["announce_datagrams_per_key"], "datagrams/key")
    yield figure(f"{name}_bytes", bytes_, "bytes/key", "<=", limits[1])
    yield figure(f"{name}_recall", found["announce_recall"], "share", ">=", 0.99)
    again = found["renewal_requests_per_key"]
    yield figure(f"{name}_renewal_requests", again, "datagrams/key", "<=", limits[2])
    yield figure(f"{name}_renewal_datagrams", found["renewal_datagrams_per_key"], "datagrams/key")
    yield figure(f"{name}_renewal_bytes", found["renewal_bytes_per_key"], "bytes/key")
    yield figure(f"{name}_wall", found["wall"], "s")
    yield figure(f"{name}_rss", found["rss_gib"], "GiB")


def _play(keys: int, nodes: int, seed: int) -> dict[str, float]:
    def stores(cache_bytes: int, node_key: KeyBytes, wall: Callable[[], float]) -> Stores:
        made = memory_stores(cache_bytes, node_key, wall)
        made.providers = PackedProviderTable()  # type: ignore[assignment]
        return made

    population.memory_stores = stores  # type: ignore[attr-defined]
    given = {"nodes": nodes, "keys": keys, "population": 1}
    record = play(make_trial("sweep", given, seed))
    if record.error:
        raise RuntimeError(record.error)
    found = {row.name: row.number for row in record.rows}
    return found | {"wall": record.wall_seconds, "rss_gib": record.rss_mib_max / 1024}
