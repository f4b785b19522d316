"""Small nodes for tests of the shells: RPC that answers pings, sessions that serve values."""

from __future__ import annotations

import asyncio
import random

from bytestag.config import local
from bytestag.crypto.identity import Identity, pack_address
from bytestag.hashing import blake3, sha1
from bytestag.network import messages as m
from bytestag.network import packets
from bytestag.network.demux import Demux
from bytestag.network.handshake import FIRST_BYTE, UNIT
from bytestag.network.rpc import RPC
from bytestag.network.sessions import Peer, Sessions
from bytestag.network.tokens import TokenMint

CONFIG = local()


class Node:
    """Both planes over one endpoint; ``values`` is what it serves, by key."""

    def __init__(self, name, runtime, config=CONFIG):
        self.config = config
        self.runtime = runtime
        self.identity = Identity.generate(random.Random(f"identity of {name}").randbytes)
        self.mint = TokenMint(runtime.token_bytes(32))
        self.rpc = RPC(config, runtime)
        self.rpc.handlers["bt_ping"] = self.answer_ping
        self.values = {}
        self.requests = []
        self.sessions = Sessions(self.identity, config, runtime, self.mint, self.handle, 1)
        self.demux = Demux(self.rpc, self.sessions)
        self.endpoint = None

    async def open(self, open_endpoint, address):
        self.endpoint = await open_endpoint(address, self.demux)
        self.rpc.attach(self.endpoint)
        self.sessions.attach(self.endpoint)
        return self

    def close(self):
        self.sessions.close()
        self.rpc.close()
        self.endpoint.close()

    @property
    def address(self):
        return self.endpoint.address

    def peer(self, **changes):
        """Return what others need to connect to this node."""
        fields = {
            "node_id": self.identity.node_id,
            "address": self.address,
            "x25519": self.identity.static.public,
        }
        return Peer(**{**fields, **changes})

    # --- Control plane ---------------------------------------------------------------------------

    def answer_ping(self, address, arguments, sequence_id, datagram_bytes):
        packets.decode_query("bt_ping", arguments, self.config.network_id)
        reply = packets.Reply(
            1,
            self.config.network_id,
            observed=pack_address(address),
            token=self.mint.issue(address, self.runtime.wall()),
        )
        return packets.encode_reply(sequence_id, reply)

    async def ping(self, address, **options):
        query = packets.Query(1, self.config.network_id)
        body = await self.rpc.call(address, "bt_ping", [query], **options)
        return packets.decode_reply(body, self.config.network_id)

    # --- Data plane ------------------------------------------------------------------------------

    def hold(self, value):
        """Serve a value; return its key."""
        key = sha1(value)
        self.values[key] = value
        return key

    def handle(self, link, request):
        self.requests.append(request)
        if isinstance(request, m.Cancel):
            link.session.cancel_upload(request.id)
            link.upload_ended(request.id)
        elif isinstance(request, m.Get):
            self.serve(link, request)

    def serve(self, link, get):
        value = self.values.get(get.key)
        if value is None:
            link.send(m.Absent(get.id, m.AbsentReason.NOT_HELD))
            return
        unit_bytes = link.session.unit_bytes
        link.send(m.Found(get.id, sha1(value), blake3(value), len(value), 0, unit_bytes))
        link.uploads_done[get.id] = lambda: None
        plain = memoryview(value)[get.offset : get.offset + get.length]
        link.session.upload(get.id, get.slot, [plain], unit_bytes)


async def fetch(node, peer, key, length, **options):
    """Connect and get a value; return what came."""
    link = await node.sessions.connect(peer)
    return await link.get(key, length=length, **{"idle_seconds": 10.0, **options})


async def nodes(world, count=2, config=CONFIG):
    """Return nodes of a virtual world, each on a host of its own."""
    made = [Node(number, world.runtime(number), config) for number in range(count)]
    for number, node in enumerate(made):
        await node.open(world.network.open_endpoint, (f"10.0.0.{number + 1}", 4000))
    return made


def let_trickle(world, source, seconds):
    """Let one datagram of values pass in so many seconds, of those that a node sends."""
    inject, passed = world.network.inject, [0.0]

    def trickle(datagram, sender, destination):
        if sender == source and datagram[0] == FIRST_BYTE and datagram[9] == UNIT:
            if world.loop.time() < passed[0] + seconds:
                return
            passed[0] = world.loop.time()
        inject(datagram, sender, destination)

    world.network.inject = trickle


async def settle(seconds=1.0):
    """Let virtual time pass."""
    await asyncio.sleep(seconds)
