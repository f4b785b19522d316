"""INIT, ACCEPT, CHALLENGE: how a session begins (pure).

The responder does no public-key work before the token in the INIT has proven the address, and
answers each INIT once. Formats: ``docs/protocol.rst``, "Session".
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from bytestag import codec
from bytestag.codec import Meta
from bytestag.config import PROTOCOL_VERSION
from bytestag.crypto.identity import Address, Identity, id_hash, trailing_zero_bits
from bytestag.crypto.noise import NoiseIK
from bytestag.crypto.primitives import StaticKey
from bytestag.errors import PacketError
from bytestag.hashing import blake2s_keyed
from bytestag.keys import KeyBytes
from bytestag.network.packets import Bin8, Bin16, Bin32, Capabilities
from bytestag.network.tokens import NO_TOKEN, TOKEN_BYTES, TokenMint

FIRST_BYTE = 0x40 | PROTOCOL_VERSION
HEAD_BYTES = 10
CONNECTION_ID_BYTES = 8
INIT, ACCEPT, CHALLENGE, CONTROL, UNIT = range(1, 6)
SEEN_MAX = 4096
BURST_BYTES_MIN = 16 * 1024

Burst = Annotated[int, Meta(ge=0, le=2**40)]


class _InitPayload(codec.Struct, array_like=True):
    ed25519: Bin32
    connection_id: Bin8
    capabilities: Capabilities
    receive_burst: Burst
    early: Annotated[list[codec.Raw], Meta(max_length=8)]


class _AcceptPayload(codec.Struct, array_like=True):
    connection_id: Bin8
    capabilities: Capabilities
    receive_burst: Burst
    token: Bin16


_decode_init: Callable[[codec.Packed], _InitPayload] = codec.decoder(_InitPayload)
_decode_accept: Callable[[codec.Packed], _AcceptPayload] = codec.decoder(_AcceptPayload)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both ends know once the handshake is done."""

    node_id: KeyBytes
    """The other end's, proven."""
    ed25519: bytes
    """The other end's public key; empty at the initiator, who knew the ID."""
    local_id: bytes
    remote_id: bytes
    send_key: bytes
    receive_key: bytes
    capabilities: int
    burst_bytes: int
    """What the other end can take at once."""
    address: Address
    is_initiator: bool
    early: tuple[bytes, ...] = ()
    """Messages that came with the INIT."""


def header(connection_id: bytes, kind: int) -> bytes:
    """Return the 10 bytes that begin every datagram of the data plane."""
    return bytes([FIRST_BYTE]) + connection_id + bytes([kind])


def _prologue(network_id: bytes, responder: bytes) -> bytes:
    return bytes([FIRST_BYTE]) + network_id + responder


def _echo(datagram: bytes) -> bytes:
    """Return what shows that a CHALLENGE answers this INIT."""
    return blake2s_keyed(b"", datagram, TOKEN_BYTES)


class Initiator:
    """Our end of a session that we begin.

    ``datagram`` is what to send; :meth:`receive` takes what comes back for this connection ID.
    """

    RETRIES_MAX = 5
    """An ACCEPT that is lost costs one: its INIT, sent again, is answered by a challenge."""

    def __init__(
        self,
        identity: Identity,
        network_id: bytes,
        responder: KeyBytes,
        responder_static: bytes,
        address: Address,
        *,
        capabilities: int,
        burst_bytes: int,
        token: bytes,
        random_bytes: Callable[[int], bytes],
        early: bytes = b"",
    ) -> None:
        """``early`` is a message that changes nothing, to go along."""
        self._identity = identity
        self._network_id = network_id
        self._responder = responder
        self._early = [codec.Raw(early)] if early else []
        self._responder_static = responder_static
        self.address = address
        self._capabilities = capabilities
        self._burst_bytes = burst_bytes
        self._random_bytes = random_bytes
        self._retries = 0
        self.local_id = b""
        """Ours in the INIT that ``datagram`` is: another with each, lest what a responder sends for
        one whose ACCEPT was lost is taken for the other's."""
        self.datagram = b""
        self._begin(token)

    def receive(self, datagram: bytes) -> Agreement | None:
        """Take an ACCEPT (returns the agreement) or a CHALLENGE (``datagram`` is new: send it).

        Raises:
            PacketError: it does not answer our INIT, or there were too many challenges.
        """
        kind = datagram[HEAD_BYTES - 1]
        if kind == ACCEPT:
            return self._accept(datagram[HEAD_BYTES:])
        if kind != CHALLENGE or len(datagram) != HEAD_BYTES + 2 * TOKEN_BYTES:
            raise PacketError("not an answer to a handshake")
        echo, token = datagram[HEAD_BYTES:-TOKEN_BYTES], datagram[-TOKEN_BYTES:]
        if not hmac.compare_digest(echo, _echo(self.datagram)):
            raise PacketError("challenge to another handshake")
        if self._retries == self.RETRIES_MAX:
            raise PacketError("too many challenges")
        self._retries += 1
        self._begin(token)
        return None

    def _begin(self, token: bytes) -> None:
        self.local_id = self._random_bytes(CONNECTION_ID_BYTES)
        self._noise = NoiseIK(
            self._identity.static,
            StaticKey(self._random_bytes(32)),
            _prologue(self._network_id, self._responder),
            remote_static=self._responder_static,
        )
        payload = _InitPayload(
            self._identity.signing.public,
            self.local_id,
            self._capabilities,
            self._burst_bytes,
            self._early,
        )
        message = self._noise.write_1(codec.encode(payload))
        self.datagram = header(self.local_id, INIT) + token + message

    def _accept(self, message: bytes) -> Agreement:
        payload = _decode_accept(self._noise.read_2(message))
        send_key, receive_key = self._noise.split()
        return Agreement(
            self._responder,
            b"",
            self.local_id,
            payload.connection_id,
            send_key,
            receive_key,
            payload.capabilities,
            max(payload.receive_burst, BURST_BYTES_MIN),
            self.address,
            is_initiator=True,
        )


class Responder:
    """Answers INIT datagrams; one for a node."""

    def __init__(
        self,
        identity: Identity,
        network_id: bytes,
        mint: TokenMint,
        *,
        pow_bits: int,
        capabilities: int,
        burst_bytes: int,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._identity = identity
        self._network_id = network_id
        self._mint = mint
        self._pow_bits = pow_bits
        self.capabilities = capabilities
        self.burst_bytes = burst_bytes
        self._random_bytes = random_bytes
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def receive(
        self, datagram: bytes, address: Address, now: float
    ) -> tuple[bytes, Agreement | None]:
        """Take an INIT; return the datagram to answer with, and the agreement if it is an ACCEPT.

        Raises:
            PacketError: it is not an INIT for us. Nothing is answered then.
        """
        start = HEAD_BYTES + TOKEN_BYTES
        if len(datagram) < start + 96:
            raise PacketError("truncated INIT")
        remote_id = datagram[1 : 1 + CONNECTION_ID_BYTES]
        token, message = datagram[HEAD_BYTES:start], datagram[start:]
        fingerprint = message[:32]
        if (
            token == NO_TOKEN
            or not self._mint.is_valid(token, address, now)
            or fingerprint in self._seen
        ):
            return self._challenge(datagram, remote_id, address, now), None
        noise = NoiseIK(
            self._identity.static,
            StaticKey(self._random_bytes(32)),
            _prologue(self._network_id, self._identity.node_id),
        )
        payload = _decode_init(noise.read_1(message))
        if payload.connection_id != remote_id:
            raise PacketError("INIT with two connection IDs")
        hash_ = id_hash(payload.ed25519, noise.remote_static)
        if trailing_zero_bits(hash_) < self._pow_bits:
            raise PacketError("node ID with too little work")
        self._remember(fingerprint)
        local_id = self._random_bytes(CONNECTION_ID_BYTES)
        accept = _AcceptPayload(
            local_id, self.capabilities, self.burst_bytes, self._mint.issue(address, now)
        )
        answer = header(remote_id, ACCEPT) + noise.write_2(codec.encode(accept))
        receive_key, send_key = noise.split()
        return answer, Agreement(
            KeyBytes(hash_[:20]),
            payload.ed25519,
            local_id,
            remote_id,
            send_key,
            receive_key,
            payload.capabilities,
            max(payload.receive_burst, BURST_BYTES_MIN),
            address,
            is_initiator=False,
            early=tuple(map(bytes, payload.early)),
        )

    def _challenge(self, datagram: bytes, remote_id: bytes, address: Address, now: float) -> bytes:
        return header(remote_id, CHALLENGE) + _echo(datagram) + self._mint.issue(address, now)

    def _remember(self, fingerprint: bytes) -> None:
        self._seen[fingerprint] = None
        if len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
