"""One pass: every taker has every byte in order, every part comes once, whatever fails ends all."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag import one_pass
from bytestag.config import PART_BYTES
from bytestag.one_pass import BLOCK_BYTES, PARALLEL_BYTES_MIN, read_once

SIZES = [0, 1, PART_BYTES, BLOCK_BYTES, BLOCK_BYTES + 1, PARALLEL_BYTES_MIN, 9_000_001]


class Taken:
    """What came of a file."""

    def __init__(self) -> None:
        self.whole = bytearray()
        self.again = bytearray()
        self.parts: dict[int, bytes] = {}
        self.ticks: list[int] = []
        self.tickers: set[int] = set()

    def take_parts(self, first: int, block: memoryview) -> None:
        for number, at in enumerate(range(0, len(block), PART_BYTES), first):
            assert number not in self.parts
            self.parts[number] = bytes(block[at : at + PART_BYTES])

    def tick(self, count: int) -> None:
        self.ticks.append(count)
        self.tickers.add(threading.get_ident())


def read(path: Path, taken: Taken) -> int:
    source = os.open(path, os.O_RDONLY)
    try:
        takers = [taken.whole.extend, taken.again.extend]
        return read_once(source, takers, taken.take_parts, tick=taken.tick)
    finally:
        os.close(source)


def file_of(path: Path, size: int) -> bytes:
    value = b"".join(at.to_bytes(8, "big") for at in range(size // 8 + 1))[:size]
    path.write_bytes(value)
    return value


@pytest.fixture(params=[1, 2], ids=["one processor", "two processors"])
def processors(request, monkeypatch) -> int:
    monkeypatch.setattr(one_pass, "processors", lambda: request.param)
    return int(request.param)


@pytest.mark.parametrize("size", SIZES)
def test_every_taker_has_all_bytes_in_order_and_each_part_comes_once(tmp_path, processors, size):
    value = file_of(tmp_path / "file", size)
    taken = Taken()
    assert read(tmp_path / "file", taken) == size
    assert taken.whole == taken.again == value
    count = -(-size // PART_BYTES)
    assert sorted(taken.parts) == list(range(count))
    assert b"".join(taken.parts[number] for number in range(count)) == value
    assert sum(taken.ticks) == size
    assert taken.tickers <= {threading.get_ident()}


def test_who_reads_waits_for_a_slow_taker(tmp_path, processors):
    """The other thread may have the last blocks in hand when there is nothing more to read."""
    value = file_of(tmp_path / "file", 9_000_001)
    slow = hashlib.pbkdf2_hmac
    taken = bytearray()

    def take(block: memoryview) -> None:
        if threading.current_thread() is not threading.main_thread():
            slow("sha256", b"", b"", 20_000)
        taken.extend(block)

    source = os.open(tmp_path / "file", os.O_RDONLY)
    assert read_once(source, [take]) == len(value)
    os.close(source)
    assert taken == value


@pytest.mark.parametrize("taker", [0, 1])
def test_what_a_taker_raises_comes_out_and_no_thread_stays(tmp_path, processors, taker):
    file_of(tmp_path / "file", 9_000_001)
    seen = 0

    def fail(block: memoryview) -> None:
        nonlocal seen
        seen += len(block)
        if seen > 5_000_000:
            raise OSError(28, "No space left on device")

    takers = [lambda _block: None, lambda _block: None]
    takers[taker] = fail
    threads = threading.active_count()
    source = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(OSError, match="No space"):
        read_once(source, takers, lambda _number, _part: None)
    os.close(source)
    assert threading.active_count() == threads


def test_a_tick_may_stop_it(tmp_path, processors):
    file_of(tmp_path / "file", 9_000_001)
    taken = Taken()

    def stop(_count: int) -> None:
        raise InterruptedError

    taken.tick = stop
    threads = threading.active_count()
    with pytest.raises(InterruptedError):
        read(tmp_path / "file", taken)
    if processors == 1:  # the other thread may have been quicker
        assert len(taken.whole) < 9_000_001
    assert threading.active_count() == threads


def test_a_part_that_fails_ends_it(tmp_path, processors):
    file_of(tmp_path / "file", 9_000_001)

    def fail(first: int, _block: memoryview) -> None:
        if first >= 7:
            raise ValueError(first)

    source = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(ValueError, match="8"):
        read_once(source, [lambda _block: None], fail)
    os.close(source)


@given(st.lists(st.integers(1, BLOCK_BYTES), min_size=1, max_size=6))
def test_short_reads_cut_no_part(sizes):
    """A pipe gives what is there; blocks are whole all the same."""
    value = os.urandom(1000) * (sum(sizes) // 1000 + 1)
    value = value[: sum(sizes)]
    reader, writer = os.pipe()

    def write() -> None:
        at = 0
        for size in sizes:
            os.write(writer, value[at : at + size])
            at += size
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    taken = Taken()
    try:
        assert read_once(reader, [taken.whole.extend], taken.take_parts) == len(value)
    finally:
        os.close(reader)
        thread.join()
    assert taken.whole == value
    assert b"".join(taken.parts[number] for number in sorted(taken.parts)) == value
