"""Noise handshakes IK and IKpsk2 over 25519, AES-GCM, SHA-256 (pure).

Source: The Noise Protocol Framework, revision 34 (noiseprotocol.org). Only what bytestag speaks:
two messages, after which both ends hold one root key for each direction and a handshake hash.
"""

from __future__ import annotations

import hmac
from copy import copy
from hashlib import sha256

from bytestag.crypto.primitives import AESGCM, InvalidTag, StaticKey
from bytestag.errors import PacketError

DH_BYTES = 32
TAG_BYTES = 16
MESSAGE_1_OVERHEAD = DH_BYTES + DH_BYTES + TAG_BYTES + TAG_BYTES
MESSAGE_2_OVERHEAD = DH_BYTES + TAG_BYTES


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise's HKDF (section 4.3)."""
    temporary = hmac.digest(chaining_key, material, sha256)
    result: list[bytes] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temporary, last + bytes([number]), sha256)
        result.append(last)
    return result


class _SymmetricState:
    """Noise's SymmetricState with its CipherState (sections 5.1 and 5.2)."""

    def __init__(self, protocol_name: bytes, prologue: bytes) -> None:
        self.hash = (
            protocol_name.ljust(32, b"\0")
            if len(protocol_name) <= 32
            else sha256(protocol_name).digest()
        )
        self.chaining_key = self.hash
        self._key: bytes | None = None
        self._nonce = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = sha256(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, material, 2)
        self._key, self._nonce = key, 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chaining_key, extra, key = _hkdf(self.chaining_key, material, 3)
        self.mix_hash(extra)
        self._key, self._nonce = key, 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        text = plaintext
        if self._key is not None:
            text = AESGCM(self._key).encrypt(self._next_nonce(), plaintext, self.hash)
        self.mix_hash(text)
        return text

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        text = ciphertext
        if self._key is not None:
            try:
                text = AESGCM(self._key).decrypt(self._next_nonce(), ciphertext, self.hash)
            except InvalidTag as error:
                raise PacketError("handshake does not authenticate") from error
        self.mix_hash(ciphertext)
        return text

    def split(self) -> tuple[bytes, bytes]:
        first, second = _hkdf(self.chaining_key, b"", 2)
        return first, second

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._nonce.to_bytes(8, "big")
        self._nonce += 1
        return nonce


class NoiseIK:
    """One end of the handshake.

    ::

        IK:  <- s   ...   -> e, es, s, ss   <- e, ee, se

    The initiator calls :meth:`write_1` and :meth:`read_2`, the responder :meth:`read_1` and
    :meth:`write_2`; then :meth:`split` gives (initiator to responder, responder to initiator) keys.
    With a 32-byte ``psk`` the pattern is IKpsk2.

    Raises:
        PacketError: from both readers, for anything that does not authenticate.
    """

    def __init__(
        self,
        static: StaticKey,
        ephemeral: StaticKey,
        prologue: bytes,
        *,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        pattern = b"IK" if psk is None else b"IKpsk2"
        self._state = _SymmetricState(b"Noise_" + pattern + b"_25519_AESGCM_SHA256", prologue)
        self._static = static
        self._ephemeral = ephemeral
        self._psk = psk
        self.remote_static = remote_static or b""
        self._remote_ephemeral = b""
        self._state.mix_hash(remote_static if remote_static is not None else static.public)

    @property
    def handshake_hash(self) -> bytes:
        return self._state.hash

    def write_1(self, payload: bytes) -> bytes:
        """Return message 1 (initiator)."""
        head = self._write_ephemeral()
        self._state.mix_key(self._ephemeral.exchange(self.remote_static))
        head += self._state.encrypt_and_hash(self._static.public)
        self._state.mix_key(self._static.exchange(self.remote_static))
        return head + self._state.encrypt_and_hash(payload)

    def read_1(self, message: bytes) -> bytes:
        """Return the payload of message 1 (responder) and learn ``remote_static``."""
        if len(message) < MESSAGE_1_OVERHEAD:
            raise PacketError("handshake message 1 is too short")
        self._read_ephemeral(message[:DH_BYTES])
        self._state.mix_key(self._static.exchange(self._remote_ephemeral))
        end = DH_BYTES + DH_BYTES + TAG_BYTES
        self.remote_static = self._state.decrypt_and_hash(message[DH_BYTES:end])
        self._state.mix_key(self._static.exchange(self.remote_static))
        return self._state.decrypt_and_hash(message[end:])

    def write_2(self, payload: bytes) -> bytes:
        """Return message 2 (responder)."""
        head = self._write_ephemeral()
        self._state.mix_key(self._ephemeral.exchange(self._remote_ephemeral))
        self._state.mix_key(self._ephemeral.exchange(self.remote_static))
        self._mix_psk()
        return head + self._state.encrypt_and_hash(payload)

    def read_2(self, message: bytes) -> bytes:
        """Return the payload of message 2 (initiator); after a forged one the true one is read."""
        if len(message) < MESSAGE_2_OVERHEAD:
            raise PacketError("handshake message 2 is too short")
        before = copy(self._state)
        try:
            self._read_ephemeral(message[:DH_BYTES])
            self._state.mix_key(self._ephemeral.exchange(self._remote_ephemeral))
            self._state.mix_key(self._static.exchange(self._remote_ephemeral))
            self._mix_psk()
            return self._state.decrypt_and_hash(message[DH_BYTES:])
        except PacketError:
            self._state = before
            raise

    def split(self) -> tuple[bytes, bytes]:
        """Return the two root keys: initiator to responder, responder to initiator."""
        return self._state.split()

    def _write_ephemeral(self) -> bytes:
        self._state.mix_hash(self._ephemeral.public)
        if self._psk is not None:  # section 9.2: with a psk the ephemeral is keyed in as well
            self._state.mix_key(self._ephemeral.public)
        return self._ephemeral.public

    def _read_ephemeral(self, public: bytes) -> None:
        self._remote_ephemeral = public
        self._state.mix_hash(public)
        if self._psk is not None:
            self._state.mix_key(public)

    def _mix_psk(self) -> None:
        if self._psk is not None:
            self._state.mix_key_and_hash(self._psk)
