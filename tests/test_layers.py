"""Who may import whom, which package has which home, what is not called outside its place.

Every import and every call under ``bytestag/`` is read with :mod:`ast`; nothing is run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bytestag"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# A module imports what has a lower rank, or what lies in its own folder.
RANKS = {
    "errors": 0,
    "hashing": 1,
    "codec": 1,
    "basedir": 1,
    "recent": 1,
    "config": 2,
    "keys": 2,
    "one_pass": 3,
    "uri": 3,
    "models": 4,
    "crypto": 5,
    "events": 6,
    "network": 7,
    "store": 7,
    "tables": 7,
    "dht": 8,
    "sharing": 9,
    "client": 10,
    "gateway": 11,
    "hub": 11,
    "sim": 11,
    "daemon": 12,
    "library": 13,
    "api": 14,
    "aio": 15,
    "filesystem": 15,
    "cli": 16,
    "__main__": 17,
}

# Where a package that is not ours may be imported: folders end in a slash.
HOMES = {
    "kademlia": ("dht/",),
    "rpcudp": ("network/",),
    "sqlalchemy": ("tables/",),
    "watchfiles": ("tables/watching.py",),
    "platformdirs": ("basedir.py",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "aiohttp": ("gateway/", "hub/"),
    "jinja2": ("gateway/",),
    "msgspec": ("codec.py",),
    "cryptography": ("crypto/primitives.py",),
    "blake3": ("hashing.py",),
    "fsspec": ("filesystem.py",),
    "numpy": ("api.py",),
    "tqdm": ("library/progress.py",),
    # Of the standard library. Noise is defined over SHA-256 and HMAC: there the hash is part of a
    # cipher, and what it hashes is no content that anybody could look up.
    "hashlib": ("hashing.py", "crypto/noise.py"),
    "pickle": (),
    "marshal": (),
    "shelve": (),
}

# Calls that have one place, because a simulated node must not make them.
CALLS = {
    # In tables/ as a default that the client replaces by the runtime's.
    "time.time": (
        "events/runtime.py",
        "store/content.py",
        "tables/scanning.py",
        "tables/shared.py",
    ),
    "time.monotonic": ("events/runtime.py", "network/endpoint.py"),
    "time.perf_counter": (),
    "time.sleep": (),
    "datetime.now": (),
    "datetime.utcnow": (),
    "asyncio.create_task": ("events/",),
    "asyncio.ensure_future": ("events/",),
    "asyncio.to_thread": (),
}
RANDOM_CLASSES = {"Random", "SystemRandom"}

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


def inside(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def area(path: Path) -> str:
    """Return the first folder of a module, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of each module that is imported, wherever the import stands."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its rank"
            assert node.module is not None
            if node.module == "bytestag":
                yield from (f"bytestag.{alias.name}" for alias in node.names)
            else:
                yield node.module


def uses(path: Path) -> Iterator[str]:
    """Yield ``a.b`` for each attribute of a name, and for each ``from a import b``."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_at_home(path: Path, homes: tuple[str, ...]) -> bool:
    return any(
        inside(path) == home or (home.endswith("/") and inside(path).startswith(home))
        for home in homes
    )


by_module = pytest.mark.parametrize("path", MODULES, ids=inside)


@by_module
def test_a_module_imports_only_what_ranks_below_it(path):
    if path == PACKAGE / "__init__.py":
        assert [name for name in imports(path) if name.startswith("bytestag.")] == []
        return
    own = area(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "bytestag" or len(parts) == 1:
            continue
        other = parts[1]
        if other == own and path.parent != PACKAGE:
            continue
        assert RANKS[other] < RANKS[own], f"{inside(path)} imports {name}"


@by_module
def test_a_package_that_is_not_ours_is_imported_at_its_home(path):
    for name in imports(path):
        package = name.split(".")[0]
        if package in HOMES:
            assert is_at_home(path, HOMES[package]), f"{inside(path)} imports {name}"
        else:
            assert package == "bytestag" or package in sys.stdlib_module_names, (
                f"{inside(path)} imports {name}, which has no home yet"
            )


@by_module
def test_clocks_chance_and_tasks_are_used_where_they_belong(path):
    for name in uses(path):
        first, _, attribute = name.rpartition(".")
        if name in CALLS:
            assert is_at_home(path, CALLS[name]), f"{inside(path)} uses {name}"
        if first == "random":
            assert attribute in RANDOM_CLASSES, f"{inside(path)} uses {name}: take runtime.rng"


@by_module
def test_a_module_says_what_it_is_for_and_stays_small(path):
    source = path.read_text("utf-8")
    if source:
        assert ast.get_docstring(tree(path)), f"{inside(path)} has no docstring"
    assert source.count("\n") <= MODULE_LINES_MAX
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{inside(path)}: {node.name} has {lines} lines"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_test_sleeps(path):
    assert "time.sleep" not in set(uses(path))


def test_every_area_has_a_rank():
    assert {area(path) for path in MODULES} - {"__init__"} <= RANKS.keys()


def test_the_reader_of_imports_sees_those_inside_functions_and_conditions(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b\nfrom bytestag import keys\nfrom time import time\n"
        "def f():\n    if x:\n        import c as d\n    random.random()\n"
    )
    assert set(imports(path)) == {"a.b", "bytestag.keys", "time", "c"}
    assert {"time.time", "random.random"} <= set(uses(path))
