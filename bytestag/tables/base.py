"""KVPTable: what every table of values is (pure but for the subclasses' storage).

A table maps a :class:`KVPID` to a value of at most 1 MiB. The ``index`` of a KVPID is the SHA-1 of
the value; the ``key`` is what is looked up and may be something else (a file's hash, for its
description). Because SHA-1 collides, a row is named by (key, index, BLAKE3): ``table[kvpid]`` is
the oldest row whose bytes match, a ``selector`` (the BLAKE3 or a prefix of it) names one row.

Tables are synchronous; callers on an event loop go through ``runtime.offload``. Times are wall
clock seconds and always arguments.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bytestag import config
from bytestag.errors import StorageError
from bytestag.events.observer import Observer
from bytestag.hashing import Buffer, blake3, sha1
from bytestag.keys import KeyBytes


class KVPID(NamedTuple):
    """Names a value: the key it is looked up by, and the SHA-1 of its bytes."""

    key: KeyBytes
    index: KeyBytes  # type: ignore[assignment]  # the 2012 name; hides tuple.index


class Standing(enum.IntEnum):
    """Why a row is here. When room is needed, lower goes first; KEPT never goes before its time."""

    CACHED = 0
    """Left along a look-up's path."""
    REPLICA = 1
    """Held for others without a deposit, for the 2012 time to live."""
    KEPT = 2
    """Backed by a deposit until its granted time."""
    ORIGINAL = 3
    """Published by this node itself."""


class Verdict(enum.IntEnum):
    """What a table says to a value; the codes that travel in answers to offers."""

    ACCEPTED = 0
    HELD = 1
    """The same row is here already; its times were renewed if the offer's are later."""
    TOO_LARGE = 2
    FULL = 3
    """No room that may be taken: the quota, or the share of this depositor or address group."""
    EXPIRED = 4
    WRONG_BYTES = 5
    """The bytes do not hash to index and BLAKE3."""
    PER_KEY = 6
    """The key has all the values it may have, in total or from this depositor."""
    READ_ONLY = 7
    BUSY = 8
    """No incoming slot is free; ask later."""
    BAD_DEPOSIT = 9
    NOT_SENT = 10
    """The holder asked for the bytes and did not get them."""
    OUTSIDE = 11
    """The key is farther from the holder than it takes values; its radius says so."""


class TableRefused(StorageError):
    """A table did not take a value; ``verdict`` says why."""

    code = "refused"

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(f"the table refused the value: {verdict.name.lower()}")
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class KVPRecord:
    """A row without its bytes. Times in wall clock seconds, sizes in bytes."""

    kvpid: KVPID
    blake3: bytes
    size: int
    timestamp: int
    """When it was published."""
    time_to_live: int
    """Seconds after ``timestamp`` for which it is kept."""
    last_update: int = 0
    """When it was last published or replicated from here; 0 is never."""
    standing: Standing = Standing.REPLICA
    deposit: bytes = b""
    """The encoded deposit with its proof, if it is KEPT; opaque to tables."""
    depositor: bytes = b""
    """The depositor's 32-byte public key, if any."""
    group: str = ""
    """Address group (/24 or /48) it came from, global addresses only."""

    @property
    def key(self) -> KeyBytes:
        return self.kvpid.key

    @property
    def index(self) -> KeyBytes:
        return self.kvpid.index

    @property
    def is_original(self) -> bool:
        return self.standing is Standing.ORIGINAL

    @property
    def expires(self) -> int:
        return self.timestamp + self.time_to_live

    @property
    def cost(self) -> int:
        """Bytes it takes from the quota."""
        return self.size + config.RECORD_OVERHEAD_BYTES


class Asked(NamedTuple):
    """What a reader says of the row it wants; None, and an empty selector, are any."""

    key: KeyBytes
    index: bytes | None  # type: ignore[assignment]  # as in KVPID
    selector: bytes
    """The row's BLAKE3, or a prefix of it."""
    size: int | None = None

    def fits(self, record: KVPRecord) -> bool:
        """Whether a row of the key is one of those that are asked for."""
        is_named = self.index in (None, record.index) and self.size in (None, record.size)
        return is_named and record.blake3.startswith(self.selector)


class ReadRow(NamedTuple):
    """A row with its verified bytes."""

    record: KVPRecord
    value: Buffer
    others: int
    """How many more rows fit what was asked, as far as it was looked."""


class KVPTable(ABC):
    """A base class for tables, with the Python idioms.

    ::

        table[kvpid] = b"123"      # stored as our own, for ever (see ``store`` for the rest)
        kvpid in table
        table[kvpid]               # verified bytes, or KeyError
        del table[kvpid]
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self.value_changed_observer = Observer()
        """Called with (kvpid, is_added) after a row was added or removed."""
        self.clock = clock
        """Stamps what ``table[kvpid] = value`` stores; without it, 1970."""

    # --- Size ------------------------------------------------------------------------------------

    may_block: bool = True
    """Whether its methods may wait for a disk or a server."""
    max_size: int | None = None
    """The quota in bytes of :attr:`KVPRecord.cost`; None is unbounded, 0 stores nothing."""

    @property
    def used_bytes(self) -> int:
        """What all rows cost."""
        return 0

    @property
    def kept_bytes(self) -> int:
        """What the rows cost that cannot be evicted: KEPT and ORIGINAL; the donor's fill."""
        return 0

    # --- Reading ---------------------------------------------------------------------------------

    @abstractmethod
    def records_by_key(self, key: KeyBytes) -> list[KVPRecord]:
        """Return the rows of a key, oldest first."""

    @abstractmethod
    def read(self, kvpid: KVPID, selector: bytes = b"") -> bytes:
        """Return verified bytes of the oldest row that matches the BLAKE3 prefix ``selector``.

        Raises KeyError where there is none. Bytes that no longer match their hashes are never
        returned: the row is dropped and the next one is tried.
        """

    def read_row(self, record: KVPRecord) -> bytes:
        """Return verified bytes of a row that :meth:`records_by_key` gave; KeyError if it went."""
        return self.read(record.kvpid, record.blake3)

    def records_by_keys(self, keys: Iterable[KeyBytes]) -> dict[KeyBytes, list[KVPRecord]]:
        """Return the rows of several keys; a key without any has an empty list."""
        return {key: self.records_by_key(key) for key in keys}

    def read_rows(self, records: Sequence[KVPRecord]) -> list[bytes | None]:
        """Return what :meth:`read_row` gives for each row, None where it would raise."""
        values: list[bytes | None] = []
        for record in records:
            try:
                values.append(self.read_row(record))
            except KeyError:
                values.append(None)
        return values

    def read_asked(self, asked: Sequence[Asked], now: float) -> list[ReadRow | None]:
        """Return, for each, the oldest row that fits and has time left."""
        found: list[ReadRow | None] = list(self.read_remembered(asked))
        left = [number for number, row in enumerate(found) if row is None]
        if not left:
            return found
        rows = self.records_by_keys({asked[number].key for number in left})
        fitting = {
            number: [
                r for r in rows[asked[number].key] if asked[number].fits(r) and r.expires > now
            ]
            for number in left
        }
        left = [number for number in left if fitting[number]]
        values = self.read_rows([fitting[number][0] for number in left])
        for number, value in zip(left, values, strict=True):
            first, *others = fitting[number]
            if value is not None:
                found[number] = ReadRow(first, value, len(others))
            else:
                found[number] = self._read_one_of(others)
        return found

    def _read_one_of(self, records: Sequence[KVPRecord]) -> ReadRow | None:
        for number, record in enumerate(records):
            try:
                return ReadRow(record, self.read_row(record), len(records) - number - 1)
            except KeyError:
                continue
        return None

    def read_remembered(self, asked: Sequence[Asked]) -> Sequence[ReadRow | None]:
        """Return what :meth:`read_asked` would, of rows whose place is known without a search."""
        return [None] * len(asked)

    def records_between(self, low: int, end: int, limit: int) -> list[KVPRecord]:
        """Return rows whose key, as a number, is in ``low <= key < end``, in key order.

        At most about ``limit``: all rows of the last key are among them.
        """
        found: list[KVPRecord] = []
        for key in dict.fromkeys(kvpid.key for kvpid in self.keys()):
            if len(found) >= limit or key.integer >= end:
                break
            if key.integer >= low:
                found += self.records_by_key(key)
        return found

    @abstractmethod
    def keys(self) -> Iterator[KVPID]:
        """Yield every KVPID once, in key order, without holding them all in memory."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    def record(self, kvpid: KVPID, selector: bytes = b"") -> KVPRecord:
        """Return the oldest row of ``kvpid`` that matches ``selector``; KeyError if none."""
        for record in self.records_by_key(kvpid.key):
            if record.index == kvpid.index and record.blake3.startswith(selector):
                return record
        raise KeyError(kvpid)

    def indices(self, key: KeyBytes) -> list[KeyBytes]:
        """Return the distinct indices of a key, oldest first."""
        return list(dict.fromkeys(record.index for record in self.records_by_key(key)))

    def __contains__(self, kvpid: object) -> bool:
        return isinstance(kvpid, KVPID) and kvpid.index in self.indices(kvpid.key)

    def __getitem__(self, kvpid: KVPID) -> bytes:
        return self.read(kvpid)

    def __iter__(self) -> Iterator[KVPID]:
        return self.keys()

    # --- Writing ---------------------------------------------------------------------------------

    @abstractmethod
    def judge(self, record: KVPRecord, now: float) -> Verdict:
        """Say what :meth:`store` would answer to this row now, without its bytes."""

    def judge_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        """Judge each row as if it came alone."""
        return [self.judge(record, now) for record in records]

    @abstractmethod
    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        """Store rows in order; return a verdict for each after all of them are committed.

        A table may use several transactions; if this raises, some rows may be there, but nothing
        is acknowledged. A row that is HELD takes the later expiry, the higher standing and the
        deposit that lasts longer (``admission.merge`` has the fine print).
        """

    def renew_many(self, records: Sequence[KVPRecord], now: float) -> list[Verdict]:
        """Give held rows what a second offer leaves them, without their bytes.

        HELD is said after the commit. What is not here is refused as :meth:`judge` would, or
        NOT_SENT where its bytes would be taken. A table whose rows have no times renews nothing.
        """
        return [
            Verdict.NOT_SENT if verdict is Verdict.ACCEPTED else verdict
            for verdict in self.judge_many(records, now)
        ]

    @abstractmethod
    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        """Remove the matching rows (all of them without a selector); return how many."""

    def expire(self, now: float, limit: int = 1000) -> int:
        """Remove at most ``limit`` rows past their time, the oldest expiry first; return how many.

        Only this and making room for others removes rows by time: reads do not look at the clock,
        so that a clock that jumps loses nothing.
        """
        return 0

    def store(self, record: KVPRecord, value: bytes, now: float) -> Verdict:
        """Store one row; see :meth:`store_many`."""
        return self.store_many([(record, value)], now)[0]

    def is_acceptable(self, kvpid: KVPID, size: int, timestamp: int) -> bool:
        """Return whether a value published at ``timestamp`` would be taken (2012)."""
        record = KVPRecord(
            kvpid, b"", size, timestamp, time_to_live=86_490, standing=Standing.CACHED
        )
        return self.judge(record, timestamp) is Verdict.ACCEPTED

    def __setitem__(self, kvpid: KVPID, value: bytes) -> None:
        now = self.clock() if self.clock else 0
        verdict = self.store(own_record(kvpid, value, int(now)), value, now)
        if verdict not in (Verdict.ACCEPTED, Verdict.HELD):
            raise TableRefused(verdict)

    def __delitem__(self, kvpid: KVPID) -> None:
        if not self.remove(kvpid):
            raise KeyError(kvpid)

    def close(self) -> None:  # noqa: B027  # most tables hold nothing to release
        """Release files and threads; idempotent."""


NEVER_SECONDS = 2**40
"""A time to live of some 34,000 years, for what this node publishes itself."""


class ReadOnlyKVPTable(KVPTable):
    """A table that takes nothing and gives nothing up: what it has lies elsewhere."""

    def judge(self, record: KVPRecord, now: float) -> Verdict:
        return Verdict.READ_ONLY

    def store_many(self, rows: list[tuple[KVPRecord, bytes]], now: float) -> list[Verdict]:
        return [Verdict.READ_ONLY] * len(rows)

    def remove(self, kvpid: KVPID, selector: bytes = b"") -> int:
        """Remove nothing."""
        return 0


def own_record(kvpid: KVPID, value: bytes, timestamp: int = 0) -> KVPRecord:
    """Return the row of a value that this node publishes itself."""
    return KVPRecord(
        kvpid,
        blake3(value),
        len(value),
        timestamp,
        time_to_live=NEVER_SECONDS,
        standing=Standing.ORIGINAL,
    )


def still_match(record: KVPRecord, value: Buffer) -> bool:
    """Return whether bytes whose SHA-1 was compared once are the same today: BLAKE3 decides."""
    return len(value) == record.size and blake3(value) == record.blake3


def bytes_match(record: KVPRecord, value: bytes) -> bool:
    """Return whether ``value`` is what the row promises: size, BLAKE3 and SHA-1."""
    return (
        len(value) == record.size
        and blake3(value) == record.blake3
        and sha1(value) == record.kvpid.index
    )
