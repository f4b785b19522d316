"""Pings: how long a node takes to answer on its control plane, while it does other work."""

from __future__ import annotations

import os
import socket
import threading
import time
from types import TracebackType
from typing import Self

from bytestag.config import local
from bytestag.crypto.identity import Address
from bytestag.network import packets

SEQUENCE_BYTES = 20
PERIOD_SECONDS = 0.01
TIMEOUT_SECONDS = 2.0


class Pings:
    """Pings a node all the time from a thread: ``with Pings(address) as pings: …``."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.connect(address)
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._network = local().network_id
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seconds: list[float] = []
        """The times of all answers; a ping without one counts as the time-out."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._is_over.wait(PERIOD_SECONDS):
            sequence = os.urandom(SEQUENCE_BYTES)
            query = packets.Query(1, self._network)
            began = time.perf_counter()
            self._socket.send(packets.encode_request(sequence, "bt_ping", [query]))
            self.seconds.append(self._until_answer(sequence, began))

    def _until_answer(self, sequence: bytes, began: float) -> float:
        try:
            while sequence not in self._socket.recv(2048):
                pass
        except OSError:
            return TIMEOUT_SECONDS
        return time.perf_counter() - began
