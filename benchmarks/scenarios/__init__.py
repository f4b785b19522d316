"""What is played in a virtual network, one module each.

A scenario module has ``DEFAULTS``, the parameters that it looks at with their defaults, and
``play``, which does it on a :class:`benchmarks.stage.Stage` and adds rows. Its docstring says what
is measured and what is not.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "join",
    "hops",
    "publish-fetch",
    "mass-death",
    "churn",
    "leave",
    "sweep",
    "idle",
    "flash-crowd",
)


def load(name: str) -> ModuleType:
    """Return the module of a scenario."""
    return importlib.import_module(f"benchmarks.scenarios.{name.replace('-', '_')}")
