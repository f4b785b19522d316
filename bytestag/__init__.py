"""bytestag: share a directory, leave, and the network still has it.

The functions of :mod:`bytestag.api` and the errors of :mod:`bytestag.errors` are names of this
package. Importing it imports nothing else: commands that only print must start at once.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "bytestag.api": (
        "store_file", "store_bytes", "store_text", "store_object", "store_npy", "store_dir",
        "link_file", "load_file", "load_bytes", "load_text", "load_object", "load_npy", "load_dir",
        "open_file", "read_dir", "get_file_info", "find", "pooch_downloader", "set_config",
        "get_config", "using",
    ),
    "bytestag.errors": (
        "BytestagError", "LocalError", "UsageError", "StorageError", "NoSpace", "NotPermitted",
        "RemoteError", "FormatError", "NotFound", "Unreachable", "Timeout", "Corrupt", "Incomplete",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    """Import the home of a name when the name is used (PEP 562)."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'bytestag' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
