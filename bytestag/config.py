"""Every limit, timeout and interval (pure).

Module constants are the wire's and never differ between nodes; they are the table in
``docs/protocol.rst``. :class:`Config` holds what may differ between nodes and networks, each with
its reason. It is built once, in the command line or by the embedding program, and passed down.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import lru_cache

from bytestag.hashing import sha256

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
MINUTE = 60
HOUR = 3600
DAY = 86_400

# --- The wire and the formats: frozen (docs/protocol.rst, "Constants") --------------------------
PROTOCOL_VERSION = 1
VALUE_BYTES_MAX = MIB
RUN_BYTES_MAX = 4 * MIB  # what a GET of many values may ask for
PART_BYTES = 256 * KIB  # 2^18, the 2012 part size
LIST_PARTS_MAX = 4096  # parts a flat FileInfo may name; above, FileInfo v2 lists list values
MANIFEST_ENTRIES_MAX = 1_000_000
MANIFEST_INLINE_BYTES_MAX = 256 * KIB  # a larger manifest is itself a file with parts
OFFER_KEYS_MAX = 64
INLINE_VALUE_BYTES_MAX = KIB  # what may travel in the clear or inside an offer
DATAGRAM_BYTES_MAX = 1200  # to an address whose path is not proven (RFC 9000, 14.1)
TRAIN_DATAGRAM_BYTES_MAX = 1452  # 1,500 less IPv6 and UDP headers
TRAIN_SEGMENTS_MAX = 44  # 44 × 1,452 stays under the 65,507 bytes of one UDP send
UDP_BYTES_MAX = 65_507  # 65,535 less IPv4 and UDP headers
K = 20
ALPHA = 8
BETA = 3
ADDRESSES_MAX = 8
VALUES_PER_KEY_MAX = 64
VALUES_PER_KEY_AND_DEPOSITOR_MAX = 4
PROVIDERS_PER_KEY_MAX = 500
KEYS_PER_PROVIDER_MAX = 100_000  # held for others; a tenth of the table
AMPLIFICATION_MAX = 3  # bytes sent for each byte received from an unproven address (RFC 9000, 8.1)
RECORD_OVERHEAD_BYTES = 512  # what a value costs in the quota beside its bytes


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """What values may take of the line: bytes a second, 0 without limit."""

    upload: int = 0
    download: int = 0
    peer_upload: int = 0
    """Of what each peer gets."""
    peer_download: int = 0
    is_background: bool = False
    """Whether what is sent keeps queues short, and so yields to everything else."""


@dataclass(frozen=True, slots=True)
class Config:
    """What may differ between nodes. Times in seconds, sizes in bytes."""

    network: str
    """Name of the network; its hash is the network id that every packet carries."""
    id_pow_bits: int
    """Trailing zero bits of the 32-byte ID hash: makes targeted IDs expensive on the open net."""
    is_local: bool
    """Loopback and private addresses count as full addresses; the stock dialect is spoken."""

    copies: int = 8
    """Holders of each value: 0.5 % loss when half the nodes die at once."""
    record_copies: int = 20
    """Holders of provider records and manifests: small, and needed first."""
    keep_seconds: int = 90 * DAY
    """What ``share --keep`` asks for."""
    provider_seconds: int = 48 * HOUR
    """Life of a provider record; renewed at ``provider_renew_seconds`` (as libp2p does)."""
    provider_renew_seconds: int = 22 * HOUR
    value_seconds: int = 86_490
    """Time to live of a value without a deposit, before distance shortens it (2012)."""
    republish_seconds: int = DAY
    """Values without a deposit are published again after this time (2012)."""
    repair_seconds: int = HOUR
    """How often a holder looks after the values it keeps for others (2012: replicate)."""
    settled_seconds: int = 30 * MINUTE
    """A donor is handed what is nearest to it once it has been known for this long: with sessions
    of a median hour (Weibull, shape 0.5) 46 % of who just came leave within the hour, then 30 %."""
    refresh_seconds: int = HOUR
    """A bucket without a look-up for this long is refreshed (Kademlia, 2.3)."""

    rpc_soft_seconds: float = 0.4
    """First guess of the soft timeout: the slot is freed, a late answer still counts."""
    rpc_soft_seconds_min: float = 0.15
    rpc_soft_seconds_max: float = 2.0
    rpc_hard_seconds: float = 3.0
    """After this a call has failed."""
    lookup_seconds: float = 20.0
    """Bound of a look-up up to the first verified byte."""
    contact_fails_max: int = 3
    """A contact that failed this often in a row is dropped, at once if a verified spare waits."""
    verify_pings_max: int = 16
    """Candidates being verified at one time: bounds what strangers can make us send."""
    candidates_max: int = 512

    session_idle_seconds: float = 60.0
    sessions_max: int = 1024
    handshake_seconds: float = 3.0
    transfer_idle_seconds: float = 10.0
    """A transfer without a new byte for this long has failed (2012)."""
    window_bytes: int = 64 * MIB
    """Bytes in flight to one peer, whatever its path seems to take."""
    limits: TransferLimits = field(default_factory=TransferLimits)
    upload_slots: int = 256
    download_slots: int = 128
    incoming_slots: int = 16
    """Values fetched because a stranger offered them: apart, so that ours never wait for theirs."""
    waiting_slots: int = 64

    cache_bytes: int = 10 * GIB
    """Space given to others; 0 stores nothing."""
    stock_bytes: int = 16 * MIB
    """All that nodes of the stock dialect may store here."""

    def replace(self, **changes: object) -> Config:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    @property
    def network_id(self) -> bytes:
        """The 8 bytes that name the network in every packet."""
        return network_id(self.network)


@lru_cache(maxsize=64)
def network_id(name: str) -> bytes:
    """Return SHA-256("bytestag/network/1" ‖ name)[:8]."""
    return sha256(b"bytestag/network/1" + name.encode())[:8]


def internet() -> Config:
    """The open network: global addresses only, IDs that cost work."""
    return Config(network="BYTESTAG", id_pow_bits=16, is_local=False)


def local(name: str = "local") -> Config:
    """Nodes on one machine or one lab network."""
    return Config(network=name, id_pow_bits=0, is_local=True)
