"""Tokens prove that somebody receives at an address (pure).

Keyed BLAKE2s-128 over (IP, port, hour); this hour's and the last hour's are valid. A token
authorises nothing. Source: RFC 9000, 8.1.3; costs 0.4 µs, so it may be checked on every packet.
"""

from __future__ import annotations

import hmac
import ipaddress
from functools import lru_cache

from bytestag.config import HOUR
from bytestag.hashing import blake2s_keyed

TOKEN_BYTES = 16
NO_TOKEN = bytes(TOKEN_BYTES)


class TokenMint:
    """Issues and checks tokens under one secret that never leaves the process."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, address: tuple[str, int], now: float) -> bytes:
        """Return the token of an address for the hour of ``now``."""
        return self._token(address, int(now // HOUR))

    def is_valid(self, token: bytes, address: tuple[str, int], now: float) -> bool:
        """Return whether the token was issued to this address in this or the last hour."""
        hour = int(now // HOUR)
        return any(
            hmac.compare_digest(token, self._token(address, candidate))
            for candidate in (hour, hour - 1)
        )

    def _token(self, address: tuple[str, int], hour: int) -> bytes:
        packed = _packed_ip(address[0]) + address[1].to_bytes(2, "big") + hour.to_bytes(4, "big")
        return blake2s_keyed(self._secret, packed, TOKEN_BYTES)


@lru_cache(maxsize=65_536)
def _packed_ip(host: str) -> bytes:
    ip = ipaddress.ip_address(host)
    return ip.packed.rjust(16, b"\0") if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
