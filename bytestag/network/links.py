"""Link: a session in use: questions and their answers, values that are fetched (shell).

What a peer asks of us goes to ``owner.handle``; it must return at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from bytestag.config import RUN_BYTES_MAX, VALUE_BYTES_MAX
from bytestag.crypto.identity import EARLY, LONG_RUNS, MANY, Address
from bytestag.errors import BytestagError, Corrupt, NotFound, PacketError, RemoteError, Timeout
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.network import session_events as e
from bytestag.network.conversation import Conversation, Fetched, Incoming
from bytestag.network.early import Early
from bytestag.network.rate_limit import RateLimit
from bytestag.network.session import Session
from bytestag.network.units import Download

_logger = logging.getLogger(__name__)

GETS_PER_PEER_MAX = 176
"""44 MiB in parts: of a path of 1 Gbit/s and 200 ms that loses datagrams, most of what it takes.
Less than a peer may have of ``upload_slots``, which are given back a little after the last byte."""
OFFERED_PER_PEER_MAX = 8
ANSWERS_QUEUED_MAX = 128
ANSWERS_UNSENT_MAX = 4096
RATE_MIN = 4 * 1024
"""Bytes a second that a transfer must make on the whole; a trickle holds no slot."""
Request = m.Get | m.GetMany | m.Cancel | m.Offer | m.Provide | m.Prove | m.Compare | m.Names
FoundT = TypeVar("FoundT", m.Found, m.FoundMany)


class Busy(RemoteError):
    """The peer has no slot free now."""

    code = "busy"


class Owner(Protocol):
    """What a link needs of whoever drives it."""

    def now(self) -> float: ...

    def new_id(self) -> bytes: ...

    def touch(self, link: Link) -> None: ...

    def forget(self, link: Link) -> None: ...

    def handle(self, link: Link, request: Request) -> None: ...

    def count(self, reason: str) -> None: ...


class Link:
    """A session with its timer, the questions that wait, and the transfers under way."""

    def __init__(self, owner: Owner, session: Session, limits: Sequence[RateLimit] = ()) -> None:
        """``limits`` bound the rate at which bytes are asked for."""
        self._owner = owner
        self.session = session
        self._limits = limits
        self.gets = asyncio.Semaphore(OFFERED_PER_PEER_MAX)
        """Places for values that this peer offered, asked of it at one time."""
        self._waiting: dict[bytes, asyncio.Queue[m.Message | None]] = {}
        self._incoming: dict[bytes, Incoming] = {}
        self.uploads_done: dict[bytes, Callable[[], None]] = {}
        self._progressed = 0.0
        """When the last unit of any transfer came: those behind it wait for their turn."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def node_id(self) -> KeyBytes:
        return self.session.agreement.node_id

    @property
    def address(self) -> Address:
        return self.session.address

    @property
    def run_bytes_max(self) -> int:
        """How much :meth:`get_many` may ask for at one go; 0 if the peer gives one at a time."""
        capabilities = self.session.agreement.capabilities
        if not capabilities & MANY:
            return 0
        return RUN_BYTES_MAX if capabilities & LONG_RUNS else VALUE_BYTES_MAX

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is sent."""
        return not (self._waiting or self._incoming or self.uploads_done)

    # --- Questions -------------------------------------------------------------------------------

    def send(self, message: m.Message) -> None:
        """Send a message; it arrives once or the session ends."""
        self.session.send_message(m.encode(message))
        self._owner.touch(self)

    async def ask(self, message: m.Message, seconds: float) -> m.Message:
        """Send a question and return its first answer; raises Timeout or RemoteError."""
        conversation = self.open(message)
        try:
            return await conversation.next(seconds)
        finally:
            conversation.close()

    def open(self, message: m.Message) -> Conversation:
        """Send a question that has several answers."""
        conversation = self._listen(message.id)
        if not self.session.is_closed:
            self.send(message)
        return conversation

    def _listen(self, id_: bytes) -> Conversation:
        """Await the answers to a question."""
        queue: asyncio.Queue[m.Message | None] = asyncio.Queue()
        self._waiting[id_] = queue
        if self.session.is_closed:
            queue.put_nowait(None)
        return Conversation(queue, lambda: self.forget(id_))

    def forget(self, id_: bytes) -> None:
        self._waiting.pop(id_, None)

    async def get(
        self,
        key: bytes,
        index: bytes | None = None,
        selector: bytes = b"",
        *,
        offset: int = 0,
        length: int,
        idle_seconds: float,
        early: Early | None = None,
    ) -> Fetched:
        """Fetch bytes of a value. ``early`` is the same question, which may be under way already.

        Raises:
            NotFound: the peer does not hold it.
            Busy: the peer has no slot free.
            Timeout: nothing new came for ``idle_seconds``.
            Corrupt: a unit did not authenticate.
            RemoteError: the peer broke off or broke the rules.
        """
        if early is not None and early.take():
            incoming = self._incoming[early.question.id]
        else:
            await self._await_turn(length)
            incoming = self._ask_for(
                [length],
                lambda id_, slot: m.Get(id_, slot, key, index, selector, offset, length),
                offset,
            )
        found = await self._transfer(incoming, m.Found, idle_seconds)
        value = incoming.download.buffer
        return Fetched(value, found.index, found.blake3, found.size, found.others)

    async def get_many(
        self, wants: Sequence[m.Want], *, idle_seconds: float
    ) -> list[memoryview | None]:
        """Fetch whole values at one go, of at most :attr:`run_bytes_max` together.

        None stands for those that the peer has not.

        Raises as :meth:`get`.
        """
        lengths = [want.length for want in wants]
        await self._await_turn(sum(lengths))
        incoming = self._ask_for(lengths, lambda id_, slot: m.GetMany(id_, slot, list(wants)))
        found = await self._transfer(incoming, m.FoundMany, idle_seconds)
        whole, start = memoryview(incoming.download.buffer), 0
        values: list[memoryview | None] = []
        for length, is_held in zip(lengths, m.flags(found.bitmap, len(lengths)), strict=True):
            values.append(whole[start : start + length] if is_held else None)
            start += length * is_held
        return values

    def expect_early(self, early: Early) -> None:
        """Reserve what the peer's answer to a question in our INIT fills, if there will be one."""
        if self.session.agreement.capabilities & EARLY:
            question = early.question
            download = self.session.expect_download(question.id, question.length)
            assert download.slot == question.slot
            incoming = self._expect(download, [question.length], 0, self._listen(question.id))
            early.begin(lambda: self._give_up(incoming))

    def answer_early(self, packed: bytes, *, is_busy: bool) -> None:
        """Answer a question that came with the INIT, if it changes nothing."""
        try:
            message = m.decode(packed)
        except PacketError:
            self._owner.count("malformed message")
            return
        if not isinstance(message, m.Get):
            self._owner.count("no GET came with an INIT")
            return
        self.session.answer_early()
        if is_busy:
            self.send(m.Absent(message.id, m.AbsentReason.BUSY))
        else:
            self._owner.handle(self, message)

    def _ask_for(
        self,
        lengths: Sequence[int],
        question: Callable[[bytes, int], m.Get | m.GetMany],
        offset: int = 0,
    ) -> Incoming:
        """Reserve what an answer fills, and ask."""
        if self.session.is_closed:
            raise RemoteError("the session ended")
        download = self.session.expect_download(self._owner.new_id(), sum(lengths))
        asked = self.open(question(download.transfer_id, download.slot))
        return self._expect(download, lengths, offset, asked)

    def _expect(
        self,
        download: Download,
        lengths: Sequence[int],
        offset: int,
        conversation: Conversation,
    ) -> Incoming:
        done = asyncio.get_running_loop().create_future()
        incoming = Incoming(download, offset, lengths, done, conversation)
        self._incoming[download.transfer_id] = incoming
        return incoming

    def _give_up(self, incoming: Incoming) -> None:
        """Want nothing of a transfer any more."""
        if not self.session.is_closed:
            self.send(m.Cancel(incoming.download.transfer_id))
        self._forget_transfer(incoming)

    def _forget_transfer(self, incoming: Incoming) -> None:
        incoming.conversation.close()
        del self._incoming[incoming.download.transfer_id]
        self.session.forget_download(incoming.download)

    async def _transfer(
        self, incoming: Incoming, kind: type[FoundT], idle_seconds: float
    ) -> FoundT:
        """Return the answer when all bytes that it promises are there."""
        try:
            found = await incoming.conversation.next(idle_seconds)
            if isinstance(found, m.Absent):
                raise _absence(found.reason)
            if not isinstance(found, kind):
                raise RemoteError("the peer answered a GET with something else")
            await self._until_whole(incoming, idle_seconds)
        except BaseException:
            self._give_up(incoming)
            raise
        self._forget_transfer(incoming)
        return found

    async def _await_turn(self, size: int) -> None:
        """Wait until so many bytes may be asked for."""
        if self._limits:
            now = self._owner.now()
            await asyncio.sleep(max(limit.take(size, now) for limit in self._limits) - now)

    async def _until_whole(self, incoming: Incoming, idle_seconds: float) -> None:
        done, now = incoming.done, self._owner.now
        self._progressed = now()
        deadline = self._progressed + idle_seconds + max(incoming.lengths) / RATE_MIN
        while not (done.done() or incoming.download.is_done):
            until = min(self._progressed + idle_seconds, deadline)
            if now() >= until:
                raise Timeout(f"no byte came for {idle_seconds:g} s, or hardly any")
            await asyncio.wait([done], timeout=until - now())
        if done.done():
            done.result()

    # --- Driven by the owner ----------------------------------------------------------------------

    def process_events(self) -> None:
        for event in self.session.take_events():
            match event:
                case e.MessageReceived(message):
                    self._receive_message(message)
                case e.DownloadProgressed(download):
                    self._wake(download)
                case e.DownloadFailed(download):
                    self._wake(download, has_failed=True)
                case e.UploadFinished(upload):
                    self.upload_ended(upload.transfer_id)
                case e.Closed(reason):
                    self._end(reason)

    def _wake(self, download: Download, *, has_failed: bool = False) -> None:
        incoming = self._incoming.get(download.transfer_id)
        if incoming is None or incoming.done.done():
            return
        self._progressed = self._owner.now()
        if has_failed:
            _fail(incoming.done, Corrupt("a unit did not authenticate"))
        elif download.is_done:
            incoming.done.set_result(None)

    def upload_ended(self, transfer_id: bytes) -> None:
        """Free the upload's slot, whether it was finished or cancelled."""
        done = self.uploads_done.pop(transfer_id, None)
        if done is not None:
            done()

    def _receive_message(self, packed: bytes) -> None:
        if self.session.messages_queued > ANSWERS_UNSENT_MAX:  # it asks and does not take answers
            self._owner.count("asked more than it took")
            self.session.close()
            return
        try:
            message = m.decode(packed)
            if isinstance(message, Request):
                self._owner.handle(self, message)
                return
        except PacketError:
            self._owner.count("malformed message")
            return
        if isinstance(message, m.Found | m.FoundMany):
            self._announce(message)
        queue = self._waiting.get(message.id)
        if queue is None:
            self._owner.count("answer to nothing")
        elif queue.qsize() < ANSWERS_QUEUED_MAX:
            queue.put_nowait(message)

    def _announce(self, found: m.Found | m.FoundMany) -> None:
        """Tell the download its size before its units are looked at."""
        incoming = self._incoming.get(found.id)
        if incoming is not None:
            self.session.announce(incoming.download, incoming.length(found), found.unit_bytes)

    def _end(self, reason: str) -> None:
        for queue in self._waiting.values():
            queue.put_nowait(None)
        for incoming in self._incoming.values():
            if not incoming.done.done():
                _fail(incoming.done, RemoteError("the session ended during a transfer"))
        for transfer_id in list(self.uploads_done):
            self.upload_ended(transfer_id)
        _logger.debug("x session with %s: %s", self.node_id.base16[:8], reason)
        self._owner.forget(self)

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer to the session's next deadline."""
        deadline = self.session.next_deadline()
        if self._timer is not None:
            if self._timer_at <= deadline and not self.session.is_closed:
                return  # it fires earlier and arms itself again
            self._timer.cancel()
            self._timer = None
        if not self.session.is_closed:
            self._timer_at = deadline
            self._timer = loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._owner.now()
        if now >= self.session.next_deadline():
            self.session.on_timeout(now)
        self._owner.touch(self)


def _fail(done: asyncio.Future[None], error: BytestagError) -> None:
    done.set_exception(error)
    done.exception()  # whoever waited may be gone


def _absence(reason: int) -> BytestagError:
    if reason == m.AbsentReason.BUSY:
        return Busy("the peer has no slot free")
    return NotFound(f"the peer does not serve it (reason {reason})")
