"""A provider table for worlds with millions of records: 20 bytes a key instead of some 500.

It keeps each record's keys in one string and looks through a provider's records for a key, so it is
slow to be asked and quick to be told. Verdicts are those of ``MemoryProviderTable``, whose bounds
for each key and in all no world here reaches.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from bytestag.keys import KeyBytes
from bytestag.tables.entries import SEQ_MAX, Provider, sample
from bytestag.tables.memory_stores import KEYS_PER_PROVIDER_MAX

KEY_BYTES = 20


class _Record(NamedTuple):
    seq: int
    expires: int
    addresses: bytes
    record: bytes
    keys: bytes


class PackedProviderTable:
    """Provider records, bounded by provider."""

    def __init__(self) -> None:
        self._records: dict[tuple[bytes, bytes], _Record] = {}
        self._of_provider: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return self._of_provider.total()

    def put(
        self,
        keys: Collection[KeyBytes],
        provider_id: bytes,
        prefix: bytes,
        seq: int,
        expires: int,
        addresses: bytes,
        record: bytes = b"",
        *,
        now: float = 0.0,
    ) -> int:
        """Store a record in place of an older one; return how many of its keys are held now."""
        name = (provider_id, prefix)
        known = self._records.get(name)
        if seq > SEQ_MAX or (known is not None and known.seq >= seq):
            return 0
        if known is not None:
            self._of_provider[provider_id] -= len(known.keys) // KEY_BYTES
        room = KEYS_PER_PROVIDER_MAX - self._of_provider[provider_id]
        held = sorted(set(keys))[: max(0, room)]
        self._records[name] = _Record(seq, expires, addresses, record, b"".join(held))
        self._of_provider[provider_id] += len(held)
        return len(held)

    def renew(
        self,
        provider_id: bytes,
        records: Sequence[tuple[bytes, bytes]],
        seq: int,
        expires: int,
        addresses: bytes,
    ) -> list[bool]:
        """Give records a later end; return for each whether it is here, from these addresses."""
        flags = []
        for prefix, record in records:
            known = self._records.get((provider_id, prefix))
            is_here = False
            if known is not None and known.seq < seq <= SEQ_MAX:
                is_here = (known.record, known.addresses) == (record, addresses)
            if known is not None and is_here:
                renewed = known._replace(seq=seq, expires=expires)
                self._records[provider_id, prefix] = renewed
            flags.append(is_here)
        return flags

    def lookup(
        self, key: KeyBytes, now: float, limit: int = 20, rng: random.Random | None = None
    ) -> list[Provider]:
        """Return a random choice of those who serve a key now."""
        found = [
            Provider(provider_id, row.addresses, row.expires, row.record)
            for (provider_id, _), row in self._records.items()
            if row.expires > now and _holds(row.keys, key)
        ]
        return sample(found, limit, rng)

    def expire(self, now: float, limit: int = 1000) -> int:
        """Remove records past their time; return how many."""
        gone = [name for name, row in self._records.items() if row.expires <= now][:limit]
        for name in gone:
            self._of_provider[name[0]] -= len(self._records.pop(name).keys) // KEY_BYTES
        return len(gone)


def _holds(keys: bytes, key: bytes) -> bool:
    at = keys.find(key)
    while at % KEY_BYTES and at >= 0:
        at = keys.find(key, at + 1)
    return at >= 0
