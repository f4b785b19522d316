"""500 nodes, 10,000 operations, one virtual hour, while nodes come and go.

One more node, which stays and holds nothing, publishes 1,000 values of 1 KiB with 8 copies into a
network that has been coming and going for an hour (sessions and times off as in ``leave``, nobody
empty); then 9,000 reads by random live nodes within an hour: 10,000 operations. ``at_once`` and
``with_one_retry``: share of the reads that gave every byte; those whose reader went off are left
out, those of values whose holders are all off are not. ``without_holder`` is their share.
``--quick``: 100 nodes, 100 values, 900 reads.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.dht_rows.figures import Figure, Scale, figure, over_seeds, trial


def measure(scale: Scale) -> Iterator[Figure]:
    nodes, values, reads = (100, 100, 900) if scale.is_quick else (500, 1000, 9000)

    def play(seed: int) -> dict[str, float]:
        return trial("churn", seed, nodes=nodes, values=values, lookups=reads, hours=1.0, copies=8)

    found = over_seeds(play, scale.seeds)
    name = f"churn_{nodes}_nodes_{values + reads}_operations"
    yield figure(f"{name}_at_once", found["get_at_once"], "share", ">=", 0.99)
    yield figure(f"{name}_with_one_retry", found["get_with_one_retry"], "share", ">=", 0.999)
    yield figure(f"{name}_without_holder", found["get_failed_without_holder"], "share")
    yield figure(f"{name}_seconds_p95", found["get_seconds_p95"], "s")
    yield figure(f"{name}_traffic", found["traffic_per_node"], "B/s/node")
