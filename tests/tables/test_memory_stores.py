"""The queue and the provider records in memory, as several threads use them at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID
from bytestag.tables.memory_stores import MemoryDueTable, MemoryProviderTable
from tests.tables.helpers import key_of, numbered

KEYS = [key_of(value) for value in numbered(200)]


@pytest.fixture(autouse=True)
def restless() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*works: Callable[[int], object], times: int = 300) -> None:
    """Run each in a thread of its own, again and again."""

    def again(work: Callable[[int], object]) -> None:
        for number in range(times):
            work(number)

    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(again, work) for work in works]:
            done.result()


def test_threads_share_the_provider_records() -> None:
    table = MemoryProviderTable()

    def put(name: bytes) -> Callable[[int], object]:
        return lambda n: table.put(KEYS[n % 90 :][:100], name, b"", n + 1, 1000 + n % 9, b"")

    def reads(n: int) -> None:
        for key in KEYS[50:150]:
            table.lookup(key, 0)

    at_once(put(b"a"), put(b"a"), put(b"b"), reads, lambda n: table.expire(1004))
    for provider in (b"a", b"b"):
        table.remove(provider)
    assert len(table) == 0


def test_threads_share_the_queue() -> None:
    table = MemoryDueTable()
    rows = [(KVPID(key, KeyBytes(key)), b"") for key in KEYS]

    def put(n: int) -> None:
        table.put_many((*row, float(n)) for row in rows)
        table.add_many((*row, float(n)) for row in rows)

    def remove(n: int) -> None:
        for kvpid, _blake3 in rows[:50]:
            table.remove(kvpid)

    at_once(
        put,
        remove,
        lambda n: table.next_time(),
        lambda n: table.take_due(1000, 50),
        lambda n: table.take_due(1000, 50),
        times=60,
    )
    assert len(table) <= len(rows)
