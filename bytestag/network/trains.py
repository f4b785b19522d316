"""Trains: what was sent together, what of it arrived, what must go again (pure).

:class:`TrainSender` fills a window with units of uploads and finds losses; :class:`TrainReceiver`
keeps the bitmaps to acknowledge. A train number is used once, so an acknowledgement is never
ambiguous. State is kept for each train and each hole, never for each datagram.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from bytestag.network.frames import UNIT_PAIRS_MAX, Units
from bytestag.network.handshake import UNIT, header
from bytestag.network.rtt import Rtt
from bytestag.network.units import (
    INDEX_AT,
    RISING,
    UNIT_HEAD,
    UNIT_HEAD_BYTES,
    UNIT_TAIL,
    SealedUnit,
    Upload,
)

PROBE_SEGMENTS = 2
TRAINS_REMEMBERED_MAX = 256
REPEATED_PAIRS = 4
Segment = tuple[Upload, int, int]
"""Upload, unit, segment."""


@dataclass(slots=True)
class _Train:
    time: float
    segments: list[Segment] | None
    """What each index carries; None for a whole unit, whose indices are its segments."""
    upload: Upload | None
    unit: int
    pending: int
    sizes: int
    """Bytes of a full segment; the last one may be shorter, which the window may ignore."""

    def lost(self) -> list[Segment]:
        """Return the segments not acknowledged."""
        if self.segments is not None:
            return [self.segments[index] for index in _bits(self.pending)]
        assert self.upload is not None
        return [(self.upload, self.unit, index) for index in _bits(self.pending)]


@dataclass(frozen=True, slots=True)
class Burst:
    """Buffers to send as one: ``segment_bytes`` each, the last may be shorter (2 a datagram)."""

    buffers: list[bytes | memoryview]
    segment_bytes: int


class TrainSender:
    """Everything a session has to send as units."""

    def __init__(self, remote_id: bytes, rtt: Rtt, window_bytes: int) -> None:
        self._head = header(remote_id, UNIT)
        self._rtt = rtt
        self.window_bytes = window_bytes
        self.datagram_bytes = 1200
        self._uploads: OrderedDict[bytes, Upload] = OrderedDict()
        self._trains: OrderedDict[int, _Train] = OrderedDict()
        self._lost: deque[Segment] = deque()
        self._next_train = 0
        self._in_flight = 0
        self._largest_acked_time = 0.0
        self._last_progress = 0.0
        self._finished: list[Upload] = []
        self._loss_at: float | None = None
        self._probes_left: int | None = None
        """After a probe time-out: segments that may go before an acknowledgement comes."""
        self.resent_segments = 0

    # --- Commands --------------------------------------------------------------------------------

    def add(self, upload: Upload) -> None:
        """Begin to send an upload; it is sent in order of arrival."""
        if upload.is_done:
            self._finished.append(upload)
        else:
            self._uploads[upload.transfer_id] = upload

    def cancel(self, transfer_id: bytes) -> None:
        """Forget an upload; what is in flight of it is not sent again."""
        self._uploads.pop(transfer_id, None)

    def take_finished(self) -> list[Upload]:
        """Return the uploads whose every segment was acknowledged."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def active(self) -> int:
        return len(self._uploads)

    # --- Receiving acknowledgements --------------------------------------------------------------

    def receive_units(self, units: Units, now: float) -> None:
        """Take the bitmaps of trains; those of trains never sent are ignored."""
        largest: tuple[int, float] | None = None
        for number, bitmap in units.pairs:
            train = self._trains.get(number)
            if train is None:
                continue
            newly = train.pending & bitmap
            if newly:
                if largest is None or number > largest[0]:
                    largest = (number, train.time)
                self._acknowledge(number, train, newly)
        if largest is not None:
            self._last_progress = now
            self._probes_left = None
            if largest[1] >= self._largest_acked_time:
                self._largest_acked_time = largest[1]
                self._rtt.sample(max(now - largest[1], 0.0))
            self._detect_loss(now)

    def _acknowledge(self, number: int, train: _Train, newly: int) -> None:
        self._in_flight -= newly.bit_count() * train.sizes
        train.pending &= ~newly
        if train.segments is None:
            assert train.upload is not None
            self._arrived(train.upload, train.unit, newly)
        else:
            for index in _bits(newly):
                upload, unit, segment = train.segments[index]
                self._arrived(upload, unit, 1 << segment)
        if not train.pending:
            del self._trains[number]

    def _arrived(self, upload: Upload, unit: int, segments: int) -> None:
        upload.acknowledge(unit, segments)
        if upload.is_done and self._uploads.pop(upload.transfer_id, None) is not None:
            self._finished.append(upload)

    def _detect_loss(self, now: float) -> None:
        """Lost is what was sent before something acknowledged, and long enough ago."""
        wait = self._rtt.smoothed + self._rtt.reordering
        self._loss_at = None
        for number, train in list(self._trains.items()):
            if train.time >= self._largest_acked_time:
                break
            if train.time + wait > now:
                self._loss_at = train.time + wait
                break
            self._declare_lost(number, train)

    def _declare_lost(self, number: int, train: _Train) -> None:
        del self._trains[number]
        self._in_flight -= train.pending.bit_count() * train.sizes
        self._lost.extend(train.lost())

    # --- Time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when :meth:`on_timeout` wants to be called."""
        if not self._trains:
            return None
        newest = next(reversed(self._trains.values())).time
        probe = max(newest, self._last_progress) + self._rtt.probe_timeout
        return probe if self._loss_at is None else min(probe, self._loss_at)

    def on_timeout(self, now: float) -> None:
        """Find losses; after a probe time-out everything in flight is taken for lost."""
        self._detect_loss(now)
        if not self._trains:
            return
        newest = next(reversed(self._trains.values())).time
        if now >= max(newest, self._last_progress) + self._rtt.probe_timeout:
            for number, train in list(self._trains.items()):
                self._declare_lost(number, train)
            self._rtt.back_off()
            self._last_progress = now
            self._probes_left = PROBE_SEGMENTS

    # --- Sending ---------------------------------------------------------------------------------

    def bursts_to_send(self, now: float) -> Iterator[Burst]:
        """Yield trains while the window has room; lost segments go first."""
        if self._probes_left is not None:
            most, self._probes_left = self._probes_left, 0
            yield from self._resend(now, most)
            return
        while self._in_flight < self.window_bytes:
            if self._lost:
                yield from self._resend(now, 16)
                continue
            upload = next((u for u in self._uploads.values() if u.has_next), None)
            if upload is None:
                return
            unit, sealed = upload.seal_next(self.datagram_bytes - UNIT_HEAD_BYTES)
            yield self._unit_train(now, upload, unit, sealed)

    def _resend(self, now: float, most: int) -> Iterator[Burst]:
        """Send lost segments again, those of equal size together."""
        run: list[Segment] = []
        body = 0
        while self._lost and most:
            upload, unit, segment = self._lost.popleft()
            sealed = upload.units.get(unit)
            is_wanted = upload.transfer_id in self._uploads
            if sealed is None or not is_wanted or not sealed.pending >> segment & 1:
                continue
            most -= 1
            self.resent_segments += 1
            is_last = segment == sealed.segments - 1
            if run and sealed.body_bytes != body:
                yield self._train(now, run, body)
                run = []
            run.append((upload, unit, segment))
            body = sealed.body_bytes
            if is_last:  # shorter than the others, so it ends its train
                yield self._train(now, run, body)
                run = []
        if run:
            yield self._train(now, run, body)

    def _unit_train(self, now: float, upload: Upload, unit: int, sealed: SealedUnit) -> Burst:
        """Send a whole unit; its headers differ in two bytes only."""
        body, count, text = sealed.body_bytes, sealed.segments, sealed.ciphertext
        number = self._number(_Train(now, None, upload, unit, (1 << count) - 1, body), count)
        head = self._head + number.to_bytes(4, "big") + bytes(2)
        block = bytearray((head + UNIT_TAIL.pack(upload.slot, unit, body)) * count)
        block[INDEX_AT::UNIT_HEAD_BYTES] = block[INDEX_AT + 1 :: UNIT_HEAD_BYTES] = RISING[:count]
        view = memoryview(block)
        buffers: list[bytes | memoryview] = [view] * (2 * count)
        buffers[::2] = [
            view[i : i + UNIT_HEAD_BYTES] for i in range(0, len(block), UNIT_HEAD_BYTES)
        ]
        buffers[1::2] = [text[i : i + body] for i in range(0, len(text), body)]
        return Burst(buffers, UNIT_HEAD_BYTES + body)

    def _train(self, now: float, segments: list[Segment], body: int) -> Burst:
        """Send segments of several units."""
        pending = (1 << len(segments)) - 1
        number = self._number(_Train(now, segments, None, 0, pending, body), len(segments))
        buffers: list[bytes | memoryview] = []
        for index, (upload, unit, segment) in enumerate(segments):
            head = UNIT_HEAD.pack(self._head, number, index, segment, upload.slot, unit, body)
            buffers += (head, upload.units[unit].segment(segment))
        return Burst(buffers, UNIT_HEAD_BYTES + body)

    def _number(self, train: _Train, count: int) -> int:
        """Remember a train; return its number."""
        number = self._next_train
        self._next_train += 1
        self._trains[number] = train
        self._in_flight += count * train.sizes
        return number


class TrainReceiver:
    """The bitmaps of trains that came in."""

    def __init__(self) -> None:
        self._bitmaps: OrderedDict[int, int] = OrderedDict()
        self._fresh: dict[int, None] = {}

    def receive(self, train: int, index: int) -> None:
        """A segment came and was kept (or is not needed any more)."""
        self.receive_many(train, 1 << index)

    def receive_many(self, train: int, indices: int) -> None:
        """Segments came: a bitmap of their indices."""
        self._bitmaps[train] = self._bitmaps.get(train, 0) | indices
        self._fresh[train] = None
        if len(self._fresh) > TRAINS_REMEMBERED_MAX:
            del self._fresh[next(iter(self._fresh))]
        if len(self._bitmaps) > TRAINS_REMEMBERED_MAX:
            self._bitmaps.popitem(last=False)

    def units_to_send(self) -> Iterator[Units]:
        """Yield what came since the last call, and some trains before, lest an ACK was lost."""
        if not self._fresh:
            return
        for train in list(self._bitmaps)[-REPEATED_PAIRS:]:
            self._fresh[train] = None
        pairs = [(train, self._bitmaps[train]) for train in self._fresh if train in self._bitmaps]
        self._fresh = {}
        for start in range(0, len(pairs), UNIT_PAIRS_MAX):
            yield Units(tuple(pairs[start : start + UNIT_PAIRS_MAX]))


def _bits(bitmap: int) -> Iterator[int]:
    while bitmap:
        low = bitmap & -bitmap
        yield low.bit_length() - 1
        bitmap ^= low
