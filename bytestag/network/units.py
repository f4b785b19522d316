"""Units: slices of a value that are encrypted, cut into datagrams, and put together again (pure).

:class:`Upload` makes the ciphertext of units, :class:`Download` collects segments and decrypts.
Neither knows about loss; see ``trains``. Format: ``docs/protocol.rst``, "UNIT".
"""

from __future__ import annotations

import itertools
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bytestag.config import DATAGRAM_BYTES_MAX, TRAIN_SEGMENTS_MAX, UDP_BYTES_MAX
from bytestag.crypto.primitives import AESGCM, TAG_BYTES, InvalidTag
from bytestag.errors import PacketError
from bytestag.hashing import blake2s_keyed

UNIT_HEAD = struct.Struct(">10sIBBHIH")
UNIT_HEAD_BYTES = UNIT_HEAD.size
UNIT_TAIL = struct.Struct(">HIH")
"""Slot, unit, body bytes: how a header ends."""
INDEX_AT = 14
"""Where a header has the index in the train; the segment of the unit follows."""
SEGMENTS_MAX = 64
RISING = bytes(range(SEGMENTS_MAX))
BODY_BYTES_MIN = 64
EARLY_OVERHEAD_BYTES = 256
"""What a segment that is kept costs beside its body."""
_AAD = struct.Struct(">II")


def unit_key(root: bytes, transfer_id: bytes) -> bytes:
    """Return the 16-byte AES key of a transfer."""
    return blake2s_keyed(root, b"bytestag/unit/1" + transfer_id, 16)


def unit_bytes_for(datagram_bytes: int) -> int:
    """Return the plaintext bytes of a full unit whose last segment is one byte short."""
    return (datagram_bytes - UNIT_HEAD_BYTES) * segments_of(datagram_bytes) - TAG_BYTES - 1


def segments_of(datagram_bytes: int) -> int:
    """Return how many datagrams of this size one train may have."""
    return min(UDP_BYTES_MAX // datagram_bytes, TRAIN_SEGMENTS_MAX)


def _nonce(unit: int) -> bytes:
    return unit.to_bytes(12, "big")


def bodies_of_run(view: memoryview, stride: int) -> bytes | None:
    """Return the bodies of datagrams of ``stride`` bytes, joined; the last may be shorter.

    None unless they are one run: headers that differ in nothing but index and segment, which rise
    by one. Whole columns are compared at one go: a loop over headers takes longer than decrypting.
    """
    starts = range(0, len(view), stride)
    heads = bytearray().join([view[at : at + UNIT_HEAD_BYTES] for at in starts])
    for column in (INDEX_AT, INDEX_AT + 1):
        first = heads[column]
        if heads[column::UNIT_HEAD_BYTES] != RISING[first : first + len(starts)]:
            return None
        heads[column::UNIT_HEAD_BYTES] = bytes(len(starts))
    if heads[UNIT_HEAD_BYTES:] != heads[:-UNIT_HEAD_BYTES]:
        return None
    return b"".join([view[at + UNIT_HEAD_BYTES : at + stride] for at in starts])


@dataclass(slots=True)
class SealedUnit:
    """A unit's ciphertext, kept until every segment was acknowledged."""

    ciphertext: memoryview
    body_bytes: int
    pending: int
    """Bitmap of segments not yet acknowledged."""

    @property
    def segments(self) -> int:
        return -(-len(self.ciphertext) // self.body_bytes)

    @property
    def train_max(self) -> int:
        """How many segments one send may have, cut as they are."""
        return segments_of(UNIT_HEAD_BYTES + self.body_bytes)

    def segment(self, number: int) -> memoryview:
        start = number * self.body_bytes
        return self.ciphertext[start : start + self.body_bytes]


class Upload:
    """The sending end of a transfer."""

    __slots__ = ("_ends", "_key", "_plain", "_unacked", "next_unit", "slot", "transfer_id",
                 "unit_bytes", "units", "units_count")  # fmt: skip

    def __init__(
        self,
        transfer_id: bytes,
        slot: int,
        plain: Sequence[memoryview],
        root: bytes,
        unit_bytes: int,
    ) -> None:
        """``plain`` may lie in pieces; they are sent as one value."""
        self.transfer_id = transfer_id
        self.slot = slot
        self.unit_bytes = unit_bytes
        self.next_unit = 0
        self._plain = plain
        self._ends = list(itertools.accumulate(map(len, plain)))
        self.units_count = -(-self._ends[-1] // unit_bytes) if plain else 0
        self.units: dict[int, SealedUnit] = {}
        self._key = AESGCM(unit_key(root, transfer_id))
        self._unacked = self.units_count

    @property
    def is_done(self) -> bool:
        """Whether every segment was acknowledged."""
        return self._unacked == 0

    @property
    def has_next(self) -> bool:
        return self.next_unit < self.units_count

    def seal_next(self, body_bytes: int) -> tuple[int, SealedUnit]:
        """Encrypt the next unit; return its number and the sealed unit, which is kept."""
        number = self.next_unit
        plain = self._slice(number * self.unit_bytes)
        ciphertext = self._key.encrypt(_nonce(number), plain, _AAD.pack(number, len(plain)))
        body_bytes = _uneven_body(len(ciphertext), body_bytes)
        sealed = SealedUnit(memoryview(ciphertext), body_bytes, 0)
        sealed.pending = (1 << sealed.segments) - 1
        self.units[number] = sealed
        self.next_unit += 1
        if not self.has_next:
            self._plain = ()  # the ciphertext is kept, that is enough
        return number, sealed

    def _slice(self, start: int) -> bytes | memoryview:
        """Return the plaintext of a unit; only what lies in several pieces is copied."""
        at = bisect_right(self._ends, start)
        start -= self._ends[at - 1] if at else 0
        found, left = self._plain[at][start : start + self.unit_bytes], self.unit_bytes
        if len(found) == left or at == len(self._plain) - 1:
            return found
        parts = [found]
        for piece in self._plain[at + 1 :]:
            left -= len(parts[-1])
            parts.append(piece[:left])
        return b"".join(parts)

    def cut_anew(self, body_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut units of which nothing has arrived into smaller segments: yield (unit, segments).

        Of others the receiver knows how they were cut.
        """
        for number, sealed in self.units.items():
            if sealed.body_bytes > body_bytes and sealed.pending == (1 << sealed.segments) - 1:
                sealed.body_bytes = _uneven_body(len(sealed.ciphertext), body_bytes)
                sealed.pending = (1 << sealed.segments) - 1
                yield number, sealed.segments

    def acknowledge(self, unit: int, segments: int) -> None:
        """Segments of a unit have arrived: a bitmap of them."""
        sealed = self.units.get(unit)
        if sealed is not None:
            sealed.pending &= ~segments
            if not sealed.pending:
                del self.units[unit]
                self._unacked -= 1

    def forget(self) -> None:
        """Keep no bytes any more: nothing of it will be sent again."""
        self.units.clear()
        self._plain = ()


def _uneven_body(size: int, body_bytes: int) -> int:
    """Return the largest body that does not divide ``size``: the last segment is the shortest."""
    while size % body_bytes == 0:
        body_bytes -= 1
    return body_bytes


@dataclass(slots=True)
class _Assembly:
    buffer: bytearray
    body_bytes: int
    missing: int
    late: int = 0
    """Segments of a larger cut that came since."""


class Download:
    """The receiving end: segments in, plaintext out."""

    __slots__ = ("_assemblies", "_early", "_early_room", "_key", "_missing", "buffer", "length",
                 "slot", "transfer_id", "unit_bytes")  # fmt: skip

    def __init__(self, transfer_id: bytes, slot: int, root: bytes, length_max: int) -> None:
        self.transfer_id = transfer_id
        self.slot = slot
        self.length = -1
        self.unit_bytes = 0
        self.buffer = bytearray()
        self._key = AESGCM(unit_key(root, transfer_id))
        self._assemblies: dict[int, _Assembly] = {}
        self._missing: set[int] = set()
        self._early: list[tuple[int, int, int, bytes]] = []
        segments = length_max // DATAGRAM_BYTES_MAX + SEGMENTS_MAX
        self._early_room = length_max + length_max // 8 + segments * EARLY_OVERHEAD_BYTES

    @property
    def is_announced(self) -> bool:
        """Whether the size is known, so that units can be placed."""
        return self.length >= 0

    @property
    def is_done(self) -> bool:
        return self.is_announced and not self._missing

    @property
    def received_bytes(self) -> int:
        """Plaintext bytes that have been decrypted."""
        return max(self.length - len(self._missing) * self.unit_bytes, 0)

    def announce(self, length: int, unit_bytes: int) -> None:
        """Learn the size of what comes (from FOUND)."""
        if self.is_announced:
            return
        self.length, self.unit_bytes = length, unit_bytes
        self.buffer = bytearray(length)
        self._missing = set(range(-(-length // unit_bytes)))

    def keep(self, unit: int, segment: int, body_bytes: int, body: bytes) -> bool:
        """Keep a segment that came before the size is known; return whether there is room."""
        self._early_room -= len(body) + EARLY_OVERHEAD_BYTES
        if self._early_room < 0:
            return False
        self._early.append((unit, segment, body_bytes, body))
        return True

    def take_early(self) -> list[tuple[int, int, int, bytes]]:
        """Return what was kept: arguments for :meth:`receive`, which may be called now."""
        early, self._early = self._early, []
        return early

    def receive(self, unit: int, segment: int, body_bytes: int, body: bytes | memoryview) -> bool:
        """Place a segment; return whether a unit became whole.

        Raises:
            PacketError: the segment fits no unit, or a whole unit does not authenticate.
        """
        if unit not in self._missing:
            if unit * self.unit_bytes >= max(self.length, 1):
                raise PacketError("unit beyond the transfer")
            return False
        is_whole = not segment and len(body) == self._unit_size(unit) + TAG_BYTES <= body_bytes
        if is_whole and unit not in self._assemblies:
            self._open(unit, body)
            return True
        assembly = self._assembly_of(unit, body_bytes, 1)
        if assembly is None:
            return False
        start = segment * assembly.body_bytes
        size = min(assembly.body_bytes, len(assembly.buffer) - start)
        if len(body) != size or size <= 0:
            raise PacketError("segment does not fit its unit")
        bit = 1 << segment
        if assembly.missing & bit:
            assembly.buffer[start : start + size] = body
            assembly.missing &= ~bit
        if assembly.missing:
            return False
        self._finish(unit, assembly)
        return True

    def receive_run(self, unit: int, segment: int, body_bytes: int, bodies: bytes) -> bool:
        """Place consecutive segments of a unit, the first of which is ``segment``.

        Returns and raises as :meth:`receive`, for the run as a whole.
        """
        if unit not in self._missing:
            return self.receive(unit, segment, body_bytes, memoryview(bodies)[:body_bytes])
        is_whole = not segment and len(bodies) == self._unit_size(unit) + TAG_BYTES
        if is_whole and unit not in self._assemblies:
            self._open(unit, bodies)
            return True
        count = -(-len(bodies) // body_bytes)
        assembly = self._assembly_of(unit, body_bytes, count)
        if assembly is None:
            return False
        start = segment * body_bytes
        end, total = start + len(bodies), len(assembly.buffer)
        is_even = end == total or end == (segment + count) * body_bytes
        if end > total or not is_even:
            raise PacketError("segment does not fit its unit")
        assembly.buffer[start:end] = bodies
        assembly.missing &= ~(((1 << count) - 1) << segment)
        if assembly.missing:
            return False
        self._finish(unit, assembly)
        return True

    def _unit_size(self, unit: int) -> int:
        """Return the plaintext bytes of a unit."""
        return min(self.unit_bytes, self.length - unit * self.unit_bytes)

    def _assembly_of(self, unit: int, body_bytes: int, count: int) -> _Assembly | None:
        """Return where a unit is put together; None if it was cut into smaller segments since.

        What arrived of a larger cut is of no use: our word that it did was lost. A whole one that
        comes late is not late: somebody made up the smaller one.
        """
        known = self._assemblies.get(unit)
        if known is not None and known.body_bytes < body_bytes:
            known.late += count
            if known.late * body_bytes >= len(known.buffer):
                raise PacketError("segment does not fit its unit")
            return None
        if known is None or body_bytes < known.body_bytes:
            known = self._assemblies[unit] = self._new_assembly(unit, body_bytes)
        return known

    def _new_assembly(self, unit: int, body_bytes: int) -> _Assembly:
        size = self._unit_size(unit) + TAG_BYTES
        segments = -(-size // max(body_bytes, 1))
        if body_bytes < BODY_BYTES_MIN or segments > SEGMENTS_MAX:
            raise PacketError("malformed segment size")
        return _Assembly(bytearray(size), body_bytes, (1 << segments) - 1)

    def _finish(self, unit: int, assembly: _Assembly) -> None:
        del self._assemblies[unit]
        self._open(unit, assembly.buffer)

    def _open(self, unit: int, ciphertext: bytes | bytearray | memoryview) -> None:
        """Decrypt a whole unit to its place."""
        size = len(ciphertext) - TAG_BYTES
        start = unit * self.unit_bytes
        place = memoryview(self.buffer)[start : start + size]
        try:
            self._key.decrypt_into(_nonce(unit), ciphertext, _AAD.pack(unit, size), place)
        except InvalidTag as error:
            place[:] = bytes(size)  # whatever was written there
            raise PacketError("unit does not authenticate") from error
        self._missing.discard(unit)
