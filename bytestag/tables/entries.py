"""What the tables beside the values hand out: due rows, provider records, contacts (pure).

Apart from the tables in SQL, so that a node whose tables are in memory loads no SQL.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from bytestag.config import MIB
from bytestag.keys import KeyBytes
from bytestag.tables.base import KVPID

T = TypeVar("T")

LEASE_SECONDS = 900.0
SEQ_MAX = 2**63 - 1  # what a database's integer holds
CONTACTS_MAX = 2000  # twelve full buckets of twenty, and as many spares again, many times over
STATE_BYTES_MAX = MIB


class Due(NamedTuple):
    """A row and when it is due, in wall clock seconds."""

    kvpid: KVPID
    blake3: bytes
    due_time: float


class Provider(NamedTuple):
    """One answer to "who has this key?"."""

    provider_id: bytes
    addresses: bytes
    expires: int
    record: bytes


@dataclass(frozen=True, slots=True)
class KnownContact:
    """A node that answered once, as of ``last_seen`` (wall clock seconds)."""

    node_id: KeyBytes
    host: str
    port: int
    last_seen: float
    card: bytes = b""
    """Its signed address card, opaque to tables."""


def sample(found: list[T], limit: int, rng: random.Random | None) -> list[T]:
    """Return at most ``limit`` of what was found, at random."""
    return (rng or random.Random()).sample(found, min(limit, len(found)))
