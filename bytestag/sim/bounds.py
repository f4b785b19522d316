"""Bounds: everything in a node that grows, and how far it may (pure).

The registry names attributes, so that it says what the code says; a test fails when one is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from bytestag import config
from bytestag.client import CONTROL_SLOT, Client
from bytestag.dht import (
    absentees,
    admission,
    caching,
    cards,
    claims,
    protocol,
    reachability,
    referrals,
    replication,
    routing,
)
from bytestag.dht import stock as stock_dialect
from bytestag.network import (
    arrivals,
    control,
    handshake,
    replies,
    rpc,
    session,
    sessions,
    trains,
)
from bytestag.tables import entries, memory_stores

BUCKETS_MAX = 160 * 32
"""A bucket that does not hold us splits up to four times between depths that are multiples of 5."""
Most = int | Callable[[Client], int | None]


@dataclass(frozen=True, slots=True)
class Bound:
    """A container, or something that counts, by its path from the client; None is no bound."""

    path: str
    most: Most
    measure: Callable[[Any], int] = len


@dataclass(frozen=True, slots=True)
class Measured:
    """How large something is, and how large it may be."""

    name: str
    size: int
    most: int | None

    @property
    def holds(self) -> bool:
        return self.most is None or self.size <= self.most


BOUNDS = (
    Bound("protocol._replies", replies.REPLIES_MAX),
    Bound("protocol._timing", rpc.ADDRESSES_TIMED_MAX),
    Bound("protocol._tokens", protocol.TOKENS_REMEMBERED_MAX),
    Bound("protocol._cards", cards.CARDS_REMEMBERED_MAX),
    Bound("protocol.referrals._silent", referrals.SILENT_REMEMBERED_MAX),
    Bound("protocol.absentees", absentees.ABSENTEES_MAX),
    Bound("protocol.admission._tried", admission.TRIED_REMEMBERED_MAX),
    Bound("protocol.admission._candidates", lambda c: c.config.candidates_max),
    Bound("protocol.admission._verifying", lambda c: c.config.verify_pings_max),
    Bound("protocol.admission._checking", admission.CHECKS_MAX),
    Bound("protocol.reachability._known", config.ADDRESSES_MAX),
    Bound("protocol.reachability._votes", reachability.VOTED_MAX),
    Bound("protocol.router.buckets", BUCKETS_MAX),
    Bound("sessions", lambda c: c.config.sessions_max),
    Bound("sessions._handshakes", sessions.HANDSHAKES_MAX),
    Bound("sessions._connecting", sessions.HANDSHAKES_MAX),
    Bound("sessions._responder._seen", handshake.SEEN_MAX),
    Bound("_path_cache._lent", caching.AT_ONCE + caching.WAITING),
    Bound("replicator._agreed", replication.AGREED_MAX),
    Bound("claims.bytes_used", claims.NAMES_BYTES_MAX, int),
    Bound("stores.cache.used_bytes", lambda c: c.stores.cache.max_size, int),
    Bound("stores.providers", memory_stores.PROVIDER_ROWS_MAX),
)
OF_STOCK = (
    Bound("protocol.stock._nodes", stock_dialect.STOCK_NODES_MAX),
    Bound("protocol.stock._proving", CONTROL_SLOT),
    Bound("protocol.stock.storage.used_bytes", lambda c: c.config.stock_bytes, int),
)
OF_BUCKET = (Bound("nodes", config.K), Bound("replacement_nodes", routing.SPARES_MAX))
OF_SESSION = (
    Bound("_downloads", session.DOWNLOADS_MAX),
    Bound("_transfers", session.TRANSFERS_REMEMBERED_MAX),
    Bound("_control._in_flight", control.IN_FLIGHT_MAX),
    Bound("_control._partial_bytes", control.REASSEMBLY_BYTES_MAX, int),
    Bound("_receiver._bitmaps", arrivals.TRAINS_REMEMBERED_MAX),
    Bound("_sender._given_up", trains.GIVEN_UP_MAX),
)


def measured(client: Client) -> Iterator[Measured]:
    """Yield all that is bounded in a running node."""
    yield from _measure(client, client, BOUNDS, "")
    if client.protocol.stock is not None:
        yield from _measure(client, client, OF_STOCK, "")
    for number, bucket in enumerate(client.protocol.router.buckets):
        # What a population has not drawn yet is no larger for being looked at.
        drawn = tuple(bound for bound in OF_BUCKET if bound.path in vars(bucket))
        yield from _measure(client, bucket, drawn, f"bucket {number}.")
    for link in client.sessions._links.values():
        yield from _measure(client, link.session, OF_SESSION, f"session {link!r}.")
    for links in client.sessions._by_peer.values():
        yield Measured("sessions with one peer", len(links), sessions.SESSIONS_PER_PEER_MAX + 1)
    for number, slot in enumerate(client._slots):
        yield Measured(f"slot {number} running", len(slot.current_tasks), slot.max_size)
        yield Measured(f"slot {number} waiting", slot.queue, slot.waiting_max)
    if client.stores.state is not None:
        contacts = client.stores.state.contacts(entries.CONTACTS_MAX + 1)
        yield Measured("remembered contacts", len(contacts), entries.CONTACTS_MAX)


def _measure(
    client: Client, whole: Any, bounds: tuple[Bound, ...], prefix: str
) -> Iterator[Measured]:
    for bound in bounds:
        most = bound.most(client) if callable(bound.most) else bound.most
        size = bound.measure(attrgetter(bound.path)(whole))
        yield Measured(prefix + bound.path, size, most)
