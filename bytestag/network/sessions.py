"""Sessions: the shell that drives session machines over an endpoint.

Owns handshakes, the table of connection IDs, and timers. One flush at the end of each wake-up sends
what the machines have to send.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from bytestag.config import DATAGRAM_BYTES_MAX, Config
from bytestag.crypto.identity import EARLY, Address, Identity
from bytestag.errors import PacketError, RemoteError, Timeout
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.network.congestion import BACKGROUND_QUEUE_SECONDS, NORMAL_QUEUE_SECONDS
from bytestag.network.early import Early
from bytestag.network.endpoint import Endpoint
from bytestag.network.handshake import (
    CONTROL,
    FIRST_BYTE,
    HEAD_BYTES,
    INIT,
    UNIT,
    Agreement,
    Initiator,
    Responder,
)
from bytestag.network.links import Link, Request
from bytestag.network.rate_limit import limits_of
from bytestag.network.session import Session
from bytestag.network.tokens import NO_TOKEN, TokenMint
from bytestag.network.units import UNIT_HEAD_BYTES
from bytestag.recent import Recent

HANDSHAKE_RESEND_SECONDS = 0.5
HANDSHAKES_MAX = 256
SESSIONS_PER_PEER_MAX = 4
EARLY_UNHEARD_MAX = 8
"""So many early questions from a host are answered before anything shows that it listens: who had
its address an hour ago has tokens for all its ports."""
UNHEARD_MAX = 4096


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to talk to: what an address card and a ping told us."""

    node_id: KeyBytes
    address: Address
    x25519: bytes
    token: bytes = NO_TOKEN


@dataclass(slots=True)
class _Handshake:
    initiator: Initiator
    done: asyncio.Future[Link]
    early: Early | None


class Sessions:
    """All sessions of one node. ``handler`` is told what peers ask; it must return at once."""

    def __init__(
        self,
        identity: Identity,
        config: Config,
        runtime: Runtime,
        mint: TokenMint,
        handler: Callable[[Link, Request], None],
        capabilities: int = 0,
    ) -> None:
        self._identity = identity
        self._config = config
        self._runtime = runtime
        self._handler = handler
        self._capabilities = capabilities | EARLY
        self._loop = asyncio.get_running_loop()
        self._endpoint: Endpoint | None = None
        self._datagram_bytes_max = DATAGRAM_BYTES_MAX
        self._upload_limits = limits_of(config.limits.upload)
        self._download_limits = limits_of(config.limits.download)
        self._responder = Responder(
            identity,
            config.network_id,
            mint,
            pow_bits=config.id_pow_bits,
            capabilities=self._capabilities,
            burst_bytes=0,
            random_bytes=runtime.token_bytes,
        )
        self._links: dict[bytes, Link] = {}
        self._by_peer: dict[KeyBytes, list[Link]] = {}
        self._handshakes: dict[bytes, _Handshake] = {}
        self._connecting: dict[KeyBytes, asyncio.Future[Link]] = {}
        self._unheard: Recent[bytes, int] = Recent(UNHEARD_MAX)
        """Early questions from a host since it was heard in a session."""
        self._touched: dict[Link, None] = {}
        self._flushes_soon = False
        self.counters: Counter[str] = Counter()

    def attach(self, endpoint: Endpoint) -> None:
        """Send through this endpoint from now on."""
        self._endpoint = endpoint
        self._responder.burst_bytes = endpoint.burst_bytes
        self._datagram_bytes_max = endpoint.datagram_bytes_max

    def __len__(self) -> int:
        return len(self._links)

    def link_to(self, node_id: KeyBytes) -> Link | None:
        """Return the newest session with a node whose both ends are known to use it."""
        links = reversed(self._by_peer.get(node_id, []))
        return next((link for link in links if link.session.is_confirmed), None)

    def usable_link_to(self, node_id: KeyBytes) -> Link | None:
        """Return a session that need not be replaced: neither old nor without answers of late."""
        link = self.link_to(node_id)
        if link is None or link.session.is_old or link.session.is_doubtful(self.now()):
            return None
        return link

    def early(self, key: bytes, index: bytes | None, selector: bytes, length: int) -> Early | None:
        """Return a GET that may go with a handshake; none if what is fetched has a limit."""
        limits = self._config.limits
        if self._download_limits or limits.peer_download:
            return None
        return Early(self.new_id(), key, index, selector, length)

    # --- Connecting ------------------------------------------------------------------------------

    async def connect(self, peer: Peer, early: Early | None = None) -> Link:
        """Return a session with the peer, making one if need be; ``early`` is asked with it then.

        Raises:
            Timeout: the peer did not answer.
            RemoteError: it answered, but not as the node that it should be.
        """
        link = self.usable_link_to(peer.node_id)
        if link is not None:
            return link
        pending = self._connecting.get(peer.node_id)
        if pending is not None:
            return await self._join(pending, peer)
        pending = self._connecting[peer.node_id] = self._loop.create_future()
        try:
            link = await self._shake_hands(peer, early)
        except asyncio.CancelledError:
            pending.cancel()
            raise
        except BaseException as error:
            pending.set_exception(error)
            pending.exception()  # it is no surprise if nobody else waits
            raise
        else:
            pending.set_result(link)
            return link
        finally:
            del self._connecting[peer.node_id]

    async def _join(self, pending: asyncio.Future[Link], peer: Peer) -> Link:
        """Wait for a handshake that somebody else began; begin anew if he gave up."""
        await asyncio.wait({pending})
        return await self.connect(peer) if pending.cancelled() else pending.result()

    async def _shake_hands(self, peer: Peer, early: Early | None) -> Link:
        if len(self._handshakes) >= HANDSHAKES_MAX or self._endpoint is None:
            raise RemoteError("too many handshakes under way")
        if self._is_full and not self._evict_idle():
            raise RemoteError("too many sessions")
        initiator = Initiator(
            self._identity,
            self._config.network_id,
            peer.node_id,
            peer.x25519,
            peer.address,
            capabilities=self._capabilities,
            burst_bytes=self._endpoint.burst_bytes,
            token=peer.token,
            random_bytes=self._runtime.token_bytes,
            early=early.packed if early is not None else b"",
        )
        handshake = _Handshake(initiator, self._loop.create_future(), early)
        self._handshakes[initiator.local_id] = handshake
        try:
            async with asyncio.timeout(self._config.handshake_seconds):
                while not handshake.done.done():
                    self._endpoint.send(initiator.datagram, peer.address)
                    await asyncio.wait({handshake.done}, timeout=HANDSHAKE_RESEND_SECONDS)
                return await handshake.done
        except TimeoutError:
            raise Timeout(f"no handshake with {peer.address[0]}:{peer.address[1]}") from None
        finally:
            del self._handshakes[initiator.local_id]

    # --- Receiving -------------------------------------------------------------------------------

    def datagram_received(self, datagram: memoryview, address: Address) -> None:
        """Take a datagram of the data plane; what is wrong with it is counted."""
        try:
            if len(datagram) < HEAD_BYTES:
                raise PacketError("truncated datagram")
            if datagram[0] != FIRST_BYTE:
                raise PacketError("another version")
            connection_id = bytes(datagram[1:9])
            link = self._links.get(connection_id)
            if link is not None:
                is_open = not link.session.is_closed
                link.session.receive(datagram, address, self.now())
                if datagram[9] == CONTROL:
                    if is_open and address == link.address:  # or it may name any other
                        self._unheard.pop(_host(address))
                    link.process_events()  # a FOUND must be known before its units come
                self.touch(link)
            elif datagram[9] == INIT:
                self._receive_init(bytes(datagram), address)
            elif (handshake := self._handshakes.pop(connection_id, None)) is not None:
                self._receive_answer(handshake, bytes(datagram))
            else:
                raise PacketError("unknown connection")
        except PacketError as error:
            self._count(error)
            if (link := self._links.get(bytes(datagram[1:9]))) is not None:
                self.touch(link)

    def burst_received(self, view: memoryview, stride: int, address: Address) -> None:
        """Take datagrams that arrived merged: a run of one unit at once, others one by one."""
        link = self._links.get(bytes(view[1:9]))
        if link is not None and view[9] == UNIT and stride > UNIT_HEAD_BYTES:
            try:
                if link.session.receive_run(view, stride, address, self.now()):
                    self.touch(link)
                    return
            except PacketError as error:
                self._count(error)
                self.touch(link)
                return
        for start in range(0, len(view), stride):
            self.datagram_received(view[start : start + stride], address)

    def _receive_init(self, datagram: bytes, address: Address) -> None:
        answer, agreement = self._responder.receive(datagram, address, self._runtime.wall())
        if agreement is not None:
            self._end_unconfirmed(agreement.node_id, address)
            if self._is_full and not self._evict_idle():
                raise PacketError("too many sessions")
        if self._endpoint is not None:
            self._endpoint.send(answer, address)
        if agreement is not None:
            link = self._add(agreement)
            if agreement.early:
                unheard = self._unheard.get(_host(address)) or 0
                self._unheard.put(_host(address), unheard + 1)
                link.answer_early(agreement.early[0], is_busy=unheard >= EARLY_UNHEARD_MAX)

    def _end_unconfirmed(self, node_id: KeyBytes, address: Address) -> None:
        """End the sessions that a peer did not take: it begins a new one.

        Several programs of one user may be one node, each at an address of its own.
        """
        for link in list(self._by_peer.get(node_id, [])):
            if not link.session.is_confirmed and link.address == address:
                link.session.close()
                self._flush(link)

    def _receive_answer(self, handshake: _Handshake, datagram: bytes) -> None:
        try:
            agreement = handshake.initiator.receive(datagram)
        finally:  # by another ID, if it was a challenge
            self._handshakes[handshake.initiator.local_id] = handshake
        if agreement is None:  # a challenge: the new INIT goes at once
            if self._endpoint is not None:
                address = handshake.initiator.address
                self._endpoint.send(handshake.initiator.datagram, address)
        elif not handshake.done.done():
            link = self._add(agreement)
            if handshake.early is not None and handshake.early.packed:  # or it did not go along
                link.expect_early(handshake.early)  # before its answer is looked at
            handshake.done.set_result(link)

    def _add(self, agreement: Agreement) -> Link:
        limits = self._config.limits
        queue_seconds = BACKGROUND_QUEUE_SECONDS if limits.is_background else NORMAL_QUEUE_SECONDS
        session = Session(
            agreement,
            self.now(),
            window_bytes=self._config.window_bytes,
            idle_seconds=self._config.session_idle_seconds,
            random_bytes=self._runtime.token_bytes,
            datagram_bytes_max=self._datagram_bytes_max,
            queue_seconds=queue_seconds,
            limits=[*self._upload_limits, *limits_of(limits.peer_upload)],
        )
        link = Link(self, session, [*self._download_limits, *limits_of(limits.peer_download)])
        self._links[agreement.local_id] = link
        links = self._by_peer.setdefault(agreement.node_id, [])
        links.append(link)
        if len(links) > SESSIONS_PER_PEER_MAX:
            links[0].session.close()
            self.touch(links[0])
        self.touch(link)
        return link

    @property
    def _is_full(self) -> bool:
        """Whether there is no room for one more; a handshake under way has its place already."""
        return len(self._links) + len(self._handshakes) >= self._config.sessions_max

    def _evict_idle(self) -> bool:
        """Close the session that has waited longest to be confirmed or used."""
        idle = [link for link in self._links.values() if link.is_idle]
        if not idle:
            return False
        link = min(idle, key=lambda link: link.session.last_received)
        link.session.close()
        self._flush(link)
        return True

    # --- Owner of links --------------------------------------------------------------------------

    def now(self) -> float:
        return self._loop.time()

    def new_id(self) -> bytes:
        return self._runtime.token_bytes(20)

    def _count(self, error: PacketError) -> None:
        self.counters[error.message.split(":")[0]] += 1

    def count(self, reason: str) -> None:
        self.counters[reason] += 1

    def handle(self, link: Link, request: Request) -> None:
        self._handler(link, request)

    def touch(self, link: Link) -> None:
        """The link may have something to send: flush it at the end of this wake-up."""
        self._touched[link] = None
        if not self._flushes_soon:
            self._flushes_soon = True
            self._loop.call_soon(self.wakeup_ended)

    def forget(self, link: Link) -> None:
        """A link ended."""
        agreement = link.session.agreement
        self._links.pop(agreement.local_id, None)
        links = self._by_peer.get(agreement.node_id, [])
        if link in links:
            links.remove(link)
        if not links:
            self._by_peer.pop(agreement.node_id, None)

    def wakeup_ended(self) -> None:
        """Flush every touched link: events, then bursts, then its timer."""
        self._flushes_soon = False
        while self._touched:
            touched, self._touched = self._touched, {}
            for link in touched:
                self._flush(link)

    def _flush(self, link: Link) -> None:
        link.process_events()
        if self._endpoint is not None:
            for burst, address in link.session.bursts_to_send(self.now()):
                self._endpoint.send_burst(burst, address)
        link.process_events()
        link.arm(self._loop)

    def close(self) -> None:
        """End all sessions, telling the peers; idempotent."""
        for link in list(self._links.values()):
            link.session.close()
            self._flush(link)
        for handshake in list(self._handshakes.values()):
            if not handshake.done.done():
                handshake.done.set_exception(RemoteError("the node is closing"))
                handshake.done.exception()  # whoever waited may be gone already
        self._touched.clear()


def _host(address: Address) -> bytes:
    """Return what stands for a host: its IPv4 address, or its IPv6 network of 64 bits."""
    host = address[0].partition("%")[0]
    if ":" in host:
        return socket.inet_pton(socket.AF_INET6, host)[:8]
    return host.encode()
