"""Ed25519, X25519, AES-GCM: the one module that imports cryptography (pure)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bytestag.errors import PacketError

__all__ = ["AESGCM", "InvalidTag", "SigningKey", "StaticKey", "verify"]

KEY_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16


class SigningKey:
    """An Ed25519 key (RFC 8032)."""

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether the Ed25519 signature is the key's; False for a malformed key too."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


class StaticKey:
    """An X25519 key (RFC 7748)."""

    __slots__ = ("_key", "public", "secret")

    def __init__(self, secret: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self.secret = secret
        self.public = self._key.public_key().public_bytes_raw()

    def exchange(self, public: bytes) -> bytes:
        """Return the 32-byte shared secret.

        Raises:
            PacketError: the public key is malformed or of small order.
        """
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise PacketError("bad X25519 public key") from error
