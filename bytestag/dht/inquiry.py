"""Inquiry: what a donor is asked in a repair: which rows it lacks, and to prove one (shell).

A few rows are named in the clear, in a datagram each way: nine times in ten a donor lacks nothing,
and a session, with its handshake and its end, would take a dozen to learn that. More rows are named
in a session, once, and a digest stands for them afterwards.
"""

from __future__ import annotations

from bytestag.crypto.identity import COMPARES
from bytestag.dht.claims import Prefix, names_digest
from bytestag.dht.network import DHTNetwork
from bytestag.dht.offering import ANSWER_SECONDS
from bytestag.dht.routing import Contact
from bytestag.errors import RemoteError
from bytestag.events.runtime import Runtime
from bytestag.network import messages as m
from bytestag.network.packets import (
    NAME_BYTES,
    NAMES_IN_QUERY_MAX,
    NOT_HELD,
    Comparison,
    Row,
    Sample,
)
from bytestag.tables.base import KVPRecord


class Inquiry:
    """Questions to one donor. All raise BytestagError when it does not answer, or cannot now."""

    def __init__(self, network: DHTNetwork, donor: Contact, runtime: Runtime) -> None:
        self._network = network
        self._donor = donor
        self._runtime = runtime
        self._in_clear = bool(donor.capabilities & COMPARES)

    async def lacking(self, prefix: Prefix, names: bytes) -> list[bool]:
        """Return of each of ascending names whether the donor lacks the row."""
        count = len(names) // NAME_BYTES
        bitmap = b""
        if self._in_clear and count <= NAMES_IN_QUERY_MAX:
            answer = await self._network.protocol.ask(
                self._donor, "bt_compare", comparison=Comparison(*prefix, names)
            )
            bitmap = answer.reply.result
        if not bitmap:
            bitmap = await self._lacking_in_session(prefix, names)
        if 8 * len(bitmap) < count:
            raise RemoteError("the donor is too busy to compare")
        return m.flags(bitmap, count)

    async def _lacking_in_session(self, prefix: Prefix, names: bytes) -> bytes:
        link = await self._network.link_to(self._donor)
        question = m.Compare(self._runtime.token_bytes(20), *prefix, names_digest(names))
        answer = await link.ask(question, ANSWER_SECONDS)
        if isinstance(answer, m.Compared) and answer.is_same:
            return bytes(-(-len(names) // NAME_BYTES // 8))
        lacking = await link.ask(
            m.Names(self._runtime.token_bytes(20), *prefix, names), ANSWER_SECONDS
        )
        if not isinstance(lacking, m.Lacking):
            raise RemoteError("names were answered with something else")
        return lacking.bitmap

    async def proof(self, record: KVPRecord, nonce: bytes) -> bytes | None:
        """Return what the donor says is the proof that it holds a row; None if it has it not."""
        row = Row(record.key, record.index, record.blake3)
        if self._in_clear:
            answer = await self._network.protocol.ask(
                self._donor, "bt_prove", sample=Sample(nonce, row)
            )
            if result := answer.reply.result:
                return None if result == NOT_HELD else result
        return await self._proof_in_session(row, nonce)

    async def _proof_in_session(self, row: Row, nonce: bytes) -> bytes | None:
        link = await self._network.link_to(self._donor)
        proof = await link.ask(m.Prove(self._runtime.token_bytes(20), nonce, [row]), ANSWER_SECONDS)
        if not isinstance(proof, m.Proof):
            return None
        if not proof.proofs:
            raise RemoteError("the donor is too busy to prove")
        return proof.proofs[0]
