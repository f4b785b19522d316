"""PathCache: leaves a copy of what was found at the donor nearest the key that lacked it (shell).

2012's rule, and Kademlia's: popular values spread towards their askers. A cached copy has no
deposit, is the first to be evicted, and lives the shorter the farther its holder is from the key.
"""

from __future__ import annotations

import logging

from bytestag.dht.network import DHTNetwork, Sources
from bytestag.dht.offering import offer
from bytestag.dht.routing import Contact
from bytestag.errors import BytestagError
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot, SlotFull
from bytestag.events.tasks import Parent
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.network import messages as m
from bytestag.tables.base import KVPID, KVPRecord, Standing

_logger = logging.getLogger(__name__)

AT_ONCE = 2
WAITING = 4
ANSWER_SECONDS = 15.0
LENT_SECONDS = 60


class PathCache:
    """Offers values that were fetched; lends them until the donor has taken them."""

    def __init__(self, network: DHTNetwork, runtime: Runtime, parent: Parent) -> None:
        self._network = network
        self._runtime = runtime
        self.slot = FnTaskSlot(AT_ONCE, WAITING, parent)
        self._lent: dict[KVPID, tuple[KVPRecord, bytes]] = {}

    def lent(self, key: KeyBytes) -> list[tuple[KVPRecord, bytes]]:
        """Return the values under a key that a donor may ask for now."""
        return [row for kvpid, row in list(self._lent.items()) if kvpid.key == key]

    def leave(self, sources: Sources, value: bytes) -> None:
        """Leave a copy at the closest donor if that one lacks it; do nothing if busy."""
        donors = [contact for contact in sources.contacts if contact.is_donor]
        if donors and donors[:1] == sources.lacking[:1]:
            try:
                self.slot.add_no_block(self._offer, donors[0], sources.key, value)
            except SlotFull:
                pass

    async def _offer(self, donor: Contact, key: KeyBytes, value: bytes) -> None:
        kvpid = KVPID(key, KeyBytes(sha1(value)))
        now = int(self._runtime.wall())
        record = KVPRecord(
            kvpid, blake3(value), len(value), now, LENT_SECONDS, standing=Standing.CACHED
        )
        entry = m.Entry(
            key if key != kvpid.index else None, kvpid.index, record.blake3, record.size
        )
        self._lent[kvpid] = (record, value)
        try:
            link = await self._network.link_to(donor)
            message = m.Offer(self._runtime.token_bytes(20), [], [entry])
            async for word in offer(link, message, ANSWER_SECONDS):
                _logger.debug("= cached at %r: %s", donor, word.verdict.name)
        except BytestagError as error:
            _logger.debug("! caching at %r: %s", donor, error)
        finally:
            self._lent.pop(kvpid, None)
