"""Contacts, buckets, and the exact k closest (pure; on kademlia's classes).

From :mod:`kademlia` remain the bucket that splits when it holds us or its depth is no multiple of
five, and the node with its XOR metric. Replaced is what is wrong there: ``find_neighbors`` (stops
short of the k closest), insertion order taken for liveness, and pings from inside the table.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from kademlia.node import Node
from kademlia.routing import KBucket
from kademlia.routing import RoutingTable as KademliaRoutingTable

from bytestag.config import K
from bytestag.crypto.identity import DONOR, Address, Card, pack_address
from bytestag.errors import UsageError
from bytestag.keys import BIT_SIZE, BYTE_SIZE, KeyBytes
from bytestag.network.tokens import NO_TOKEN

SPARES_MAX = K
GROUP_IN_TABLE_MAX = 3
GROUP_IN_BUCKET_MAX = 2
KEY_END = 2**160


class Contact(Node):
    """A node at an address. Verified ones carry the card that proves it."""

    __slots__ = (
        "_packed", "address", "capabilities", "card", "fails", "first_seen", "id", "last_seen",
        "long_id", "radius", "token",
    )  # fmt: skip

    def __init__(
        self,
        node_id: bytes,
        address: Address,
        *,
        card: Card | None = None,
        capabilities: int = 0,
        last_seen: float = 0.0,
        token: bytes = NO_TOKEN,
    ) -> None:
        if len(node_id) != BYTE_SIZE:
            raise UsageError(f"a node ID has {BYTE_SIZE} bytes, not {len(node_id)}")
        # Not the parent's __init__, which is slow: one is made for every contact in every reply.
        self.id = node_id
        self.address = address
        self.long_id = int.from_bytes(node_id, "big")
        self._packed = b""
        self.card = card
        self.capabilities = capabilities
        self.last_seen = last_seen
        self.first_seen = last_seen
        """Since when it has been known without a break, monotonic seconds."""
        self.fails = 0
        self.radius = BIT_SIZE
        """It takes values whose keys are within 2^radius of its ID."""
        self.token = token

    @property
    def node_id(self) -> KeyBytes:
        return KeyBytes(self.id)

    @property
    def packed(self) -> bytes:
        """ID, IP and port as replies carry them: 26 bytes, or 38 with IPv6."""
        if not self._packed:
            self._packed = self.id + pack_address(self.address)[1:]
        return self._packed

    @property
    def ip(self) -> str:  # the parent's name
        return self.address[0]

    @property
    def port(self) -> int:  # the parent's name
        return self.address[1]

    @property
    def is_donor(self) -> bool:
        return bool(self.capabilities & DONOR)

    def __repr__(self) -> str:
        return f"<Contact {self.id.hex()[:8]} {self.ip}:{self.port}>"


@lru_cache(maxsize=65_536)
def address_group(host: str) -> str:
    """Return the /24 or /48 of a global address, and "" for every other."""
    ip = ipaddress.ip_address(host)
    if not ip.is_global:
        return ""
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False))


class Bucket(KBucket):
    """Contacts of one range of IDs, least recently seen first, and verified spares."""

    def touch_last_updated(self) -> None:
        """The parent reads a clock here; the table sets ``last_updated`` itself."""
        self.last_updated = 0.0

    def __init__(self, low: int, high: int, ksize: int) -> None:
        super().__init__(low, high, ksize)
        # Unlike the parent's they are plain: to go through them takes half the time.
        self.nodes: dict[bytes, Contact] = {}  # type: ignore[assignment]
        self.replacement_nodes: dict[bytes, Contact] = {}  # type: ignore[assignment]

    def depth(self) -> int:
        """How many leading bits the range fixes; the parent compares the members' IDs for it."""
        return BIT_SIZE - (self.range[1] - self.range[0]).bit_length()

    @property
    def oldest(self) -> Contact:
        """The contact that was not seen for the longest time."""
        return next(iter(self.nodes.values()))

    def halves(self) -> tuple[Bucket, Bucket]:
        """Split at the middle; the table lets spares take free places, if they may."""
        middle = (self.range[0] + self.range[1]) // 2
        one = Bucket(self.range[0], middle, self.ksize)
        two = Bucket(middle + 1, self.range[1], self.ksize)
        one.last_updated = two.last_updated = self.last_updated
        for contact in self.nodes.values():
            half = one if contact.long_id <= middle else two
            half.nodes[contact.id] = contact
        for contact in self.replacement_nodes.values():
            half = one if contact.long_id <= middle else two
            half.replacement_nodes[contact.id] = contact
        return one, two


class RoutingTable(KademliaRoutingTable):
    """Verified contacts. ``now`` is monotonic time."""

    def __init__(self, node: Contact, ksize: int = K) -> None:
        super().__init__(None, ksize, node)

    def flush(self) -> None:
        """Forget everything."""
        self.buckets: list[Bucket] = [Bucket(0, KEY_END - 1, self.ksize)]
        self._highs = [KEY_END - 1]
        self._groups: dict[str, int] = {}

    # --- Reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return sum([len(bucket.nodes) for bucket in self.buckets])

    def knows(self, count: int) -> bool:
        """Whether that many are known; found out as soon as they are counted."""
        for bucket in self.buckets:
            count -= len(bucket.nodes)
            if count <= 0:
                return True
        return count <= 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody is known; found out at once."""
        return not any(bucket.nodes for bucket in self.buckets)

    def __iter__(self) -> Iterator[Contact]:
        for bucket in self.buckets:
            yield from bucket.nodes.values()

    def get_bucket_for(self, node: Node) -> int:
        """Return the index of the bucket of a node or key."""
        return bisect_left(self._highs, node.long_id)

    def contact(self, node_id: bytes) -> Contact | None:
        """Return the live contact with this ID."""
        return self._bucket_of(node_id).nodes.get(node_id)

    def _bucket_of(self, node_id: bytes) -> Bucket:
        return self.buckets[bisect_left(self._highs, int.from_bytes(node_id, "big"))]

    def closest(
        self,
        target: bytes,
        count: int | None = None,
        accept: Callable[[Contact], bool] | None = None,
    ) -> list[Contact]:
        """Return exactly the ``count`` contacts closest to a key, closest first.

        Ranges of buckets are aligned subtrees, so their distances to a key do not interleave: the
        key's own bucket is nearest, then all in its sibling subtree, and so on up.
        """
        return self._closest(
            int.from_bytes(target, "big"),
            count or self.ksize,
            lambda members: members if accept is None else filter(accept, members),
        )

    def _closest(
        self,
        goal: int,
        count: int,
        choose: Callable[[Iterable[Contact]], Iterable[Contact]],
    ) -> list[Contact]:
        found: list[Contact] = []
        for bucket in self._nearest_buckets(goal):
            found.extend(choose(bucket.nodes.values()))
            if len(found) >= count:
                break
        found.sort(key=lambda contact: contact.long_id ^ goal)
        return found[:count]

    def closest_sound(self, target: bytes, count: int | None = None) -> list[Contact]:
        """Return the closest that answered when they were asked last; others if those are too few.

        Where people come and go half of a table may be off; they stay in it, for they come back.
        """
        count = count or self.ksize
        found = self._closest(int.from_bytes(target, "big"), count, _sound)
        if len(found) < count:
            found += self.closest(target, count - len(found), lambda contact: contact.fails > 0)
        return found

    def doubts(self, node_id: bytes) -> bool:
        """Whether a contact did not answer lately."""
        known = self.contact(node_id)
        return known is not None and known.fails > 0

    def _nearest_buckets(self, goal: int) -> Iterator[Bucket]:
        """Yield the buckets, nearest first."""
        first = bisect_left(self._highs, goal)
        yield self.buckets[first]
        last = first
        low, high = self.buckets[first].range
        while high - low + 1 < KEY_END:
            size = high - low + 1
            if low & size:  # the sibling lies below
                low -= size
                end, first = first, bisect_left(self._highs, low)
                siblings = self.buckets[first:end]
            else:
                high += size
                begin, last = last + 1, bisect_left(self._highs, high)
                siblings = self.buckets[begin : last + 1]
            if len(siblings) > 1:
                siblings.sort(key=lambda bucket: _nearest_in(bucket, goal))
            yield from siblings

    def find_neighbors(
        self, node: Node, k: int | None = None, exclude: Node | None = None
    ) -> list[Contact]:
        """The parent's name for :meth:`closest`."""
        accept = None if exclude is None else (lambda c: not c.same_home_as(exclude))
        return self.closest(node.id, k, accept)

    def lonely_buckets(self, before: float = 0.0) -> list[Bucket]:
        """Return the buckets without a look-up since ``before``."""
        return [bucket for bucket in self.buckets if bucket.last_updated < before]

    def wants(self, node_id: bytes) -> bool:
        """Whether a new contact with this ID could be of use: room, a split, or no spare."""
        if node_id == self.node.id:
            return False
        bucket = self._bucket_of(node_id)
        if node_id in bucket.nodes or node_id in bucket.replacement_nodes:
            return False
        has_room = len(bucket.nodes) < self.ksize or self._may_split(bucket)
        return has_room or len(bucket.replacement_nodes) < SPARES_MAX

    # --- Changing --------------------------------------------------------------------------------

    def touch(self, target: bytes, now: float) -> None:
        """A look-up for this key took place."""
        self._bucket_of(target).last_updated = now

    def add_contact(self, contact: Contact) -> Contact | None:
        """Add a contact that answered us; it becomes the most recently seen.

        Returns the contact to ping when the bucket is full: should it fail, the new one, now a
        spare, takes its place.
        """
        if contact.id == self.node.id:
            return None
        index = self.get_bucket_for(contact)
        bucket = self.buckets[index]
        known = bucket.nodes.get(contact.id)
        if known is not None:
            contact.first_seen = known.first_seen
            self._forget_group(known)
            del bucket.nodes[contact.id]
        bucket.replacement_nodes.pop(contact.id, None)
        if not self._is_diverse(contact, bucket):
            if known is not None:
                self._fill(bucket)
            return None
        if len(bucket.nodes) < self.ksize:
            bucket.nodes[contact.id] = contact
            self._remember_group(contact)
            return None
        if self._may_split(bucket):
            self.split_bucket(index)
            return self.add_contact(contact)
        bucket.replacement_nodes[contact.id] = contact
        while len(bucket.replacement_nodes) > SPARES_MAX:
            del bucket.replacement_nodes[next(iter(bucket.replacement_nodes))]
        return bucket.oldest

    def has_failed(self, node_id: bytes, fails_max: int, address: Address | None = None) -> bool:
        """A contact did not answer; return whether it was dropped for it.

        At another address than we know it by, where a liar may have sent us, that is no news.
        """
        bucket = self._bucket_of(node_id)
        contact = bucket.nodes.get(node_id)
        if contact is None or address not in (None, contact.address):
            return False
        contact.fails += 1
        if contact.fails < fails_max and not bucket.replacement_nodes:
            return False
        self.remove_contact(contact)
        return True

    def remove_contact(self, node: Node) -> None:
        """Remove a contact; the freshest spare that may takes its place."""
        bucket = self.buckets[self.get_bucket_for(node)]
        bucket.replacement_nodes.pop(node.id, None)
        removed = bucket.nodes.pop(node.id, None)
        if removed is None:
            return
        self._forget_group(removed)
        if bucket.replacement_nodes:
            self._fill(bucket)

    def _fill(self, bucket: Bucket) -> None:
        """Let spares take free places, the freshest first; the order of last sight stays."""
        for spare in reversed(list(bucket.replacement_nodes.values())):
            if len(bucket.nodes) >= bucket.ksize:
                break
            if self._is_diverse(spare, bucket):
                del bucket.replacement_nodes[spare.id]
                bucket.nodes[spare.id] = spare
                self._remember_group(spare)
        by_sight = sorted(bucket.nodes.items(), key=lambda item: item[1].last_seen)
        bucket.nodes = dict(by_sight)

    def split_bucket(self, index: int) -> None:
        """Replace a bucket by its halves."""
        one, two = self.buckets[index].halves()
        self.buckets[index : index + 1] = [one, two]
        self._highs[index : index + 1] = [one.range[1], two.range[1]]
        for half in (one, two):
            if half.replacement_nodes:
                self._fill(half)

    def _may_split(self, bucket: Bucket) -> bool:
        if bucket.range[0] == bucket.range[1]:
            return False
        return bucket.has_in_range(self.node) or bucket.depth() % 5 != 0

    # --- Diversity -------------------------------------------------------------------------------

    def _is_diverse(self, contact: Contact, bucket: Bucket) -> bool:
        """At most 3 of a /24 or /48 in the table and 2 in a bucket; global addresses only."""
        group = address_group(contact.address[0])
        if not group:
            return True
        in_bucket = sum(address_group(c.address[0]) == group for c in bucket.nodes.values())
        return self._groups.get(group, 0) < GROUP_IN_TABLE_MAX and in_bucket < GROUP_IN_BUCKET_MAX

    def _remember_group(self, contact: Contact) -> None:
        group = address_group(contact.address[0])
        if group:
            self._groups[group] = self._groups.get(group, 0) + 1

    def _forget_group(self, contact: Contact) -> None:
        group = address_group(contact.address[0])
        if group:
            self._groups[group] -= 1
            if not self._groups[group]:
                del self._groups[group]


def _sound(contacts: Iterable[Contact]) -> list[Contact]:
    return [contact for contact in contacts if not contact.fails]


def _nearest_in(bucket: Bucket, goal: int) -> int:
    """Return the smallest distance that an ID of the bucket's range can have to the goal."""
    low, high = bucket.range
    size = high - low + 1
    return (low ^ goal) & ~(size - 1)
