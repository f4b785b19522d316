"""Protocol: the control-plane RPCs in and out, and who may enter the routing table (shell).

A contact enters only when it answered a request of ours from an address on its own signed card.
Whoever asks us is a candidate; verifying candidates is bounded, and nothing is ever stored or sent
on because somebody new appeared (kademlia's ``welcome_if_new`` can storm without end).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from kademlia.protocol import KademliaProtocol

from bytestag.codec import Raw
from bytestag.config import (
    AMPLIFICATION_MAX,
    DATAGRAM_BYTES_MAX,
    HOUR,
    PROTOCOL_VERSION,
    Config,
    K,
)
from bytestag.crypto.identity import (
    Address,
    Card,
    Identity,
    pack_address,
    unpack_addresses,
)
from bytestag.dht.absentees import Absentees
from bytestag.dht.admission import Admission
from bytestag.dht.cards import Cards
from bytestag.dht.radius import Radius
from bytestag.dht.reachability import Reachability
from bytestag.dht.referrals import Referrals
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.dht.stock import StockDialect
from bytestag.errors import BytestagError, LocalError, PacketError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.keys import KeyBytes
from bytestag.network import packets
from bytestag.network.endpoint import Endpoint
from bytestag.network.packets import Query, Reply, Subject
from bytestag.network.rpc import NO_REPLY, RPC, Call, OnSlow, outcome_of
from bytestag.network.tokens import NO_TOKEN, TokenMint
from bytestag.recent import Recent

if TYPE_CHECKING:
    from bytestag.dht.holdings import Holdings

_logger = logging.getLogger(__name__)

TOKENS_REMEMBERED_MAX = 4096
LIGHT_PADDING = 60
LIGHT_PING_BYTES = 164  # three times this has room for a card with eight IPv6 addresses
SILENCE_SECONDS = 60.0
NOBODY = bytes(20)
_UNBOUND = ("0.0.0.0", 0)  # noqa: S104  # no socket is bound to it


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contact said: itself, verified if ``contact.card``, and what it knows."""

    contact: Contact
    reply: Reply


class Protocol(RPC, KademliaProtocol):
    """The control plane of one node."""

    router: RoutingTable

    def __init__(
        self,
        identity: Identity,
        config: Config,
        runtime: Runtime,
        mint: TokenMint,
        *,
        capabilities: int,
        is_client: bool,
        slot: FnTaskSlot,
        repairs: FnTaskSlot,
        holdings: Holdings,
    ) -> None:
        RPC.__init__(self, config, runtime)
        self._network_id = config.network_id
        self.identity = identity
        self.capabilities = capabilities
        self.is_client = is_client
        self._mint = mint
        self._slot = slot
        self._repairs = repairs
        self._holdings = holdings
        self.reachability = Reachability(_UNBOUND, is_local=config.is_local)
        self.source_node = Contact(identity.node_id, _UNBOUND, capabilities=capabilities)
        self.router = RoutingTable(self.source_node)
        self.radius = Radius(config.copies)
        self._cards = Cards(identity, config, runtime, capabilities)
        self._tokens: Recent[Address, tuple[bytes, float]] = Recent(TOKENS_REMEMBERED_MAX)
        self.admission = Admission(self.router, config, runtime, self._verify, self._check)
        self.referrals = Referrals(runtime, is_local=config.is_local)
        self.absentees = Absentees()
        for method in packets.NATIVE_METHODS:
            self.handlers[method] = partial(self._handle_native, method)
        self.stock: StockDialect | None = None
        if config.is_local and not is_client:
            self.stock = StockDialect(
                identity.node_id, config.stock_bytes, runtime.monotonic, self.call, slot
            )
            self.storage = self.stock.storage
            for method in packets.STOCK_METHODS:
                self.handlers[method] = partial(self._handle_stock, method)

    def attach(self, endpoint: Endpoint) -> None:
        """Send through this endpoint; its address may go on our card."""
        super().attach(endpoint)
        self.reachability = Reachability(endpoint.address, is_local=self.config.is_local)
        if self.stock is not None:
            self.stock.respond = endpoint.send  # type: ignore[method-assign]

    # --- Who we are ------------------------------------------------------------------------------

    @property
    def is_reachable(self) -> bool:
        """Whether we say who we are, so that others may list us."""
        return not self.is_client and self.reachability.is_known

    def card(self) -> Card:
        """Return our card of this hour."""
        return self._cards.own(self.reachability.addresses)

    # --- Asking ----------------------------------------------------------------------------------

    def begin_ask(
        self,
        contact: Contact,
        method: str,
        target: bytes | None,
        on_end: Callable[[Answer | BytestagError], None],
        on_slow: OnSlow | None = None,
        **subject: Unpack[Subject],
    ) -> Call:
        """Send a native request to a contact; ``on_end`` gets its answer or what went wrong.

        The routing table has been told by then. Errors: Timeout for no reply, PacketError for a
        malformed one, one of another node than ``contact.id``, or of one that never proved its ID.

        Raises:
            LocalError: too many calls are under way.
        """

        def on_body(body: bytes | BytestagError) -> None:
            on_end(self._judge(contact, body))

        wants_card = contact.card is None
        query = self._query(contact.address, target, wants_card=wants_card, **subject)
        return self.begin(
            contact.address, method, [query], on_body, on_slow, is_repeated=not contact.fails
        )

    async def ask(
        self,
        contact: Contact,
        method: str,
        target: bytes | None = None,
        **subject: Unpack[Subject],
    ) -> Answer:
        """Send a native request to a contact and take its answer.

        Raises:
            Timeout, PacketError, LocalError: see :meth:`begin_ask`.
        """
        return await outcome_of(
            lambda on_end: self.begin_ask(contact, method, target, on_end, **subject)
        )

    def _judge(self, contact: Contact, body: bytes | BytestagError) -> Answer | BytestagError:
        if isinstance(body, BytestagError):
            self.has_failed(contact, SILENCE_SECONDS)
            return body
        try:
            answer = self._read_answer(contact.address, body)
        except PacketError as error:
            self.has_failed(contact, SILENCE_SECONDS)
            return error
        if answer.contact.id != contact.id:
            self.has_failed(contact, 0.0)  # a liar may have named the address
            return PacketError("another node answered")
        answer.contact.card = answer.contact.card or contact.card
        if answer.contact.card is None:
            return PacketError("an answer without a card")
        return answer

    def has_failed(self, contact: Contact, silence_seconds: float) -> None:
        """A contact did not answer: tell the table, and take nobody's word for it for a while."""
        if self.endpoint is None:  # we are closing, so it had no chance
            return
        if self.router.has_failed(contact.id, self.config.contact_fails_max, contact.address):
            self.absentees.remember(contact.address, self.runtime.monotonic())
        self.referrals.has_failed(contact.address, silence_seconds)

    def _query(
        self,
        address: Address,
        target: bytes | None,
        *,
        wants_card: bool,
        **subject: Unpack[Subject],
    ) -> Query:
        return Query(
            PROTOCOL_VERSION,
            self._network_id,
            self.identity.node_id.binary if self.is_reachable else None,
            self.capabilities,
            self.token_for(address),
            target,
            wants_card,
            **subject,
        )

    async def ping(self, address: Address, *, is_repeated: bool = True) -> Contact:
        """Return the verified contact at an address; raises Timeout or PacketError."""
        query = self._query(address, None, wants_card=True)
        body = await self.call(address, "bt_ping", [query], is_repeated=is_repeated)
        return self._read_answer(address, body).contact

    async def ping_once(self, address: Address) -> Contact:
        """Ping with a single datagram: somebody else named the address."""
        return await self.ping(address, is_repeated=False)

    def token_for(self, address: Address) -> bytes | None:
        """Return the token that the node at an address gave us, if it is young enough."""
        token = self._tokens.get(address)
        if token is None or self.runtime.monotonic() - token[1] > HOUR:
            return None
        return token[0]

    def _read_answer(self, address: Address, body: bytes) -> Answer:
        reply = packets.decode_reply(body, self._network_id)
        now = self.runtime.monotonic()
        self._tokens.put(address, (reply.token, now))
        self.referrals.has_answered(address)
        self.absentees.has_answered(address)
        if not self.reachability.knows(reply.observed):
            for observed in unpack_addresses(reply.observed)[:1]:
                if self.reachability.vote(address, observed):
                    _logger.info("reachable at %s:%d", *observed)
        node_id = reply.node_id
        card = self._card_of(node_id, address, reply)
        contact = Contact(
            node_id or NOBODY,
            address,
            card=card,
            capabilities=reply.capabilities,
            last_seen=now,
            token=reply.token,
        )
        contact.radius = reply.radius
        if node_id is not None and card is not None and address in card.addresses:
            self.admission.admit(contact)
        return Answer(contact, reply)

    def _card_of(self, node_id: bytes | None, address: Address, reply: Reply) -> Card | None:
        """Return the verified card that this node gave us now or before."""
        if reply.card is None:
            known = self._known_at(node_id, address)
            return known.card if known is not None else None
        card = self._cards.check(reply.card)
        if node_id is not None and card.node_id != node_id:
            raise PacketError("card of another node")
        return card

    # --- Newcomers -------------------------------------------------------------------------------

    def _verify(self, address: Address, is_proven: bool, on_end: Callable[[], None]) -> None:
        """Ping somebody who asked us; unless his address is proven, with no byte too many."""

        def on_body(body: bytes | BytestagError) -> None:
            try:
                if isinstance(body, bytes):
                    self._read_answer(address, body)
            except PacketError as error:
                _logger.debug("- candidate %s:%d: %s", *address, error)
            on_end()

        query = self._query(address, None, wants_card=True)
        if not is_proven and query.token is None:  # room for a card, and not for more
            query.token, query.padding = NO_TOKEN, bytes(LIGHT_PADDING)
        self.begin(address, "bt_ping", [query], on_body)

    def _check(self, contact: Contact, on_end: Callable[[], None]) -> None:
        self.begin_ask(contact, "bt_ping", None, lambda _: on_end())

    # --- Answering -------------------------------------------------------------------------------

    def _handle_native(
        self, method: str, address: Address, arguments: list[Raw], sequence_id: bytes, size: int
    ) -> Any:
        query = packets.decode_query(method, arguments, self._network_id)
        is_proven = query.token is not None and self._is_proven(query.token, address)
        budget = DATAGRAM_BYTES_MAX if is_proven else size * AMPLIFICATION_MAX
        may_ping = is_proven or size >= packets.PADDED_BYTES
        pings = may_ping and self.admission.consider(query.node_id, address, is_proven)
        if pings and not is_proven:
            budget -= 2 * LIGHT_PING_BYTES  # the reply shares it with our ping, sent twice
        bytes_max = min(budget, DATAGRAM_BYTES_MAX)
        reply = self._reply(query, address)
        if query.target is not None and method != "bt_ping":
            self._add_contacts(reply, query)
        answer = partial(packets.encode_reply, sequence_id, reply, bytes_max)
        if method == "bt_find_value" and self._holdings.is_immediate:
            assert query.target is not None
            self._holdings.describe_now(KeyBytes(query.target), reply)
        elif look := self._look_for(method, query, address, reply, is_proven=is_proven):
            is_repair = method in packets.REPAIRS
            slot = self._repairs if is_repair else self._slot
            later = partial(self._answer_after, look, answer, address)
            if self._will_be_done(slot, later) or not is_repair:
                return NO_REPLY  # silence, or it would seem as if nothing were held
        return answer()

    def _look_for(
        self, method: str, query: Query, address: Address, reply: Reply, *, is_proven: bool
    ) -> Callable[[], Awaitable[None]] | None:
        """Return what fills a reply from the tables, if anything is to be looked for."""
        if method == "bt_renew":
            return partial(self._holdings.renew, query.renewal, address, reply)
        if method == "bt_find_value" and query.target is not None:
            return partial(self._holdings.describe, KeyBytes(query.target), reply)
        if method in packets.REPAIRS and is_proven:
            asker = self._known_at(query.node_id, address)
            return partial(self._holdings.compare, query, asker.id, reply) if asker else None
        return None

    def _will_be_done(self, slot: FnTaskSlot, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            slot.add_no_block(work)
        except LocalError:  # full, or the node is closing
            self.counters["busy"] += 1
            return False
        return True

    async def _answer_after(
        self, look: Callable[[], Awaitable[None]], answer: Callable[[], bytes], address: Address
    ) -> None:
        """Look into the tables, which may block, and answer."""
        try:
            await look()
        except PacketError as error:
            self.counters[error.message] += 1
            return
        if self.endpoint is not None:
            self.endpoint.send(answer(), address)

    def _known_at(self, node_id: bytes | None, address: Address) -> Contact | None:
        """Return the contact of this ID if it proved it at this address."""
        known = self.router.contact(node_id) if node_id is not None else None
        return known if known is not None and known.address == address else None

    def _reply(self, query: Query, address: Address) -> Reply:
        return Reply(
            version=PROTOCOL_VERSION,
            network=self._network_id,
            observed=pack_address(address),
            token=self._mint.issue(address, self.runtime.wall()),
            node_id=self.identity.node_id.binary if not self.is_client else None,
            capabilities=self.capabilities,
            card=self.card().packed if query.wants_card else None,
            radius=self.radius.bits,
        )

    def _is_proven(self, token: bytes, address: Address) -> bool:
        return self._mint.is_valid(token, address, self.runtime.wall())

    def _add_contacts(self, reply: Reply, query: Query) -> None:
        assert query.target is not None
        closest = self.router.closest_sound(query.target, K + 1)
        packed = [contact.packed for contact in closest if contact.id != query.node_id][:K]
        reply.contacts4 = b"".join([p for p in packed if len(p) == 26])
        reply.contacts6 = b"".join([p for p in packed if len(p) == 38])

    def _handle_stock(
        self, method: str, address: Address, arguments: list[Raw], sequence_id: bytes, size: int
    ) -> Any:
        assert self.stock is not None
        return self.stock.handle(method, address, arguments, sequence_id)
