"""WholeHash: parts in any order, each byte hashed once."""

import random

import pytest

from bytestag.hashing import blake3, sha1
from bytestag.tables import whole_hash
from bytestag.tables.whole_hash import WholeHash

PART = 100
WHOLE = random.Random(1).randbytes(50 * PART + 7)


def starts():
    return list(range(0, len(WHOLE), PART))


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_parts_and_their_repetition_change_nothing(seed):
    rng = random.Random(seed)
    order = rng.choices(starts(), k=60)  # some twice, some never
    read = []

    def read_at(offset, size):
        read.append((offset, size))
        return WHOLE[offset : offset + size]

    whole = WholeHash(sha1(WHOLE), blake3(WHOLE), read_at)
    for start in order:
        whole.add(start, WHOLE[start : start + PART])
    assert whole.matches(len(WHOLE))
    assert sum(size for _, size in read) <= len(WHOLE)


def test_of_parts_that_wait_for_those_before_them_only_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(whole_hash, "AHEAD_MAX", 10)
    whole = WholeHash(b"", blake3(WHOLE), lambda offset, size: WHOLE[offset : offset + size])
    for start in [*starts()[1:], 0]:
        whole.add(start, WHOLE[start : start + PART])
        assert len(whole._ahead) <= 10
    assert whole.matches(len(WHOLE))


@pytest.mark.parametrize("kept", [0, 5, 100])
def test_some_of_those_that_wait_are_not_read_again(monkeypatch, kept):
    monkeypatch.setattr(whole_hash, "KEPT_MAX", kept)
    read = []

    def read_at(offset, size):
        read.append(offset)
        return WHOLE[offset : offset + size]

    whole = WholeHash(b"", blake3(WHOLE), read_at)
    for start in [*starts()[1:21], 0]:
        whole.add(start, WHOLE[start : start + PART])
        assert len(whole._kept) <= kept
    assert len(read) == max(20 - kept, 0)
    assert not whole._kept
    assert whole.matches(len(WHOLE))


@pytest.mark.parametrize("size", [len(WHOLE) - 1, len(WHOLE) + 1])
def test_another_length_is_another_file(size):
    whole = WholeHash(b"", blake3(WHOLE), lambda offset, size: WHOLE[offset : offset + size])
    assert not whole.matches(size)
