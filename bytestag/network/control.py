"""ControlChannel: encrypted datagrams that carry messages reliably (pure).

Each CONTROL datagram has a counter that never repeats; what was in a lost one travels again in a
new one, so acknowledgements are never ambiguous (RFC 9002, 3). Messages arrive once, in any order.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from bytestag.config import DATAGRAM_BYTES_MAX
from bytestag.crypto.primitives import AESGCM, InvalidTag
from bytestag.errors import PacketError
from bytestag.network import frames
from bytestag.network.handshake import CONTROL, header
from bytestag.network.rtt import Rtt

ACK_DELAY = 0.005
IN_FLIGHT_MAX = 64
REPLAY_WINDOW = 1024
DATAGRAM_ROOM = DATAGRAM_BYTES_MAX - 18 - 16
"""Bytes of frames beside head, counter and tag; every frame fits, or sending would not end."""
REASSEMBLY_BYTES_MAX = 256 * 1024
FRAGMENT_OVERHEAD_BYTES = 256
"""What a waiting fragment costs beside its bytes: a peer may send empty ones."""
NUMBERS_AHEAD_MAX = 65_536
COUNTER_MAX = 2**40
_COUNTER = struct.Struct(">Q")


@dataclass(slots=True)
class _Sent:
    time: float
    frames: list[bytes]


class ReplayWindow:
    """Which counters came; each is accepted once."""

    __slots__ = ("bitmap", "largest")

    def __init__(self) -> None:
        self.largest = -1
        self.bitmap = 0  # bit i: largest - i

    def is_new(self, counter: int) -> bool:
        """Return whether the counter was not accepted before and is not too old to know."""
        age = self.largest - counter
        return age < 0 or (age < REPLAY_WINDOW and not self.bitmap >> age & 1)

    def accept(self, counter: int) -> None:
        """Remember a counter for which :meth:`is_new` holds."""
        if counter > self.largest:
            self.bitmap = (self.bitmap << (counter - self.largest) | 1) & (1 << REPLAY_WINDOW) - 1
            self.largest = counter
        else:
            self.bitmap |= 1 << (self.largest - counter)


class _Delivered:
    """Which message numbers were delivered: all below a floor, and some above it."""

    __slots__ = ("_above", "floor")

    def __init__(self) -> None:
        self.floor = 0
        self._above = 0  # bit i: floor + i; bit 0 is never set

    def __contains__(self, number: int) -> bool:
        return number < self.floor or bool(self._above >> (number - self.floor) & 1)

    def add(self, number: int) -> None:
        self._above |= 1 << (number - self.floor)
        contiguous = (~self._above & (self._above + 1)).bit_length() - 1
        self._above >>= contiguous
        self.floor += contiguous


class ControlChannel:
    """Both directions of one session's CONTROL datagrams."""

    def __init__(self, remote_id: bytes, send_key: bytes, receive_key: bytes, rtt: Rtt) -> None:
        self._head = header(remote_id, CONTROL)
        self._seal = AESGCM(send_key).encrypt
        self._open = AESGCM(receive_key).decrypt
        self._rtt = rtt
        self._counter = 0
        self._numbers = 0
        self._reliable: deque[bytes] = deque()
        self._unreliable: deque[bytes] = deque()
        self._in_flight: OrderedDict[int, _Sent] = OrderedDict()
        self._last_progress = 0.0
        self.waiting_since: float | None = None
        """Since when something was sent and nothing was acknowledged; None if nothing waits."""
        self._received = ReplayWindow()
        self._ack_at: float | None = None
        self._partial: dict[int, dict[int, bytes]] = {}
        self._partial_bytes = 0
        self._delivered = _Delivered()
        self.acked_pings: set[int] = set()

    # --- Commands --------------------------------------------------------------------------------

    def send_message(self, message: bytes) -> None:
        """Queue a message; it arrives once or the session ends."""
        self._reliable.extend(frames.fragments(self._numbers, message))
        self._numbers += 1

    def send_frame(self, frame: frames.Frame) -> None:
        """Queue a frame that is sent once."""
        self._unreliable.append(frames.encode(frame))

    def greet(self) -> None:
        """Send something that the other end must acknowledge."""
        self._reliable.append(frames.encode(frames.Ping()))

    def is_in_flight(self, counter: int) -> bool:
        """Whether a datagram is neither acknowledged nor lost."""
        return counter in self._in_flight

    @property
    def queued(self) -> int:
        """Frames that wait for their first send or a resend."""
        return len(self._reliable)

    @property
    def is_exhausted(self) -> bool:
        return self._counter >= COUNTER_MAX

    # --- Receiving -------------------------------------------------------------------------------

    def open(self, datagram: bytes) -> tuple[int, list[frames.Frame]]:
        """Decrypt a CONTROL datagram; return its counter and frames.

        Raises:
            PacketError: replayed, forged or malformed.
        """
        if len(datagram) < 18 + 16:
            raise PacketError("truncated CONTROL")
        (counter,) = _COUNTER.unpack_from(datagram, 10)
        if counter >= COUNTER_MAX or not self._received.is_new(counter):
            raise PacketError("replayed CONTROL")
        try:
            text = self._open(bytes(4) + datagram[10:18], datagram[18:], datagram[:18])
        except InvalidTag as error:
            raise PacketError("forged CONTROL") from error
        return counter, frames.decode(text)

    @property
    def largest_received(self) -> int:
        return self._received.largest

    def receive(self, counter: int, received: list[frames.Frame], now: float) -> list[bytes]:
        """Take the frames of an opened datagram; return the messages that are now whole."""
        if self._would_overflow(received):
            return []  # as if lost: neither accepted nor acknowledged
        self._received.accept(counter)
        messages: list[bytes] = []
        for frame in received:
            if isinstance(frame, frames.Message):
                self._ack_soon(now)
                whole = self._reassemble(frame)
                if whole is not None:
                    messages.append(whole)
            elif isinstance(frame, frames.Ping):
                self._ack_soon(now)
            elif isinstance(frame, frames.Ack):
                self._receive_ack(frame, now)
        return messages

    def _ack_soon(self, now: float) -> None:
        if self._ack_at is None:
            self._ack_at = now + ACK_DELAY

    def _would_overflow(self, received: list[frames.Frame]) -> bool:
        """Whether to drop the datagram; never one that brings the oldest missing message on."""
        parts = [frame for frame in received if isinstance(frame, frames.Message)]
        ahead = max((frame.number - self._delivered.floor for frame in parts), default=0)
        more = sum(map(_cost, (frame.body for frame in parts if frame.fragments > 1)))
        is_full = self._partial_bytes + more > REASSEMBLY_BYTES_MAX
        return ahead > NUMBERS_AHEAD_MAX or (ahead > 0 and is_full)

    def _reassemble(self, frame: frames.Message) -> bytes | None:
        if frame.number in self._delivered:
            return None
        if frame.fragments == 1:
            self._delivered.add(frame.number)
            return frame.body
        parts = self._partial.setdefault(frame.number, {})
        if frame.fragment not in parts:
            parts[frame.fragment] = frame.body
            self._partial_bytes += _cost(frame.body)
        if len(parts) < frame.fragments:
            return None
        del self._partial[frame.number]
        self._partial_bytes -= sum(map(_cost, parts.values()))
        self._delivered.add(frame.number)
        return b"".join(parts[i] for i in sorted(parts))

    def _receive_ack(self, ack: frames.Ack, now: float) -> None:
        acked = [counter for counter in self._in_flight if ack.covers(counter)]
        if not acked:
            return
        for counter in acked:  # ascending, as they were sent
            sent = self._in_flight.pop(counter)
            if not sent.frames:
                self.acked_pings.add(counter)
        if counter == ack.largest:
            self._rtt.sample(max(now - sent.time, 0.0))
        self._last_progress = now
        self._detect_loss(sent.time)
        self.waiting_since = now if self._in_flight or self._reliable else None

    def _detect_loss(self, acked_time: float) -> None:
        """Queue again what was sent clearly before something that was acknowledged."""
        horizon = acked_time - self._rtt.reordering
        for counter, sent in list(self._in_flight.items()):
            if sent.time > horizon:
                break
            del self._in_flight[counter]
            self._reliable.extendleft(reversed(sent.frames))

    # --- Sending ---------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when :meth:`on_timeout` wants to be called."""
        deadlines = [self._ack_at] if self._ack_at is not None else []
        if self._in_flight:
            oldest = next(iter(self._in_flight.values())).time
            deadlines.append(max(oldest, self._last_progress) + self._rtt.probe_timeout)
        return min(deadlines, default=None)

    def on_timeout(self, now: float) -> None:
        """Make a probe of the oldest datagram in flight if it is overdue."""
        if not self._in_flight:
            return
        counter, sent = next(iter(self._in_flight.items()))
        if now >= max(sent.time, self._last_progress) + self._rtt.probe_timeout:
            del self._in_flight[counter]
            self._reliable.extendleft(reversed(sent.frames))
            if sent.frames:  # a probe of the path's size says nothing of its load (RFC 8899, 3)
                self._rtt.back_off()
            self._last_progress = now

    def datagrams_to_send(self, now: float, *, ack_now: bool = False) -> Iterator[bytes]:
        """Yield what may be sent now."""
        if self._ack_at is not None and (ack_now or now >= self._ack_at or self._has_frames()):
            self._ack_at = None
            bitmap = self._received.bitmap >> 1 & (1 << 64) - 1
            self.send_frame(frames.Ack(self._received.largest, bitmap))
        while self._has_frames():
            yield self._next_datagram(now)

    def _has_frames(self) -> bool:
        may_send = self._reliable and len(self._in_flight) < IN_FLIGHT_MAX
        return bool(self._unreliable or may_send)

    def _next_datagram(self, now: float) -> bytes:
        chosen: list[bytes] = []
        room = DATAGRAM_ROOM
        while self._unreliable and len(self._unreliable[0]) <= room:
            chosen.append(self._unreliable.popleft())
            room -= len(chosen[-1])
        reliable: list[bytes] = []
        if len(self._in_flight) < IN_FLIGHT_MAX:
            while self._reliable and len(self._reliable[0]) <= room:
                reliable.append(self._reliable.popleft())
                room -= len(reliable[-1])
        if reliable:
            self._in_flight[self._counter] = _Sent(now, reliable)
            if self.waiting_since is None:
                self.waiting_since = now
        return self._sealed(b"".join(chosen + reliable))

    def ping(self, datagram_bytes: int, now: float) -> tuple[int, bytes]:
        """Return (counter, datagram) of a PING padded to a size; its ACK enters ``acked_pings``."""
        counter = self._counter
        self._in_flight[counter] = _Sent(now, [])
        padding = bytes(max(datagram_bytes - 18 - 16 - 1, 0))
        return counter, self._sealed(frames.encode(frames.Ping()) + padding)

    def seal(self, frame: frames.Frame) -> bytes:
        """Return a datagram with this one frame, sent once."""
        return self._sealed(frames.encode(frame))

    def _sealed(self, text: bytes) -> bytes:
        packed = _COUNTER.pack(self._counter)
        head = self._head + packed
        self._counter += 1
        return head + self._seal(bytes(4) + packed, text, head)


def _cost(fragment: bytes) -> int:
    return len(fragment) + FRAGMENT_OVERHEAD_BYTES
