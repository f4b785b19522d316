"""Session: one encrypted conversation with one peer (pure).

Joins the control channel and the trains of units to one machine. The shell calls, always in this
order: ``receive`` (or ``on_timeout``), ``take_events``, ``bursts_to_send``, ``next_deadline``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from bytestag.config import DATAGRAM_BYTES_MAX, HOUR, UDP_BYTES_MAX
from bytestag.crypto.identity import Address
from bytestag.errors import PacketError
from bytestag.network import frames
from bytestag.network.arrivals import TrainReceiver
from bytestag.network.burst import Burst
from bytestag.network.congestion import NORMAL_QUEUE_SECONDS, Congestion
from bytestag.network.control import ControlChannel
from bytestag.network.early import EARLY_BYTES_MAX, EARLY_TRAIN_SEGMENTS
from bytestag.network.handshake import ACCEPT, CHALLENGE, CONTROL, UNIT, Agreement
from bytestag.network.path import Path
from bytestag.network.path_probes import PathProbes
from bytestag.network.rate_limit import RateLimit
from bytestag.network.rtt import Rtt
from bytestag.network.session_events import (
    Closed,
    DownloadFailed,
    DownloadProgressed,
    Event,
    MessageReceived,
    UploadFinished,
)
from bytestag.network.trains import TrainSender
from bytestag.network.units import (
    SEGMENTS_MAX,
    UNIT_HEAD,
    UNIT_HEAD_BYTES,
    Download,
    Upload,
    bodies_of_run,
    unit_bytes_for,
)
from bytestag.recent import Recent

SESSION_SECONDS_MAX = 12 * HOUR
DRAIN_SECONDS = 10.0
"""How long an old session goes on, so that what is under way can end."""
UNCONFIRMED_SECONDS = 5.0
"""Who gets our ACCEPT says so at once; who does not, begins anew."""
DOUBT_SECONDS = 5.0
"""A peer that answers nothing for so long, asked again and again, may have restarted."""
DOWNLOADS_MAX = 4096
TRANSFERS_REMEMBERED_MAX = 4096
BACKOFFS_MAX = 20
"""Probes in vain after which the peer is gone: some 45 s. At two datagrams in five lost, each way,
one probe in three gets its answer."""


class Session:
    """One end of a session, after the handshake."""

    def __init__(
        self,
        agreement: Agreement,
        now: float,
        *,
        window_bytes: int,
        idle_seconds: float,
        random_bytes: Callable[[int], bytes],
        datagram_bytes_max: int = UDP_BYTES_MAX,
        queue_seconds: float = NORMAL_QUEUE_SECONDS,
        limits: Sequence[RateLimit] = (),
    ) -> None:
        self.agreement = agreement
        self.is_confirmed = agreement.is_initiator
        self.is_closed = False
        self._path = Path(agreement.address, random_bytes)
        self._idle_seconds = idle_seconds
        self._expires = now + SESSION_SECONDS_MAX
        self._is_old = False
        self.last_received = now
        self._rtt = Rtt()
        self._control = ControlChannel(
            agreement.remote_id, agreement.send_key, agreement.receive_key, self._rtt
        )
        congestion = Congestion(agreement.burst_bytes, queue_seconds, window_bytes)
        self._sender = TrainSender(
            agreement.remote_id, self._rtt, congestion, lambda: random_bytes(1)[0], limits
        )
        self._receiver = TrainReceiver()
        self._downloads: dict[int, Download] = {}
        self._transfers: Recent[bytes, bool] = Recent(TRANSFERS_REMEMBERED_MAX)
        self._slot = 0
        self._events: list[Event] = []
        self._unconfirmed_room = 0
        """Bytes that may be sent before the peer is confirmed."""
        self._probes = PathProbes(self._control, self._sender, datagram_bytes_max)
        if agreement.is_initiator:  # the first authentic datagram confirms us to the responder
            self._control.greet()

    # --- Getters ---------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        return self._path.address

    @property
    def rtt_seconds(self) -> float:
        return self._rtt.smoothed

    @property
    def uploads_active(self) -> int:
        return self._sender.active

    @property
    def messages_queued(self) -> int:
        """Fragments of messages that wait to be sent."""
        return self._control.queued

    @property
    def resent_segments(self) -> int:
        return self._sender.resent_segments

    @property
    def is_old(self) -> bool:
        """Whether a new handshake should replace this session."""
        return self._is_old or self._control.is_exhausted

    def is_doubtful(self, now: float) -> bool:
        """Whether the peer may have forgotten this session: a new handshake would tell."""
        since = self._control.waiting_since
        return since is not None and now >= max(since, self.last_received) + DOUBT_SECONDS

    def next_deadline(self) -> float:
        """Return when :meth:`on_timeout` wants to be called; infinity once it is closed."""
        if self.is_closed:
            return math.inf
        machines = (self._control, self._sender, self._receiver)
        times = [machine.next_deadline() for machine in machines]
        if not (self.is_confirmed or self._may_send_unconfirmed):
            return self._idle_at
        return min([self._idle_at, self._expires, *(t for t in times if t is not None)])

    @property
    def _idle_at(self) -> float:
        """When it ends if nothing more is heard."""
        seconds = self._idle_seconds if self.is_confirmed else UNCONFIRMED_SECONDS
        return self.last_received + seconds

    @property
    def _may_send_unconfirmed(self) -> bool:
        return self._unconfirmed_room >= EARLY_TRAIN_SEGMENTS * DATAGRAM_BYTES_MAX

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # --- Receiving -------------------------------------------------------------------------------

    def receive(self, datagram: memoryview, address: Address, now: float) -> None:
        """Take a datagram with our connection ID.

        Raises:
            PacketError: forged, replayed or malformed; nothing has changed then.
        """
        if self.is_closed:
            return
        kind = datagram[9]
        if kind == UNIT:
            self._receive_unit(datagram, address, now)
        elif kind == CONTROL:
            self._receive_control(bytes(datagram), address, now)
        elif kind not in (ACCEPT, CHALLENGE):  # late copies of the handshake's answers
            raise PacketError("unknown type in a session")

    def _receive_control(self, datagram: bytes, address: Address, now: float) -> None:
        counter, received = self._control.open(datagram)
        is_newest = counter > self._control.largest_received
        self.last_received = now
        self.is_confirmed = True
        if address != self.address and is_newest:
            self._path.seen_at(address)
        for frame in received:
            match frame:
                case frames.Units():
                    if not self._sender.receive_units(frame, now):
                        self.close()
                case frames.PathChallenge(nonce):
                    self._control.send_frame(frames.PathResponse(nonce))
                case frames.PathResponse(nonce):
                    self._prove_path(nonce, address, now)
                case frames.Close(reason):
                    self._end(f"closed by the peer ({reason})")
        for message in self._control.receive(counter, received, now):
            self._events.append(MessageReceived(message))
        self._events.extend(UploadFinished(u) for u in self._sender.take_finished())
        self._probes.pings_arrived()

    def _receive_unit(self, datagram: memoryview, address: Address, now: float) -> None:
        if len(datagram) <= UNIT_HEAD_BYTES or address != self.address or not self.is_confirmed:
            raise PacketError("misplaced unit")
        _, train, index, segment, slot, unit, body = UNIT_HEAD.unpack_from(datagram)
        if index >= 64 or segment >= 64:
            raise PacketError("malformed unit head")
        download = self._downloads.get(slot)
        if download is not None:
            try:
                if not download.is_announced:  # its FOUND was lost, and comes again
                    if not download.keep(unit, segment, body, bytes(datagram[UNIT_HEAD_BYTES:])):
                        return
                elif download.receive(unit, segment, body, datagram[UNIT_HEAD_BYTES:]):
                    self.last_received = now
                    self._events.append(DownloadProgressed(download))
            except PacketError:
                self._spoil(download)
                raise
        self._receiver.receive(train, index)

    def receive_run(self, view: memoryview, stride: int, address: Address, now: float) -> bool:
        """Take datagrams that arrived merged, if they are consecutive segments of one unit.

        Returns False, and has done nothing, if they are not; raises PacketError as ``receive``.
        """
        if self.is_closed or not self.is_confirmed or address != self.address:
            return False
        _, train, index, segment, slot, unit, body = UNIT_HEAD.unpack_from(view)
        download = self._downloads.get(slot)
        count = -(-len(view) // stride)
        if (
            download is None
            or not download.is_announced
            or stride != UNIT_HEAD_BYTES + body
            or len(view) <= (count - 1) * stride + UNIT_HEAD_BYTES
            or max(index, segment) + count > SEGMENTS_MAX
        ):
            return False
        bodies = bodies_of_run(view, stride)
        if bodies is None:
            return False
        try:
            if download.receive_run(unit, segment, body, bodies):
                self.last_received = now
                self._events.append(DownloadProgressed(download))
        except PacketError:
            self._spoil(download)
            raise
        self._receiver.receive_many(train, ((1 << count) - 1) << index)
        return True

    def _spoil(self, download: Download) -> None:
        """A unit was tampered with: the transfer fails, and is asked for again by another name."""
        self.forget_download(download)
        self._events.append(DownloadFailed(download))

    def _prove_path(self, nonce: bytes, address: Address, now: float) -> None:
        before = self.address
        if not self._path.prove(nonce, address):
            return
        if address[0] != before[0]:  # else only a translator chose another port
            self._rtt.forget()
            self._sender.congestion.path_changed(now)
        self._probes.begin_anew()

    # --- Commands --------------------------------------------------------------------------------

    def send_message(self, message: bytes) -> None:
        """Queue a message of at most 70,400 bytes."""
        self._control.send_message(message)

    @property
    def unit_bytes(self) -> int:
        """Plaintext of a full unit of the next upload."""
        return unit_bytes_for(self._sender.datagram_bytes)

    def upload(
        self, transfer_id: bytes, slot: int, plain: Sequence[memoryview], unit_bytes: int
    ) -> Upload:
        """Begin to send what a GET asked for."""
        upload = Upload(transfer_id, slot, plain, self.agreement.send_key, unit_bytes)
        self._sender.add(upload)
        self._events.extend(UploadFinished(u) for u in self._sender.take_finished())
        return upload

    def claim_transfer(self, transfer_id: bytes) -> bool:
        """Take an ID for an upload; False if it was taken before: a key seals a unit once.

        The last 4,096 are remembered. A peer that goes beyond spoils its own transfers only.
        """
        if self._transfers.get(transfer_id):
            return False
        self._transfers.put(transfer_id, True)
        return True

    def cancel_upload(self, transfer_id: bytes) -> None:
        self._sender.cancel(transfer_id)

    def expect_download(self, transfer_id: bytes, length_max: int) -> Download:
        """Reserve a slot for what a GET of ours asks for, at most so many bytes."""
        assert len(self._downloads) < DOWNLOADS_MAX
        while self._slot in self._downloads:
            self._slot = (self._slot + 1) % 65536
        download = Download(transfer_id, self._slot, self.agreement.receive_key, length_max)
        self._downloads[self._slot] = download
        self._slot = (self._slot + 1) % 65536
        return download

    def announce(self, download: Download, length: int, unit_bytes: int) -> None:
        """Learn the size of what comes, and look at what came before it was known."""
        download.announce(length, unit_bytes)
        for unit, segment, body_bytes, body in download.take_early():
            try:
                if download.receive(unit, segment, body_bytes, body):
                    self._events.append(DownloadProgressed(download))
            except PacketError:
                self._spoil(download)
                return

    def forget_download(self, download: Download) -> None:
        """Free the slot; what still comes for it is acknowledged and dropped."""
        if self._downloads.get(download.slot) is download:
            del self._downloads[download.slot]

    def close(self, reason: int = 0) -> None:
        """Say goodbye; send what :meth:`bursts_to_send` still gives."""
        if not self.is_closed:
            self._control.send_frame(frames.Close(reason))
            self._end("closed by us")

    def _end(self, reason: str) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._events.append(Closed(reason))

    def answer_early(self) -> None:
        """Something came with the INIT: a little may be sent before the peer is confirmed."""
        self._unconfirmed_room = EARLY_BYTES_MAX

    # --- Time and sending ------------------------------------------------------------------------

    def on_timeout(self, now: float) -> None:
        """Act on what is overdue."""
        if now >= self._idle_at:
            self._end("idle")
        elif now >= self._expires and self._is_old:
            self.close()
        else:
            if now >= self._expires:
                self._is_old, self._expires = True, now + DRAIN_SECONDS
            self._control.on_timeout(now)
            self._sender.on_timeout(now)
            if self._sender.is_stuck:
                self._probes.got_stuck()
            if self._rtt.backoffs >= BACKOFFS_MAX:
                self._end("the peer does not answer")

    def bursts_to_send(
        self, now: float, *, ack_now: bool = False
    ) -> Iterator[tuple[Burst, Address]]:
        """Yield what may be sent now and where to."""
        if not self.is_confirmed:
            yield from self._unconfirmed_bursts(now)
            return
        for units in self._receiver.units_to_send(now):
            self._control.send_frame(units)
        if (challenge := self._path.take_challenge()) is not None:
            address, nonce = challenge
            datagram = self._control.seal(frames.PathChallenge(nonce))
            yield Burst([datagram], len(datagram)), address
        for datagram in self._control.datagrams_to_send(now, ack_now=ack_now):
            yield Burst([datagram], len(datagram)), self.address
        if self.is_closed:
            return
        for datagram in self._probes.to_send(now):
            yield Burst([datagram], len(datagram)), self.address
        for burst in self._sender.bursts_to_send(now):
            yield burst, self.address

    def _unconfirmed_bursts(self, now: float) -> Iterator[tuple[Burst, Address]]:
        """Yield answers to what came with the INIT, while there is room for any."""
        bursts: Iterator[Burst]
        bursts = (Burst([d], len(d)) for d in self._control.datagrams_to_send(now))
        if not self.is_closed:
            trains = self._sender.bursts_to_send(now, segments_max=EARLY_TRAIN_SEGMENTS)
            bursts = itertools.chain(bursts, trains)
        while self._may_send_unconfirmed and (burst := next(bursts, None)) is not None:
            self._unconfirmed_room -= sum(map(len, burst.buffers))
            yield burst, self.address
