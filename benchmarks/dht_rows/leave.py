"""A publisher leaves once its values have 8 copies; days pass; each value is read once a day.

Sessions and times off are Weibull distributed (shape 0.5, median 60 minutes each); nodes return
with what they had, one in a hundred a day empty and as somebody new. ``readable``: share of reads,
each by a random live node, that gave every byte, at once or on one retry 5 s later; reads whose
reader went off are left out, and ``without_holder`` is the share that nobody who was on could have
served. ``bytes``: all that is sent, repair, refresh and joining together, for each node and day.

``leave``: 100 nodes, 3 days, 300 values. ``leave-long``: 300 nodes, 30 days, 2,000 values, one
seed. ``--quick``: 100 nodes, 3 days, 100 values.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.dht_rows.figures import Figure, Scale, figure, over_seeds, trial

SECONDS_MAX = 3600.0


def measure(scale: Scale) -> Iterator[Figure]:
    nodes, days, values = (300, 30.0, 2000) if scale.is_long else (100, 3.0, 300)
    if scale.is_quick:
        nodes, days, values = 100, 3.0, 100

    def play(seed: int) -> dict[str, float]:
        options = {"nodes": nodes, "days": days, "values": values, "value_bytes": 1024, "copies": 8}
        return trial("leave", seed, is_told=scale.is_long, **options)

    found = over_seeds(play, scale.seeds)
    name = f"leave_{nodes}_nodes_{days:g}_days"
    yield figure(f"{name}_readable", found["read_with_one_retry"], "share", ">=", 0.999)
    yield figure(f"{name}_readable_at_once", found["read_at_once"], "share")
    yield figure(f"{name}_without_holder", found["read_failed_without_holder"], "share")
    yield figure(f"{name}_values_lost", found["values_without_a_copy"], "values", "<=", 0)
    yield figure(f"{name}_copies_running", found["copies_running_mean"], "copies")
    yield figure(f"{name}_bytes", found["bytes_per_node_day"], "bytes/node/day")
    limit = SECONDS_MAX if scale.is_long else None
    yield figure(f"{name}_wall", found["wall"], "s", "<=", limit)
