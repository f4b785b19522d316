"""DHTNetwork: joining, looking up, finding values, refreshing (shell)."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from kademlia.network import Server

from bytestag.config import ALPHA, Config, K
from bytestag.crypto.identity import DONOR, Address
from bytestag.dht.protocol import Answer, Protocol
from bytestag.dht.radius import is_within
from bytestag.dht.routing import Bucket, Contact
from bytestag.dht.sizing import SizeEstimate
from bytestag.dht.walking import LookupOutcome, Walk
from bytestag.errors import BytestagError, PacketError, Unreachable
from bytestag.events.runtime import Runtime
from bytestag.keys import KeyBytes
from bytestag.network.early import Early
from bytestag.network.links import Link
from bytestag.network.packets import Held
from bytestag.network.sessions import Peer, Sessions

_logger = logging.getLogger(__name__)

PROVIDERS_TRIED_MAX = 8
HOLDERS_OF_PATH = 2
PATHS = 4  # "S/Kademlia" advises 4 to 8
JOIN_ROUNDS = 4
REMEMBERED_AT_FIRST = 8
"""Half of them may be off; those who answer name the others."""
REMEMBERED_AT_ONCE = 32
JOIN_PAUSE_SECONDS = 0.25
REFRESHED_BUCKETS_MAX = 24
REFRESH_TRIES = 3
OWN_REFRESH_PERIODS = 1.25
REFRESH_NEWCOMERS_MAX = 2
VALUE_ALPHA = 4  # the first holder to answer may have all that is wanted
REFRESH_ALPHA = 3  # nobody waits for a refresh: fewer at once take fewer requests


@dataclass(slots=True)
class Sources:
    """Where a key's values are."""

    key: KeyBytes
    holders: list[tuple[Contact, list[Held]]] = field(default_factory=list)
    providers: dict[bytes, list[Address]] = field(default_factory=dict)
    """Node ID -> addresses; hints."""
    values: list[bytes] = field(default_factory=list)
    """Values that came inside replies, unverified."""
    contacts: list[Contact] = field(default_factory=list)
    """Who answered, closest first."""
    is_complete: bool = False
    asked: int = 0
    answered: int = 0

    def add(self, outcome: LookupOutcome) -> None:
        """Add up who was asked and who answered."""
        self.asked += outcome.asked
        self.answered += outcome.answered
        goal = int.from_bytes(self.key, "big")
        self.contacts = sorted(
            [*self.contacts, *outcome.contacts], key=lambda contact: contact.long_id ^ goal
        )
        self.is_complete = outcome.is_complete

    @property
    def is_empty(self) -> bool:
        return not (self.holders or self.providers or self.values)

    @property
    def lacking(self) -> list[Contact]:
        """Donors near the key that answered and hold nothing, closest first."""
        holders = {contact.id for contact, _ in self.holders}
        return [c for c in self.contacts if c.is_donor and c.id not in holders]


class DHTNetwork(Server):
    """The overlay as one node sees it."""

    protocol_class = Protocol

    def __init__(
        self, protocol: Protocol, sessions: Sessions, config: Config, runtime: Runtime
    ) -> None:
        storage = protocol.stock.storage if protocol.stock is not None else None
        super().__init__(K, ALPHA, protocol.identity.node_id, storage)
        self.node = protocol.source_node
        self.protocol: Protocol = protocol
        self.sessions = sessions
        self.config = config
        self.runtime = runtime
        self.size = SizeEstimate()

    def takes(self, key: KeyBytes) -> bool:
        """Whether a key is near enough for us to hold its values."""
        return is_within(self.protocol.radius.bits, self.node.long_id, key.integer)

    # --- Joining ---------------------------------------------------------------------------------

    async def join(self, addresses: Iterable[Address]) -> int:
        """Meet the nodes at these addresses, then those near us; return how many we know.

        Raises:
            Unreachable: none of them answered (not raised when none were given).
        """
        known = list(dict.fromkeys(addresses))
        found: list[Contact] = []
        for _ in range(JOIN_ROUNDS):
            found = await self._gather([self.protocol.ping(address) for address in known])
            if not self.protocol.router.is_empty or not found:
                break
            # They do not know their own addresses yet, nor we ours: each round tells one of us.
            await asyncio.sleep(JOIN_PAUSE_SECONDS)
        answered = {contact.address for contact in found}
        for address in known:
            if address not in answered:
                self.protocol.absentees.remember(address, self.runtime.monotonic())
        if known and not found and self.protocol.router.is_empty:
            raise Unreachable(
                f"none of {len(known)} known nodes answered",
                hint="is the node up, and is it in the same network (--network)?",
            )
        if not self.protocol.router.is_empty:
            await self.lookup(self.protocol.identity.node_id)
            await self.fill()
        return len(self.protocol.router)

    async def join_again(self, known: Sequence[Address], remembered: Sequence[Address]) -> int:
        """Join through known nodes and those remembered, a few at a time, best first.

        After a long absence many are gone. Raises Unreachable: none of them answered.
        """
        start, end = 0, REMEMBERED_AT_FIRST
        while True:
            try:
                return await self.join([*known, *remembered[start:end]])
            except Unreachable:
                if end >= len(remembered):
                    raise
            start, end = end, end + REMEMBERED_AT_ONCE

    async def fill(self) -> None:
        """Look up a random key in every bucket."""
        for bucket in self.protocol.router.lonely_buckets(float("inf"))[:REFRESHED_BUCKETS_MAX]:
            await self.lookup(self._random_key(bucket), is_thorough=False, alpha=REFRESH_ALPHA)

    async def refresh(self) -> int:
        """Look after every bucket without a look-up for a while; return how many there were.

        Our own neighbourhood is looked up. In each other bucket the contact that was not heard of
        for the longest is asked for a random key: a sign of life, and news of newcomers, for one
        request; a look-up would take ten.
        """
        router = self.protocol.router
        lonely = self.lonely_buckets()
        for bucket in lonely[:REFRESHED_BUCKETS_MAX]:
            if bucket.has_in_range(self.node):
                await self.lookup(self.protocol.identity.node_id)
            else:
                target = self._random_key(bucket)
                router.touch(target, self.runtime.monotonic())
                await self._refresh_bucket(bucket, target)
        return len(lonely)

    def lonely_buckets(self) -> list[Bucket]:
        """Return the buckets without a look-up for a while.

        The repairs of a donor that holds something look around it anyway, once a period or a
        little later: its own bucket waits for them.
        """
        seconds = own_seconds = self.config.refresh_seconds
        if self.protocol.capabilities & DONOR:
            own_seconds = max(seconds, round(OWN_REFRESH_PERIODS * self.config.repair_seconds))
        now = self.runtime.monotonic()
        own_before = now - own_seconds
        return [
            bucket
            for bucket in self.protocol.router.lonely_buckets(now - seconds)
            if not bucket.has_in_range(self.node) or bucket.last_updated < own_before
        ]

    async def greet_absentee(self) -> None:
        """Ask one of those who went; if he knows people near us whom we do not, join them."""
        own_id = self.protocol.identity.node_id
        address = self.protocol.absentees.choose(self.runtime.monotonic(), self.runtime.rng)
        if address is None:
            return
        try:
            contact = await self.protocol.ping_once(address)
            answer = await self.protocol.ask(contact, "bt_find_node", own_id)
        except BytestagError:
            return
        if await self._meet(answer):
            await self.lookup(own_id)

    async def _refresh_bucket(self, bucket: Bucket, target: KeyBytes) -> None:
        sound_first = sorted(bucket.nodes.values(), key=lambda contact: contact.fails > 0)
        for contact in sound_first[:REFRESH_TRIES]:
            try:
                answer = await self.protocol.ask(contact, "bt_find_node", target)
            except BytestagError:
                continue
            await self._meet(answer)
            return

    async def _meet(self, answer: Answer) -> list[Contact]:
        """Ping some of those whom an answer names and the table could use; return who is there."""
        wants = self.protocol.router.wants
        news = self.protocol.referrals.contacts(answer.contact.address, answer.reply, wants)
        return await self._gather(
            [self.protocol.ping_once(n.address) for n in news[:REFRESH_NEWCOMERS_MAX]]
        )

    def _random_key(self, bucket: Bucket) -> KeyBytes:
        return KeyBytes(self.runtime.rng.randint(*bucket.range).to_bytes(20, "big"))

    # --- Looking up ------------------------------------------------------------------------------

    async def lookup(
        self,
        target: bytes,
        *,
        method: str = "bt_find_node",
        is_thorough: bool = True,
        on_answer: Callable[[Answer], bool] | None = None,
        seeds: Iterable[Contact] = (),
        alpha: int = ALPHA,
    ) -> LookupOutcome:
        """Walk towards a key, for 20 s at most. ``on_answer`` returns True to end it early."""
        self.protocol.router.touch(target, self.runtime.monotonic())
        walk = Walk(
            self.protocol,
            target,
            method=method,
            is_thorough=is_thorough,
            on_answer=on_answer,
            seeds=seeds,
            alpha=alpha,
        )
        outcome = await walk.run(self.config.lookup_seconds)
        if is_thorough and (outcome.is_complete or len(outcome.contacts) == K):
            self.size.learn(target, outcome.contacts, is_complete=outcome.is_complete)
        return outcome

    async def find_value(
        self, key: KeyBytes, is_enough: Callable[[Sources], bool] = lambda sources: False
    ) -> Sources:
        """Ask the nodes near a key what they hold, until what was found ``is_enough``."""
        sources = Sources(key)

        def on_answer(answer: Answer) -> bool:
            self._collect(sources, answer)
            return is_enough(sources)

        outcome = await self.lookup(
            key, method="bt_find_value", on_answer=on_answer, alpha=VALUE_ALPHA
        )
        sources.add(outcome)
        return sources

    async def find_value_disjointly(
        self, key: KeyBytes, paths: int = PATHS, without: Iterable[bytes] = ()
    ) -> Sources:
        """Ask along several paths that share no node: one liar spoils no more than his path.

        Each ends when it has found holders of its own. Nobody is asked whose ID is in ``without``.

        For when what should be there was not found; it asks several times as many nodes. Source:
        Baumgart & Mies, "S/Kademlia" (2007).
        """
        sources = Sources(key)

        found = [0] * paths

        def on_answer(number: int, answer: Answer) -> bool:
            self._collect(sources, answer)
            found[number] += bool(answer.reply.held)
            return found[number] >= HOLDERS_OF_PATH

        starts = self.protocol.router.closest_sound(key, K * paths)
        taken = set(without)
        walks = [
            Walk(
                self.protocol,
                key,
                method="bt_find_value",
                is_thorough=True,
                on_answer=partial(on_answer, number),
                seeds=starts[number::paths],
                alpha=max(ALPHA // paths, 1),
                taken=taken,
            )
            for number in range(paths)
        ]
        for outcome in await asyncio.gather(*(w.run(self.config.lookup_seconds) for w in walks)):
            sources.add(outcome)
        return sources

    def _collect(self, sources: Sources, answer: Answer) -> None:
        reply = answer.reply
        if reply.held and answer.contact.card is not None:
            sources.holders.append((answer.contact, reply.held))
        if reply.value is not None:
            sources.values.append(reply.value)
        for provider in reply.providers:
            addresses = self.protocol.referrals.addresses(
                answer.contact.address, provider.addresses
            )
            if addresses and provider.node_id != self.protocol.identity.node_id:
                sources.providers.setdefault(provider.node_id, addresses)

    # --- Talking ---------------------------------------------------------------------------------

    async def link_to(self, contact: Contact, early: Early | None = None) -> Link:
        """Return a session with a contact; ``early`` is asked with the handshake, if there is one.

        Raises:
            Timeout, RemoteError: it does not answer, or is not who it should be.
        """
        link = self.sessions.usable_link_to(contact.node_id)
        if link is not None:
            return link
        if contact.card is None:
            contact = (await self.protocol.ask(contact, "bt_ping")).contact
        if contact.card is None:
            raise PacketError("a contact without a card")
        token = self.protocol.token_for(contact.address) or contact.token
        peer = Peer(contact.node_id, contact.address, contact.card.x25519, token)
        return await self.sessions.connect(peer, early)

    async def reach_provider(
        self, node_id: bytes, addresses: Sequence[Address], *, is_hearsay: bool = True
    ) -> Contact:
        """Return the verified contact behind a provider record or a link's hint.

        What other nodes say gets one datagram for each address. An empty ``node_id`` takes whoever
        answers. Raises Unreachable if nobody fitting does.
        """
        ping = self.protocol.ping_once if is_hearsay else self.protocol.ping
        found = await self._gather([ping(address) for address in addresses[:PROVIDERS_TRIED_MAX]])
        for contact in found:
            if contact.card is not None and node_id in (b"", contact.card.node_id):
                return contact
        raise Unreachable("a provider did not answer at any of its addresses")

    def chosen_providers(self, sources: Sources) -> list[tuple[bytes, list[Address]]]:
        """Return (node ID, addresses) of at most 8 providers, at random."""
        chosen = list(sources.providers.items())
        self.runtime.rng.shuffle(chosen)
        return chosen[:PROVIDERS_TRIED_MAX]

    async def _gather(self, calls: Sequence[object]) -> list[Contact]:
        """Await contacts together; those that fail are left out."""
        results = await asyncio.gather(*calls, return_exceptions=True)  # type: ignore[call-overload]
        failures = [r for r in results if isinstance(r, BaseException)]
        for failure in failures:
            if not isinstance(failure, BytestagError):
                raise failure
        return [result for result in results if isinstance(result, Contact)]


async def resolve(host: str, port: int) -> Address:
    """Return the numeric address of a known node; names are looked up.

    Raises:
        Unreachable: the name has no address.
    """
    try:
        return (str(ipaddress.ip_address(host)), port)
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise Unreachable(
            f"cannot resolve {host!r}: {error.strerror}", hint="give a host name or an IP address"
        ) from error
    infos.sort(key=lambda info: info[0] != socket.AF_INET)
    return (str(infos[0][4][0]), port)
