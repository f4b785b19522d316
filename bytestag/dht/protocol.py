"""Protocol: the control-plane RPCs in and out, and who may enter the routing table (shell).

A contact enters only when it answered a request of ours from an address on its own signed card.
Whoever asks us is a candidate; verifying candidates is bounded, and nothing is ever stored or sent
on because somebody new appeared (kademlia's ``welcome_if_new`` can storm without end).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from typing import Protocol as TypingProtocol

from kademlia.protocol import KademliaProtocol

from bytestag.codec import Raw
from bytestag.config import (
    AMPLIFICATION_MAX,
    DATAGRAM_BYTES_MAX,
    HOUR,
    PROTOCOL_VERSION,
    Config,
)
from bytestag.crypto.identity import (
    Address,
    Card,
    Identity,
    make_card,
    pack_address,
    read_card,
    unpack_addresses,
)
from bytestag.dht.admission import Admission
from bytestag.dht.reachability import Reachability, is_eligible, is_loopback
from bytestag.dht.routing import Contact, RoutingTable
from bytestag.dht.stock import StockDialect
from bytestag.errors import BytestagError, LocalError, PacketError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.keys import KeyBytes
from bytestag.network import packets
from bytestag.network.endpoint import Endpoint
from bytestag.network.packets import Query, Reply
from bytestag.network.rpc import NO_REPLY, RPC
from bytestag.network.tokens import NO_TOKEN, TokenMint

_logger = logging.getLogger(__name__)

CARDS_REMEMBERED_MAX = 2048
TOKENS_REMEMBERED_MAX = 4096
LIGHT_PADDING = 60
LIGHT_PING_BYTES = 164  # three times this has room for a card with eight IPv6 addresses
SILENCE_SECONDS = 60.0
SILENT_REMEMBERED_MAX = 2048
_UNBOUND = ("0.0.0.0", 0)  # noqa: S104  # no socket is bound to it


class Holdings(TypingProtocol):
    """What a node has under a key, for the answer to a find value."""

    async def describe(self, key: KeyBytes, reply: Reply) -> None:
        """Fill ``held``, ``more``, ``value`` and ``providers`` of a reply."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a contact said: itself, verified if ``contact.card``, and what it knows."""

    contact: Contact
    contacts: list[Contact]
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
        holdings: Holdings,
    ) -> None:
        RPC.__init__(self, config, runtime)
        self.identity = identity
        self.capabilities = capabilities
        self.is_client = is_client
        self._mint = mint
        self._slot = slot
        self._holdings = holdings
        self.reachability = Reachability(_UNBOUND, is_local=config.is_local)
        self.source_node = Contact(identity.node_id, _UNBOUND, capabilities=capabilities)
        self.router = RoutingTable(self.source_node)
        self._card: Card | None = None
        self._cards: OrderedDict[bytes, Card] = OrderedDict()
        self._tokens: OrderedDict[Address, tuple[bytes, float]] = OrderedDict()
        self.admission = Admission(self.router, config, runtime, slot, self._verify, self._check)
        self._silent: OrderedDict[Address, float] = OrderedDict()
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
        return not self.is_client and bool(self.reachability.addresses)

    def card(self) -> Card:
        """Return our card of this hour."""
        now = self.runtime.wall()
        addresses = self.reachability.addresses
        card = self._card
        if card is None or card.hour != int(now // HOUR) or card.addresses != tuple(addresses):
            card = self._card = make_card(
                self.identity, self.config.network_id, addresses, self.capabilities, now
            )
        return card

    # --- Asking ----------------------------------------------------------------------------------

    async def ask(
        self,
        contact: Contact,
        method: str,
        target: bytes | None = None,
        on_slow: Callable[[int], None] | None = None,
    ) -> Answer:
        """Send a native request to a contact and take its answer.

        Raises:
            Timeout: no reply; the routing table has been told.
            PacketError: a malformed reply, one of another node than ``contact.id``, or one of a
                node that never proved its ID.
        """
        try:
            answer = await self.ask_address(
                contact.address, method, target, on_slow, wants_card=contact.card is None
            )
            if answer.contact.id != contact.id:
                raise PacketError("another node answered")
        except LocalError:  # ours, not the contact's
            raise
        except BytestagError:
            self.has_failed(contact, SILENCE_SECONDS)
            raise
        answer.contact.card = answer.contact.card or contact.card
        if answer.contact.card is None:
            raise PacketError("an answer without a card")
        return answer

    def has_failed(self, contact: Contact, silence_seconds: float) -> None:
        """A contact did not answer: tell the table, and take nobody's word for it for a while."""
        self.router.has_failed(contact.id, self.config.contact_fails_max)
        self._silent[contact.address] = self.runtime.monotonic() + silence_seconds
        self._silent.move_to_end(contact.address)
        _trim(self._silent, SILENT_REMEMBERED_MAX)

    def is_silent(self, contact: Contact) -> bool:
        """Whether a contact that somebody mentions failed us a moment ago."""
        return self._silent.get(contact.address, 0.0) > self.runtime.monotonic()

    async def ask_address(
        self,
        address: Address,
        method: str,
        target: bytes | None = None,
        on_slow: Callable[[int], None] | None = None,
        *,
        wants_card: bool = True,
        is_light: bool = False,
        is_repeated: bool = True,
    ) -> Answer:
        """Send a native request to an address, whoever is there; see :meth:`ask`.

        With ``is_light`` it is short even without a token: room for a card, and not for more.
        """
        query = Query(
            version=PROTOCOL_VERSION,
            network=self.config.network_id,
            node_id=self.identity.node_id if self.is_reachable else None,
            capabilities=self.capabilities,
            token=self.token_for(address),
            target=target,
            wants_card=wants_card,
        )
        if is_light and query.token is None:
            query.token, query.padding = NO_TOKEN, bytes(LIGHT_PADDING)
        body = await self.call(address, method, [query], on_slow, is_repeated=is_repeated)
        reply = packets.decode_reply(body, self.config.network_id)
        return self._accept_reply(address, reply)

    async def ping(self, address: Address) -> Contact:
        """Return the verified contact at an address; raises Timeout or PacketError."""
        return (await self.ask_address(address, "bt_ping")).contact

    async def ping_once(self, address: Address) -> Contact:
        """Ping with a single datagram: somebody else named the address."""
        return (await self.ask_address(address, "bt_ping", is_repeated=False)).contact

    def token_for(self, address: Address) -> bytes | None:
        """Return the token that the node at an address gave us, if it is young enough."""
        token = self._tokens.get(address)
        if token is None or self.runtime.monotonic() - token[1] > HOUR:
            return None
        return token[0]

    def _accept_reply(self, address: Address, reply: Reply) -> Answer:
        now = self.runtime.monotonic()
        self._tokens[address] = (reply.token, now)
        self._silent.pop(address, None)
        _trim(self._tokens, TOKENS_REMEMBERED_MAX)
        for observed in unpack_addresses(reply.observed)[:1]:
            if self.reachability.vote(address, observed):
                _logger.info("reachable at %s:%d", *observed)
        node_id = KeyBytes(reply.node_id) if reply.node_id is not None else None
        card = self._card_of(node_id, address, reply)
        contact = Contact(
            node_id or KeyBytes(bytes(20)),
            address,
            card=card,
            capabilities=reply.capabilities,
            last_seen=now,
            token=reply.token,
        )
        if node_id is not None and card is not None and address in card.addresses:
            self.admission.admit(contact)
        contacts = [c for c in _unpack_contacts(reply) if self._may_refer(address, c)]
        return Answer(contact, contacts, reply)

    def _card_of(self, node_id: KeyBytes | None, address: Address, reply: Reply) -> Card | None:
        """Return the verified card that this node gave us now or before."""
        if reply.card is None:
            known = self.router.contact(node_id) if node_id is not None else None
            return known.card if known is not None and known.address == address else None
        card = self._cards.get(reply.card)
        if card is None or not card.is_fresh(self.runtime.wall()):
            card = read_card(
                reply.card, self.config.network_id, self.runtime.wall(), self.config.id_pow_bits
            )
            self._cards[reply.card] = card
            _trim(self._cards, CARDS_REMEMBERED_MAX)
        if node_id is not None and card.node_id != node_id:
            raise PacketError("card of another node")
        return card

    # --- Referrals -------------------------------------------------------------------------------

    async def _verify(self, address: Address, is_proven: bool) -> None:
        await self.ask_address(address, "bt_ping", is_light=not is_proven)

    async def _check(self, contact: Contact) -> None:
        await self.ask(contact, "bt_ping")

    def _is_eligible(self, contact: Contact) -> bool:
        """Whether an address may stand in our table at all."""
        return is_eligible(contact.address[0], is_local=self.config.is_local)

    def _may_refer(self, referrer: Address, contact: Contact) -> bool:
        """Only a node on our own machine may send us to loopback addresses."""
        if is_loopback(contact.address[0]) and not is_loopback(referrer[0]):
            return False
        return self._is_eligible(contact)

    def referred_addresses(self, referrer: Address, packed: bytes) -> list[Address]:
        """Return the addresses of a provider that a node named, and may name; maybe none."""
        try:
            addresses = unpack_addresses(packed)
        except PacketError:
            return []
        nobody = KeyBytes(bytes(20))
        return [a for a in addresses if self._may_refer(referrer, Contact(nobody, a))]

    # --- Answering -------------------------------------------------------------------------------

    def _handle_native(
        self, method: str, address: Address, arguments: list[Raw], sequence_id: bytes, size: int
    ) -> Any:
        query = packets.decode_query(arguments, self.config.network_id)
        if method != "bt_ping" and query.target is None:
            raise PacketError("a find without a target")
        is_proven = query.token is not None and self._is_proven(query.token, address)
        budget = DATAGRAM_BYTES_MAX if is_proven else size * AMPLIFICATION_MAX
        may_ping = is_proven or size >= packets.PADDED_BYTES
        pings = may_ping and self.admission.consider(query.node_id, address, is_proven)
        if pings and not is_proven:
            budget -= 2 * LIGHT_PING_BYTES  # the reply shares it with our ping, sent twice
        bytes_max = min(budget, DATAGRAM_BYTES_MAX)
        reply = self._reply(query, address)
        if method == "bt_ping":
            return packets.encode_reply(sequence_id, reply, bytes_max)
        assert query.target is not None
        self._add_contacts(reply, query)
        if method == "bt_find_node":
            return packets.encode_reply(sequence_id, reply, bytes_max)
        try:
            self._slot.add_no_block(
                self._answer_find_value, query.target, address, sequence_id, reply, bytes_max
            )
        except LocalError:  # full, or the node is closing
            self.counters["find value dropped"] += 1
        return NO_REPLY

    async def _answer_find_value(
        self, target: bytes, address: Address, sequence_id: bytes, reply: Reply, bytes_max: int
    ) -> None:
        """Look into the tables, which may block, and answer."""
        await self._holdings.describe(KeyBytes(target), reply)
        if self.endpoint is not None:
            self.endpoint.send(packets.encode_reply(sequence_id, reply, bytes_max), address)

    def _reply(self, query: Query, address: Address) -> Reply:
        return Reply(
            version=PROTOCOL_VERSION,
            network=self.config.network_id,
            observed=pack_address(address),
            token=self._mint.issue(address, self.runtime.wall()),
            node_id=self.identity.node_id if not self.is_client else None,
            capabilities=self.capabilities,
            card=self.card().packed if query.wants_card else None,
        )

    def _is_proven(self, token: bytes, address: Address) -> bool:
        return self._mint.is_valid(token, address, self.runtime.wall())

    def _add_contacts(self, reply: Reply, query: Query) -> None:
        asker = query.node_id
        accept = (lambda c: c.id != asker) if asker is not None else None
        assert query.target is not None
        packed = [
            contact.id + pack_address(contact.address)[1:]
            for contact in self.router.closest(query.target, accept=accept)
        ]
        reply.contacts4 = b"".join(p for p in packed if len(p) == 26)
        reply.contacts6 = b"".join(p for p in packed if len(p) == 38)

    def _handle_stock(
        self, method: str, address: Address, arguments: list[Raw], sequence_id: bytes, size: int
    ) -> Any:
        assert self.stock is not None
        return self.stock.handle(method, address, arguments, sequence_id)


def _unpack_contacts(reply: Reply) -> list[Contact]:
    contacts = []
    for packed, step, kind in ((reply.contacts4, 26, b"\x04"), (reply.contacts6, 38, b"\x06")):
        for start in range(0, len(packed), step):
            node_id = KeyBytes(packed[start : start + 20])
            try:
                (address,) = unpack_addresses(kind + packed[start + 20 : start + step])
            except PacketError:
                continue
            contacts.append(Contact(node_id, address))
    return contacts


def _trim(remembered: OrderedDict[Any, Any], most: int) -> None:
    while len(remembered) > most:
        remembered.popitem(last=False)
