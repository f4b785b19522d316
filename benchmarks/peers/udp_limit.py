"""What this machine can do at most: ``python -m benchmarks.peers.udp_limit FILE OUT``.

Two processes, one core each: one reads a file, encrypts units of 62 kB and sends each as one train
of datagrams; the other receives, decrypts, hashes parts with BLAKE3 and writes. Nothing is lost,
found, asked for or verified; an acknowledgement every few units keeps the socket's buffer from
overflowing. Prints seconds from the first datagram to the last byte written.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY = bytes(16)
BODY, SEGMENTS = 1428, 44
UNIT = BODY * SEGMENTS - 17
PART_UNITS = 4
UNITS_AHEAD = 24
ACK_EVERY = 4
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104


def send(path: str, sock: socket.socket) -> None:
    """Send a file to the connected socket."""
    aes = AESGCM(KEY)
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", BODY))]
    size = os.path.getsize(path)
    number = acked = 0
    with open(path, "rb", buffering=0) as file:
        while part := file.read(PART_UNITS * UNIT):
            for start in range(0, len(part), UNIT):
                sealed = aes.encrypt(
                    number.to_bytes(12, "big"), memoryview(part)[start:][:UNIT], b""
                )
                view = memoryview(sealed)
                sock.sendmsg([view[i : i + BODY] for i in range(0, len(view), BODY)], control)
                number += 1
                while number - acked > UNITS_AHEAD:
                    acked = int.from_bytes(sock.recv(16), "big")
    while acked < -(-size // UNIT):
        acked = int.from_bytes(sock.recv(16), "big")


def receive(out: str, size: int, sock: socket.socket) -> float:
    """Write what comes; return the seconds it took."""
    sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    aes = AESGCM(KEY)
    buffer = bytearray(65_536)
    view = memoryview(buffer)
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    number, written, began = 0, 0, 0.0
    part = bytearray()
    while written < size:
        (got, *_rest, source) = sock.recvmsg_into([buffer], 64)
        began = began or time.perf_counter()
        sealed = bytes(view[:got])
        while len(sealed) % BODY == 0:  # the rest of the unit came apart
            more = sock.recvmsg_into([buffer], 64)[0]
            sealed += view[:more]
        part += aes.decrypt(number.to_bytes(12, "big"), sealed, b"")
        number += 1
        if number % PART_UNITS == 0 or written + len(part) >= size:
            blake3(part).digest()
            written += os.pwrite(fd, part, written)
            part.clear()
        if number % ACK_EVERY == 0 or written >= size:
            sock.sendto(number.to_bytes(8, "big"), source)
    os.close(fd)
    return time.perf_counter() - began


def main() -> None:
    path, out = sys.argv[1:]
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    here.bind(("127.0.0.1", 0))
    here.settimeout(20)
    child = os.fork()
    if not child:
        try:
            there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
            there.settimeout(20)
            there.connect(here.getsockname())
            send(path, there)
        finally:
            os._exit(0)
    print(receive(out, os.path.getsize(path), here))
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
