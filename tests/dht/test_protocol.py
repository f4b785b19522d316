"""Who may enter the table, what strangers can make a node send, which replies count."""

import asyncio
import random

import pytest

from bytestag import config
from bytestag.config import HOUR
from bytestag.crypto.identity import Identity, make_card, pack_address
from bytestag.crypto.providers import make_provider_record, make_renewal
from bytestag.dht.routing import Contact
from bytestag.errors import LocalError, PacketError, Timeout
from bytestag.keys import KeyBytes
from bytestag.network import packets
from bytestag.network.packets import Query, Reply
from bytestag.network.tokens import NO_TOKEN
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from tests.dht.helpers import Cluster, add_values, content, own, values

CALM = Conditions(latency=0.01, spread=0)
LOCAL = config.local().network_id


class Peer:
    """An endpoint without a node behind it: it keeps what comes and sends what it is told."""

    def __init__(self, world, host="10.5.5.5", port=4000):
        self.world = world
        self.address = (host, port)
        self.received = []
        self.replies = None
        """(query) -> Reply, to answer native requests."""

    async def open(self):
        self.endpoint = await self.world.network.open_endpoint(self.address, self)
        return self

    def datagram_received(self, datagram, address):
        datagram = bytes(datagram)
        self.received.append((datagram, address))
        if self.replies is not None and datagram[0] == packets.REQUEST:
            sequence_id, body = packets.split(datagram)
            query = packets.decode_query(*packets.decode_request(body), LOCAL)
            self.send(packets.encode_response(sequence_id, self.replies(query)), address)

    def wakeup_ended(self):
        pass

    def send(self, datagram, address):
        self.endpoint.send(datagram, address)

    @property
    def bytes_received(self):
        return sum(len(datagram) for datagram, _ in self.received)

    def requests(self):
        return [d for d, _ in self.received if d[0] == packets.REQUEST]


def query(**fields):
    return Query(1, LOCAL, **fields)


def request(method, made, number=0):
    return packets.encode_request(number.to_bytes(20, "big"), method, [made])


def reply(identity, address, **fields):
    """Return what an honest node at an address would say to us."""
    made = {"node_id": identity.node_id, "card": card(identity, [address]).packed}
    return Reply(1, LOCAL, pack_address(("10.0.0.1", 4000)), bytes(16), **(made | fields))


def card(identity, addresses, network_id=LOCAL, hours=0):
    return make_card(identity, network_id, addresses, 1, 1_800_001_000 + hours * HOUR)


SOMEBODY = Identity.from_bytes(bytes(range(64)))
ANOTHER = Identity.from_bytes(bytes(range(1, 65)))
HERE = ("10.5.5.5", 4000)


def with_peer(main, base=None):
    """Run ``main(world, client, peer)`` with one real node."""

    async def started(world):
        async with Cluster(world, base) as cluster:
            client = await cluster.start()
            return await main(world, client, await Peer(world).open())

    return run(started, conditions=CALM)


# --- Admission -----------------------------------------------------------------------------------

CARDS = {
    "good": (card(SOMEBODY, [HERE]), None, True),
    "one of several addresses": (card(SOMEBODY, [("10.1.1.1", 9), HERE]), None, True),
    "of another node": (card(ANOTHER, [HERE]), PacketError, False),
    "of another address": (card(SOMEBODY, [("10.1.1.1", 4000)]), None, False),
    "without addresses": (card(SOMEBODY, []), None, False),
    "stale": (card(SOMEBODY, [HERE], hours=-27), PacketError, False),
    "of yesterday, still good": (card(SOMEBODY, [HERE], hours=-25), None, True),
    "of the future": (card(SOMEBODY, [HERE], hours=3), PacketError, False),
    "of another network": (card(SOMEBODY, [HERE], bytes(8)), PacketError, False),
}


@pytest.mark.parametrize("case", list(CARDS))
def test_only_who_answers_from_an_address_on_its_own_fresh_card_is_admitted(case):
    made, error, is_admitted = CARDS[case]

    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE, card=made.packed)
        if error is not None:
            with pytest.raises(error):
                await client.protocol.ping(HERE)
        else:
            await client.protocol.ping(HERE)
        assert [c.id for c in client.protocol.router] == [SOMEBODY.node_id] * is_admitted

    with_peer(main)


@pytest.mark.parametrize("at", [0, 45, 100, -1])
def test_a_card_with_a_flipped_bit_admits_nobody(at):
    packed = bytearray(card(SOMEBODY, [HERE]).packed)
    packed[at] ^= 1

    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE, card=bytes(packed))
        with pytest.raises(PacketError):
            await client.protocol.ping(HERE)
        assert len(client.protocol.router) == 0

    with_peer(main)


def test_an_id_without_the_work_admits_nobody():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        with pytest.raises(PacketError, match="work"):
            await client.protocol.ping(HERE)
        assert len(client.protocol.router) == 0

    with_peer(main, config.local().replace(id_pow_bits=20))


def test_who_was_silent_gets_one_datagram_and_is_verified_when_he_asks():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        contact = await client.protocol.ping(HERE)
        client.protocol.has_failed(contact, 0.0)
        peer.replies = None
        peer.received.clear()
        with pytest.raises(Timeout):
            await client.protocol.ask(client.protocol.router.contact(contact.id), "bt_ping")
        assert len(peer.received) == 1
        assert client.protocol.router.doubts(contact.id)
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        peer.send(request("bt_ping", query(node_id=SOMEBODY.node_id)), client.address)
        await asyncio.sleep(1)
        assert not client.protocol.router.doubts(contact.id)

    with_peer(main)


def test_who_answers_for_an_id_without_a_card_is_not_believed():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE, card=None)
        with pytest.raises(PacketError, match="without a card"):
            await client.protocol.ask(Contact(SOMEBODY.node_id, HERE), "bt_ping")
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        answer = await client.protocol.ask(Contact(SOMEBODY.node_id, HERE), "bt_ping")
        peer.replies = lambda query: reply(SOMEBODY, HERE, card=None)
        assert (await client.protocol.ask(answer.contact, "bt_ping")).contact.card is not None

    with_peer(main)


def test_another_node_at_the_address_does_not_answer_for_the_first():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        await client.protocol.ping(HERE)
        peer.replies = lambda query: reply(ANOTHER, HERE)
        with pytest.raises(PacketError, match="another node"):
            await client.protocol.ask(client.protocol.router.contact(SOMEBODY.node_id), "bt_ping")

    with_peer(main)


def test_a_stranger_enters_only_after_it_answered_our_ping():
    async def main(world, client, peer):
        peer.send(request("bt_ping", query(node_id=SOMEBODY.node_id)), client.address)
        await asyncio.sleep(0.005)
        assert len(client.protocol.router) == 0
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        await asyncio.sleep(1)
        assert [c.id for c in client.protocol.router] == [SOMEBODY.node_id]

    with_peer(main)


def test_a_client_that_asks_is_not_pinged():
    async def main(world, client, peer):
        peer.send(request("bt_ping", query()), client.address)
        await asyncio.sleep(5)
        assert len(peer.received) == 1
        assert peer.requests() == []

    with_peer(main)


def test_an_address_is_pinged_once_a_minute_at_most():
    async def main(world, client, peer):
        for number in range(50):
            made = query(node_id=KeyBytes(bytes([number]) * 20))
            peer.send(request("bt_ping", made, number), client.address)
            await asyncio.sleep(1)
        assert len(set(peer.requests())) == 1
        await asyncio.sleep(15)
        peer.send(request("bt_ping", query(node_id=bytes(20)), 99), client.address)
        await asyncio.sleep(5)
        assert len(set(peer.requests())) == 2

    with_peer(main)


def test_our_own_overload_is_not_held_against_a_contact():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        contact = await client.protocol.ping(HERE)
        replies = client.protocol._replies
        client.protocol._replies = type("Full", (), {"is_full": True})()
        for _ in range(5):
            with pytest.raises(LocalError):
                await client.protocol.ask(contact, "bt_ping")
        client.protocol._replies = replies
        assert client.protocol.router.contact(SOMEBODY.node_id) is not None
        assert not client.protocol.referrals.is_silent(contact.address)

    with_peer(main)


def test_a_contact_that_falls_silent_is_dropped_after_a_few_calls_and_not_mentioned_again():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        contact = await client.protocol.ping(HERE)
        peer.replies = None
        for _ in range(client.config.contact_fails_max):
            assert len(client.protocol.router) == 1
            with pytest.raises(Timeout):
                await client.protocol.ask(contact, "bt_ping")
        assert len(client.protocol.router) == 0
        assert client.protocol.referrals.is_silent(contact.address)
        await asyncio.sleep(61)
        assert not client.protocol.referrals.is_silent(contact.address)

    with_peer(main)


def test_the_oldest_of_a_full_bucket_is_pinged_once_when_others_want_its_place():
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        oldest = await client.protocol.ping(HERE)
        pings = len(peer.received)
        newcomer = await Peer(world, "10.5.5.6").open()
        newcomer.replies = lambda query: reply(ANOTHER, newcomer.address)
        client.protocol.router.add_contact = lambda contact: oldest
        await asyncio.gather(*(client.protocol.ping(newcomer.address) for _ in range(3)))
        await asyncio.sleep(1)
        assert len(peer.received) == pings + 1

    with_peer(main)


# --- Referrals -----------------------------------------------------------------------------------


def packed_contacts(*addresses):
    return b"".join(KeyBytes.new_hash(repr(a).encode()) + pack_address(a)[1:] for a in addresses)


def everybody(node_id):
    return True


def test_nobody_but_a_node_on_this_machine_sends_us_to_loopback():
    packed = packed_contacts(("127.0.0.1", 4000), ("10.7.7.7", 4000), ("0.0.0.0", 4000))

    async def main(world, client, peer):
        made = reply(SOMEBODY, HERE, contacts4=packed, contacts6=packed_contacts(("::1", 4000)))
        named = client.protocol.referrals.contacts(HERE, made, everybody)
        assert [c.address for c in named] == [("10.7.7.7", 4000)]
        made.card = None
        named = client.protocol.referrals.contacts(("127.0.0.1", 4001), made, everybody)
        assert [c.address for c in named] == [
            ("127.0.0.1", 4000), ("10.7.7.7", 4000), ("::1", 4000)]  # fmt: skip

    with_peer(main)


def test_in_the_open_network_private_addresses_are_neither_followed_nor_verified():
    async def main(world, client, peer):
        packed = packed_contacts(("10.7.7.7", 4000), ("8.8.8.8", 4000), ("192.168.1.1", 4000))
        made = reply(SOMEBODY, HERE, card=None, contacts4=packed)
        made.network = client.config.network_id
        named = client.protocol.referrals.contacts(("9.9.9.9", 4000), made, everybody)
        assert [c.address for c in named] == [("8.8.8.8", 4000)]
        asked = Query(1, client.config.network_id, node_id=SOMEBODY.node_id)
        peer.send(request("bt_ping", asked), client.address)
        await asyncio.sleep(5)
        assert peer.requests() == []
        assert len(peer.received) == 1

    with_peer(main, config.internet().replace(id_pow_bits=0))


# --- What strangers can make us send -------------------------------------------------------------


def test_a_thousand_strangers_cause_sixteen_verifications_at_a_time_and_no_stores():
    async def main(world, client, peer):
        add_values(client, values(50))
        rng = random.Random(1)
        strangers = [
            await Peer(world, f"10.8.{n // 250}.{n % 250 + 1}").open() for n in range(1000)
        ]
        most = 0
        for number, stranger in enumerate(strangers):
            made = query(node_id=rng.randbytes(20), target=rng.randbytes(20))
            stranger.send(request("bt_find_node", made, number), client.address)
        began, calls = client.runtime.monotonic(), client.protocol._replies
        while client.runtime.monotonic() - began < 300:
            await asyncio.sleep(0.05)
            most = max(most, len(calls))
        assert most == client.config.verify_pings_max == 16
        for stranger in strangers:
            kinds = [datagram[0] for datagram, _ in stranger.received]
            assert set(kinds) <= {packets.REQUEST, packets.RESPONSE}
            assert kinds.count(packets.RESPONSE) == 1
            assert kinds.count(packets.REQUEST) <= 2  # one ping, sent again once
        pinged = sum(bool(stranger.requests()) for stranger in strangers)
        assert pinged == client.config.candidates_max + 16
        assert client.protocol.admission.counters["candidates dropped"] == 1000 - pinged
        assert (
            len(client.protocol.admission._candidates)
            == len(client.protocol.admission._verifying)
            == 0
        )
        assert len(client.protocol.router) == 0

    with_peer(main)


def test_questions_of_readers_are_answered_while_strangers_wait_to_be_verified():
    async def main(world, client, peer):
        rng = random.Random(1)
        for number in range(1000):
            source = (f"10.8.{number // 250}.{number % 250 + 1}", 4000)
            made = query(node_id=rng.randbytes(20), target=rng.randbytes(20))
            world.network.inject(request("bt_find_node", made), source, client.address)
        await asyncio.sleep(0.1)
        for number in range(20):
            peer.send(request("bt_find_value", query(target=bytes(20)), number), client.address)
        await asyncio.sleep(0.1)
        assert len(peer.received) == 20

    with_peer(main)


COMPARISON = packets.Comparison(0, bytes(8), bytes(80))
SAMPLE = packets.Sample(bytes(32), packets.Row(bytes(20), bytes(20), bytes(32)))
SIZES = [0, 1, 30, 100, 200, 250, 320, 400, 800, 1300]


async def rich(cluster):
    """Start a node with much to say about KEY: contacts, rows, a small value, providers."""
    client = await cluster.start(host="10.0.0.200")
    for number in range(60):
        identity = Identity.from_bytes(bytes([number]) * 64)
        address = (f"10.3.0.{number + 1}", 4000)
        client.protocol.router.add_contact(Contact(identity.node_id, address))
    small = content(900)
    key = KeyBytes.new_hash(small)
    add_values(client, own(small))
    for number in range(1, 7):
        add_values(client, own(content(2_000, number), key))
    for number in range(20):
        identity = Identity.from_bytes(bytes([number + 100]) * 64)
        record = make_provider_record(
            identity, LOCAL, 1, client.runtime.wall() + HOUR, [("10.3.3.3", 4000)] * 8, [key]
        )
        client.stores.providers.put(
            record.keys, record.node_id, b"\0" * 21, 1, record.expires, pack_address(HERE) * 8
        )
    return client, key


@pytest.mark.parametrize("method", sorted(packets.NATIVE_METHODS))
@pytest.mark.parametrize("token", [None, NO_TOKEN], ids=["no token", "wrong token"])
def test_a_forged_source_gets_three_times_the_bytes_at_most(method, token):
    async def main(world):
        async with Cluster(world) as cluster:
            client, key = await rich(cluster)
            expires = client.runtime.wall() + HOUR
            named = [(0, bytes(20), bytes(8))]
            renewal = make_renewal(SOMEBODY, LOCAL, client.identity.node_id, 1, expires, named)
            most = 0
            cases = [
                (size, node_id, wants, cut)
                for size in SIZES
                for node_id in (None, SOMEBODY.node_id)
                for wants in (False, True)
                for cut in (0, 1, 40)
            ]
            for number, (size, node_id, wants_card, cut) in enumerate(cases):
                host = f"10.9.{number // 250}.{number % 250 + 1}"
                victim = await Peer(world, host).open()
                made = query(node_id=node_id, target=key, token=token, wants_card=wants_card)
                made.padding = bytes(size)
                made.renewal = renewal if method == "bt_renew" else b""
                made.comparison = COMPARISON if method == "bt_compare" else None
                made.sample = SAMPLE if method == "bt_prove" else None
                datagram = bytes(1) + bytes(20)
                datagram += request(method, made)[21:] if token else _raw(method, made)
                datagram = datagram[: len(datagram) - cut]
                world.network.inject(datagram, victim.address, client.address)
                await asyncio.sleep(4)
                assert victim.bytes_received <= 3 * len(datagram), (size, node_id, wants_card, cut)
                most = max(most, victim.bytes_received)
            assert most > 500

    run(main, conditions=CALM)


def _raw(method, made):
    """Return the body of a request without the padding that honest ones have."""
    return packets._request(bytes(20), method, [made])[21:]


@pytest.mark.parametrize("wants_card", [False, True])
def test_an_answer_with_everything_in_it_fits_a_datagram(wants_card):
    async def main(world):
        async with Cluster(world) as cluster:
            client, key = await rich(cluster)
            peer = await Peer(world).open()
            for proven in (False, True):
                token = client.protocol._mint.issue(HERE, client.runtime.wall()) if proven else None
                made = query(target=key, token=token, wants_card=wants_card)
                peer.send(request("bt_find_value", made), client.address)
                await asyncio.sleep(1)
                datagram, _ = peer.received[-1]
                assert len(datagram) <= 1200
                answer = packets.decode_reply(datagram[21:], LOCAL)
                assert len(answer.held) == 4
                assert answer.more == 3
                assert (answer.card is not None) == wants_card

    run(main, conditions=CALM)


def test_an_honest_first_question_is_answered_with_twenty_contacts():
    async def main(world):
        async with Cluster(world) as cluster:
            client, _ = await rich(cluster)
            peer = await Peer(world).open()
            made = query(target=bytes(20), node_id=SOMEBODY.node_id, wants_card=True)
            peer.send(request("bt_find_node", made), client.address)
            await asyncio.sleep(0.05)
            answers = [d for d, _ in peer.received if d[0] == packets.RESPONSE]
            assert len(packets.decode_reply(answers[0][21:], LOCAL).contacts4) == 20 * 26

    run(main, conditions=CALM)


def test_a_find_without_a_target_is_dropped_and_counted():
    async def main(world, client, peer):
        for method in ("bt_find_node", "bt_find_value"):
            peer.send(request(method, query()), client.address)
        await asyncio.sleep(1)
        assert peer.received == []
        assert client.protocol.counters["a find without a target"] == 2

    with_peer(main)


# --- Replies that are not ------------------------------------------------------------------------


def test_a_reply_counts_from_the_right_address_with_the_right_number_and_once():
    async def main(world, client, peer):
        other = await Peer(world, "10.5.5.6").open()
        pinging = asyncio.ensure_future(client.protocol.ping(HERE))
        await asyncio.sleep(0.02)
        ((asked, _),) = peer.received
        right = packets.encode_response(asked[1:21], reply(SOMEBODY, HERE))
        wrong_id = packets.encode_response(bytes(20), reply(SOMEBODY, HERE))
        forged = [
            (right, other.address),
            (right, (HERE[0], 4001)),
            (wrong_id, HERE),
            (wrong_id, other.address),
        ]
        rng = random.Random(7)
        for _ in range(500):
            number = rng.randbytes(20)
            forged.append((packets.encode_response(number, reply(SOMEBODY, HERE)), HERE))
        for datagram, source in forged:
            world.network.inject(datagram, source, client.address)
        await asyncio.sleep(0.1)
        assert not pinging.done()
        assert client.protocol.counters["reply to nothing"] == len(forged)
        peer.send(right, client.address)
        assert (await pinging).id == SOMEBODY.node_id
        peer.send(right, client.address)
        await asyncio.sleep(0.1)
        assert client.protocol.counters["reply to nothing"] == len(forged) + 1

    with_peer(main)


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x90", b"\x80", b"\xa3abc", b"\xdf\xff\xff\xff\xff", b"\x81" * 1000],
    ids=ascii,
)
def test_a_reply_that_does_not_decode_is_a_packet_error_and_a_failure_of_the_contact(body):
    async def main(world, client, peer):
        peer.replies = lambda query: reply(SOMEBODY, HERE)
        contact = await client.protocol.ping(HERE)
        peer.replies = None
        asking = asyncio.ensure_future(client.protocol.ask(contact, "bt_ping"))
        await asyncio.sleep(0.02)
        asked = peer.requests()[-1]
        peer.send(b"\1" + asked[1:21] + body, client.address)
        with pytest.raises((PacketError, Timeout)):
            await asking
        assert client.protocol.referrals.is_silent(contact.address)

    with_peer(main)


@pytest.mark.parametrize("length", [19, 21])
def test_a_reply_with_an_id_of_another_length_does_not_decode(length):
    made = reply(SOMEBODY, HERE, node_id=bytes(length))
    with pytest.raises(PacketError):
        packets.decode_reply(packets.encode_response(bytes(20), made)[21:], LOCAL)


def test_what_is_remembered_of_strangers_is_bounded():
    async def main(world, client, peer):
        protocol = client.protocol
        for number in range(4_200):
            address = (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4000)
            made = reply(SOMEBODY, address, card=None, node_id=None)
            protocol._read_answer(address, packets.encode_reply(bytes(20), made)[21:])
            protocol.has_failed(Contact(KeyBytes(bytes(20)), address), 60)
        assert len(protocol._tokens) <= 4096
        assert len(protocol.referrals._silent) <= 2048

    with_peer(main)


def test_what_a_liar_says_of_a_contact_is_not_held_against_it():
    async def main(world):
        async with Cluster(world) as cluster:
            honest, asker = await cluster.start(), await cluster.start()
            protocol = asker.protocol
            with pytest.raises(PacketError):
                await protocol.ask(Contact(bytes(20), honest.address), "bt_ping")
            assert not protocol.referrals.is_silent(honest.address)
            elsewhere = Contact(honest.identity.node_id, ("10.9.9.9", 4000))
            for _ in range(asker.config.contact_fails_max):
                with pytest.raises(TimeoutError):
                    await protocol.ask(elsewhere, "bt_ping")
            assert protocol.router.contact(honest.identity.node_id) is not None

    run(main, conditions=CALM)
