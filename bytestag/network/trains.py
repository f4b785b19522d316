"""Trains: what was sent together, what of it arrived, what must go again (pure).

:class:`TrainSender` fills a window with units of uploads and finds losses; ``arrivals`` is the
other end. A train number is used once, so an acknowledgement is never ambiguous. State is kept for
each train and each hole, never for each datagram.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence

from bytestag.config import DATAGRAM_BYTES_MAX
from bytestag.network.burst import Burst
from bytestag.network.congestion import Congestion
from bytestag.network.frames import Units
from bytestag.network.handshake import UNIT, header
from bytestag.network.rate_limit import RateLimit
from bytestag.network.rtt import Rtt
from bytestag.network.train import Segment, Train, bits
from bytestag.network.units import (
    INDEX_AT,
    RISING,
    SEGMENTS_MAX,
    UNIT_HEAD,
    UNIT_HEAD_BYTES,
    UNIT_TAIL,
    SealedUnit,
    Upload,
    segments_of,
)
from bytestag.recent import Recent

PROBE_SEGMENTS = 2
PROBES_MAX = 3
GIVEN_UP_MAX = 256
PATIENCE_MAX = 4.0
BYTES_AT_ONCE = 2 * 1024 * 1024
"""What one wake-up sends to a peer, however fast it seems to be; then it is the others' turn."""
TRAINS_MAX = 2**32
FIRST_GAP_SHARE = 32
"""The first gap is so much shorter, as all is unknown then."""
LEFT_OUT_MAX = 8


class TrainSender:
    """Everything a session has to send as units."""

    def __init__(
        self,
        remote_id: bytes,
        rtt: Rtt,
        congestion: Congestion,
        gap: Callable[[], int] = lambda: TRAINS_MAX,
        limits: Sequence[RateLimit] = (),
    ) -> None:
        """``limits`` bound the rate beside the path. ``gap`` returns after how many trains a number
        is left out next; nobody may guess it."""
        self._head = header(remote_id, UNIT)
        self._rtt = rtt
        self.congestion = congestion
        self._limits = limits
        self.datagram_bytes = DATAGRAM_BYTES_MAX
        self.is_cutting = False
        """Whether trains are to be sent datagram by datagram."""
        self._uploads: OrderedDict[bytes, Upload] = OrderedDict()
        self._unsent: OrderedDict[bytes, Upload] = OrderedDict()
        """Those with units that were not begun, in order."""
        self._trains: OrderedDict[int, Train] = OrderedDict()
        self._given_up: Recent[int, bool] = Recent(GIVEN_UP_MAX)
        """Trains taken for lost of late: an acknowledgement that comes all the same says that we
        were too quick."""
        self._lost: deque[Segment] = deque()
        self._begun: tuple[Upload, int, SealedUnit, int] | None = None
        """A unit of which some segments were sent: upload, number, unit, next segment."""
        self._next_train = 0
        self._gap = gap
        self._leave_out = gap() // FIRST_GAP_SHARE
        self._left_out: deque[int] = deque(maxlen=LEFT_OUT_MAX)
        """Numbers that were never sent: who acknowledges one did not wait for what he acknowledges,
        and would have us send faster than the path takes (RFC 9000, 21.4)."""
        self._in_flight = 0
        self._largest_acked_time = 0.0
        self._last_progress = 0.0
        self._patience = 1.0
        """By how much more than usual reordering is allowed for."""
        self._finished: list[Upload] = []
        self._loss_at: float | None = None
        self._probes = 0
        """Probes sent since the last acknowledgement."""
        self._is_probe_due = False
        self.resent_segments = 0

    # --- Commands --------------------------------------------------------------------------------

    def add(self, upload: Upload) -> None:
        """Begin to send an upload; it is sent in order of arrival."""
        if upload.is_done:
            self._finished.append(upload)
        else:
            self._uploads[upload.transfer_id] = upload
            self._unsent[upload.transfer_id] = upload

    def cancel(self, transfer_id: bytes) -> None:
        """Forget an upload; what is in flight of it is not sent again."""
        upload = self._uploads.pop(transfer_id, None)
        if upload is None:
            return
        self._unsent.pop(transfer_id, None)
        if self._begun is not None and self._begun[0] is upload:
            self._begun = None
        upload.forget()

    def take_finished(self) -> list[Upload]:
        """Return the uploads whose every segment was acknowledged."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def active(self) -> int:
        return len(self._uploads)

    @property
    def is_stuck(self) -> bool:
        """Whether several probes went unanswered."""
        return self._probes >= PROBES_MAX

    def shrink(self, datagram_bytes: int) -> None:
        """Send smaller datagrams from now on; of units of which nothing has arrived as well.

        To be called while :attr:`is_stuck`, when nothing is in flight.
        """
        self.datagram_bytes = datagram_bytes
        cut = {
            (upload, unit): segments
            for upload in self._uploads.values()
            for unit, segments in upload.cut_anew(datagram_bytes - UNIT_HEAD_BYTES)
        }
        if self._begun is not None and self._begun[:2] in cut:
            self._begun = None
        self._lost = deque(lost for lost in self._lost if lost[:2] not in cut)
        for (upload, unit), segments in cut.items():
            self._lost.extend((upload, unit, number) for number in range(segments))

    # --- Receiving acknowledgements --------------------------------------------------------------

    def receive_units(self, units: Units, now: float) -> bool:
        """Take the bitmaps of trains; return False if one was left out.

        Those of other trains never sent are ignored.
        """
        largest: tuple[int, float] | None = None
        for number, bitmap in units.pairs:
            train = self._trains.get(number)
            if train is None:
                if number in self._left_out and bitmap:
                    return False
                self._regret(number)
                continue
            newly = train.pending & bitmap
            if newly:
                if largest is None or number > largest[0]:
                    largest = (number, train.time)
                self._acknowledge(number, train, newly, now)
        if largest is not None:
            self._last_progress = now
            self._probes, self._is_probe_due = 0, False
            if largest[1] >= self._largest_acked_time:
                self._largest_acked_time = largest[1]
                self._rtt.sample(max(now - largest[1], 0.0))
            self.congestion.ack_ended(self._in_flight, now)
            self._detect_loss(now)
        return True

    def _regret(self, number: int) -> None:
        """If a train was taken for lost and arrived after all, be more patient from now on."""
        if self._given_up.pop(number):
            self._patience = min(2 * self._patience, PATIENCE_MAX)

    def _acknowledge(self, number: int, train: Train, newly: int, now: float) -> None:
        size = newly.bit_count() * train.sizes
        self._in_flight -= size
        self.congestion.acked(size, train.snapshot, now)
        train.pending &= ~newly
        if train.segments is None:
            assert train.upload is not None
            self._arrived(train.upload, train.unit, newly << train.first)
        else:
            for index in bits(newly & ((1 << len(train.segments)) - 1)):
                upload, unit, segment = train.segments[index]
                self._arrived(upload, unit, 1 << segment)
        if not train.pending:
            del self._trains[number]

    def _arrived(self, upload: Upload, unit: int, segments: int) -> None:
        upload.acknowledge(unit, segments)
        if upload.is_done and self._uploads.pop(upload.transfer_id, None) is not None:
            self._finished.append(upload)

    def _detect_loss(self, now: float) -> None:
        """Lost is what was sent before something acknowledged, and long enough ago (RFC 8985)."""
        wait = self._rtt.smoothed + self._rtt.reordering * self._patience
        self._loss_at = None
        for number, train in list(self._trains.items()):
            if train.time >= self._largest_acked_time:
                break
            if train.time + wait > now:
                self._loss_at = train.time + wait
                break
            self._declare_lost(number, train)

    def _declare_lost(self, number: int, train: Train) -> None:
        del self._trains[number]
        self._given_up.put(number, True)
        size = train.pending.bit_count() * train.sizes
        self._in_flight -= size
        self.congestion.lost(size, train.snapshot)
        self._lost.extend(train.waiting())

    # --- Time ------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when :meth:`on_timeout` wants to be called, or more may be sent."""
        times = [self._loss_at] if self._loss_at is not None else []
        has_room = self._in_flight < self.congestion.window_bytes
        if self._has_more and has_room and not self._probes:
            times.append(self._send_at())
        if self._trains:
            times.append(self._probe_at())
        return min(times, default=None)

    def _send_at(self) -> float:
        """Return from when on the pace and all limits allow to send more."""
        pace = self.congestion.send_at()
        return max(pace, *(limit.may_at for limit in self._limits)) if self._limits else pace

    def _probe_at(self) -> float:
        newest = next(reversed(self._trains.values())).time
        return max(newest, self._last_progress) + self._rtt.probe_timeout

    def on_timeout(self, now: float) -> None:
        """Find losses; send a probe where acknowledgements fail to come (RFC 8985, 9002)."""
        if self._loss_at is not None and now >= self._loss_at:
            self._detect_loss(now)
        if not self._trains or now < self._probe_at():
            return
        self._rtt.back_off()
        self._last_progress = now
        self._probes += 1
        self._is_probe_due = True
        if self._probes >= PROBES_MAX:  # nothing gets through: begin anew when something does
            for number, train in list(self._trains.items()):
                self._declare_lost(number, train)

    # --- Sending ---------------------------------------------------------------------------------

    @property
    def _has_more(self) -> bool:
        return bool(self._lost or self._begun or self._unsent)

    def bursts_to_send(self, now: float, *, segments_max: int = SEGMENTS_MAX) -> Iterator[Burst]:
        """Yield trains while window and pace allow; lost segments go first."""
        if self._is_probe_due:
            self._is_probe_due = False
            yield from self._probe(now)
        if self._probes and self._trains:
            return
        self._probes = 0  # of what was not answered nothing is wanted any more
        congestion = self.congestion
        end = min(congestion.window_bytes, self._in_flight + BYTES_AT_ONCE)
        most = congestion.segments(self.datagram_bytes, segments_of(self.datagram_bytes))
        most = min(most, segments_max)
        while self._in_flight < end:
            if not self._has_more:
                congestion.limited(self._in_flight)
                return
            if now < self._send_at():
                if now >= congestion.send_at():
                    congestion.limited(self._in_flight)  # the path takes more than the limit
                return
            if self._lost:
                yield from self._resend(now, most)
            else:
                yield self._run_train(now, *self._next_run(most))

    def _probe(self, now: float) -> Iterator[Burst]:
        """Send the newest segments in flight again, or something lost, or new: RFC 8985 §7."""
        if not self._lost and self._trains:
            self._lost.extend(next(reversed(self._trains.values())).waiting()[-PROBE_SEGMENTS:])
        number = self._next_train
        yield from self._resend(now, PROBE_SEGMENTS)
        if number == self._next_train and self._has_more:  # all of that was cancelled
            yield self._run_train(now, *self._next_run(PROBE_SEGMENTS))

    def _next_run(self, most: int) -> tuple[Upload, int, SealedUnit, int, int]:
        """Return the next segments of a unit: upload, number, unit, first segment, how many."""
        if self._begun is not None:
            upload, number, sealed, first = self._begun
        else:
            upload = next(iter(self._unsent.values()))
            number, sealed = upload.seal_next(self.datagram_bytes - UNIT_HEAD_BYTES)
            first = 0
            if not upload.has_next:
                del self._unsent[upload.transfer_id]
        count = min(most, sealed.segments - first, sealed.train_max)
        is_whole = first + count == sealed.segments
        self._begun = None if is_whole else (upload, number, sealed, first + count)
        return upload, number, sealed, first, count

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
            if run and (sealed.body_bytes != body or len(run) == sealed.train_max):
                yield self._mixed_train(now, run, body)
                run = []
            run.append((upload, unit, segment))
            body = sealed.body_bytes
            if is_last:  # shorter than the others, so it ends its train
                yield self._mixed_train(now, run, body)
                run = []
        if run:
            yield self._mixed_train(now, run, body)

    def _run_train(
        self, now: float, upload: Upload, unit: int, sealed: SealedUnit, first: int, count: int
    ) -> Burst:
        """Send segments of one unit that follow each other; their headers differ in two bytes."""
        size, body = UNIT_HEAD_BYTES, sealed.body_bytes
        text = sealed.ciphertext[first * body : (first + count) * body]
        number = self._number(now, count, body, upload=upload, unit=unit, first=first)
        if count == 1:
            head = UNIT_HEAD.pack(self._head, number, 0, first, upload.slot, unit, body)
            return Burst([head, text], size + body, is_cut=self.is_cutting)
        head = self._head + number.to_bytes(4, "big") + bytes(2)
        block = bytearray((head + UNIT_TAIL.pack(upload.slot, unit, body)) * count)
        block[INDEX_AT::size] = RISING[:count]
        block[INDEX_AT + 1 :: size] = RISING[first : first + count]
        heads = memoryview(block)
        buffers: list[bytes | memoryview] = [heads] * (2 * count)
        buffers[::2] = [heads[i : i + size] for i in range(0, len(block), size)]
        buffers[1::2] = [text[i : i + body] for i in range(0, len(text), body)]
        return Burst(buffers, size + body, is_cut=self.is_cutting)

    def _mixed_train(self, now: float, segments: list[Segment], body: int) -> Burst:
        """Send segments of several units."""
        number = self._number(now, len(segments), body, segments)
        buffers: list[bytes | memoryview] = []
        for index, (upload, unit, segment) in enumerate(segments):
            head = UNIT_HEAD.pack(self._head, number, index, segment, upload.slot, unit, body)
            buffers += (head, upload.units[unit].segment(segment))
        return Burst(buffers, UNIT_HEAD_BYTES + body, is_cut=self.is_cutting)

    def _number(
        self,
        now: float,
        count: int,
        body: int,
        segments: list[Segment] | None = None,
        *,
        upload: Upload | None = None,
        unit: int = 0,
        first: int = 0,
    ) -> int:
        """Remember a train that goes now; return its number."""
        if self._next_train == self._leave_out:
            self._left_out.append(self._next_train)
            self._next_train += 1
            self._leave_out = self._next_train + 1 + self._gap()
        number = self._next_train
        self._next_train += 1
        snapshot = self.congestion.sent(count * body, self._in_flight, now)
        pending = (1 << count) - 1
        self._trains[number] = Train(segments, upload, unit, first, pending, body, snapshot)
        self._in_flight += count * body
        for limit in self._limits:
            limit.take(count * body, now)
        return number
