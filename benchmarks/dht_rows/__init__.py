"""What the DHT is judged by, one module a question.

Each has ``measure(scale)``, which yields figures, and says in its docstring what is counted. What
is measured runs in processes of its own, so that memory and time are its own.
"""

from __future__ import annotations

import importlib
from types import ModuleType

ROWS: dict[str, str] = {
    "joined": "full nodes joined and serving, one process",
    "placed": "look-ups and copies on the true closest, nobody dead",
    "half-dead": "half of the nodes dead at once: closest found, values read",
    "hops": "hops at 10^4 and 10^7 nodes, beside a model",
    "leave": "the publisher leaves, days pass: 100 nodes, 3 days",
    "leave-long": "the same: 300 nodes, 30 days, 2,000 values",
    "sweep": "publishing and renewing many keys",
    "sockets": "puts and gets per second over real sockets",
    "served": "requests that one core serves",
    "churn": "reads while nodes come and go",
    "faults": "small seeds with every fault on",
}
LONG = ("leave-long",)
"""Only on request."""
VIRTUAL = ("leave", "placed", "half-dead", "hops", "sweep", "churn")
"""Rows whose judged figures are virtual: it does not matter what else the machine does."""


def load(name: str) -> ModuleType:
    """Return the module that measures rows."""
    return importlib.import_module(
        f"benchmarks.dht_rows.{name.split('-long')[0].replace('-', '_')}"
    )
