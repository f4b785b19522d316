"""The table in memory and the one in SQLite are one and the same to whoever uses them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bytestag import config
from bytestag.keys import KeyBytes
from bytestag.tables.base import Standing
from bytestag.tables.database import DatabaseKVPTable
from bytestag.tables.memory import MemoryKVPTable
from tests.tables.helpers import NOW, key_of, row

VALUES = [bytes([n]) * size for n, size in enumerate((0, 1, 40, 300, 700, 900, 1000, 1200, 5, 6))]
KEYS = [None, key_of(b"a file"), key_of(b"another")]
QUOTA = 6000
rows = st.builds(
    lambda value, key, standing, ttl, depositor, group, deposit: row(
        value,
        key=key,
        standing=standing,
        ttl=ttl,
        depositor=depositor,
        group=group,
        deposit=deposit,
    ),
    st.sampled_from(VALUES),
    st.sampled_from(KEYS),
    st.sampled_from(Standing),
    st.integers(0, 100),
    st.sampled_from([b"", b"alice", b"bob"]),
    st.sampled_from(["", "192.0.2.0/24", "198.51.100.0/24"]),
    st.sampled_from([b"", b"deposit 1", b"deposit 2"]),
)
times = st.integers(NOW - 20, NOW + 120)


class SameTables(RuleBasedStateMachine):
    """Do the same to both; compare answers, rows and what observers heard."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.directory = Path(tempfile.mkdtemp(prefix="bytestag"))
        node_key = KeyBytes(b"\x55" * 20)
        self.memory = MemoryKVPTable(QUOTA, node_key=node_key)
        self.sqlite = DatabaseKVPTable(self.directory / "same.db", QUOTA, node_key=node_key)
        self.heard: tuple[list, list] = ([], [])
        for table, heard in zip((self.memory, self.sqlite), self.heard, strict=True):
            table.value_changed_observer.register(lambda *change, to=heard: to.append(change))

    @initialize(times=st.integers(1, 3))
    def few_values_of_a_key(self, times) -> None:
        """Sixty-four values do not fit the small quota: some runs have room for a few alone."""
        self.patch.setattr(config, "VALUES_PER_KEY_MAX", 2 * times)
        self.patch.setattr(config, "VALUES_PER_KEY_AND_DEPOSITOR_MAX", 1 + times)

    def teardown(self) -> None:
        self.patch.undo()
        self.sqlite.close()
        shutil.rmtree(self.directory)

    @rule(batch=st.lists(rows, max_size=12), now=times)
    def store(self, batch, now) -> None:
        judged = [self.memory.judge(record, now) for record, _value in batch]
        assert judged == [self.sqlite.judge(record, now) for record, _value in batch]
        assert self.memory.store_many(batch, now) == self.sqlite.store_many(batch, now)

    @rule(batch=st.lists(rows, max_size=12), now=times)
    def renew(self, batch, now) -> None:
        records = [record for record, _value in batch]
        assert self.memory.renew_many(records, now) == self.sqlite.renew_many(records, now)

    @rule(which=rows, selector_bytes=st.sampled_from([0, 8]))
    def remove(self, which, selector_bytes) -> None:
        record = which[0]
        selector = record.blake3[:selector_bytes]
        removed = self.memory.remove(record.kvpid, selector)
        assert removed == self.sqlite.remove(record.kvpid, selector)

    @rule(now=times, limit=st.integers(0, 5))
    def expire(self, now, limit) -> None:
        assert self.memory.expire(now, limit) == self.sqlite.expire(now, limit)

    @invariant()
    def hold_the_same(self) -> None:
        kvpids = list(self.memory.keys())
        assert kvpids == list(self.sqlite.keys())
        for kvpid in kvpids:
            records = self.memory.records_by_key(kvpid.key)
            assert records == self.sqlite.records_by_key(kvpid.key)
            for record in records:
                value = self.sqlite.read(record.kvpid, record.blake3)
                assert value == self.memory.read(record.kvpid, record.blake3)

    @invariant()
    def count_the_same_and_keep_the_quota(self) -> None:
        assert len(self.memory) == len(self.sqlite)
        assert self.memory.kept_bytes == self.sqlite.kept_bytes
        assert self.memory.used_bytes == self.sqlite.used_bytes <= QUOTA
        stored = {
            record for kvpid in self.memory for record in self.memory.records_by_key(kvpid[0])
        }
        assert sum(record.cost for record in stored) == self.memory.used_bytes

    @invariant()
    def tell_the_same(self) -> None:
        assert self.heard[0] == self.heard[1]


TestSameTables = SameTables.TestCase
TestSameTables.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestSameTables.pytestmark = [pytest.mark.slow]
