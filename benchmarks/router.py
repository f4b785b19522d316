"""A router in Python: two TUN devices, and between them a queue, a rate, a delay and loss.

``python -m benchmarks.router PATH PID PID``, in a network namespace of its own, gives one device to
the namespace of each process and carries packets between them, until SIGTERM; then it prints what
it carried. Kernels without netem have no delay, so it is made here: some 170,000 packets a second
pass, and both ways count.

One :class:`Fifo` a direction: a packet departs at ``max(now, departure before) + size / rate`` and
arrives ``delay`` later. What does not fit into the queue, in bytes, is dropped. What chance takes
is lost after the queue, as on a radio link: it has used its share of the rate. Sizes are those of
IP packets. Time advances in steps of a quarter of a millisecond.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass

DEVICE = "wan"
STEP_SECONDS = 0.00025
MTU = 1500
KERNEL_QUEUE_PACKETS = 50_000
"""So many may wait until the router looks: the queue that counts is its own."""
LATE_SECONDS = 0.005
WAIT_STEP_SECONDS = 0.00025
WAITS = 4000
"""Waits are counted in steps, up to a second."""
BULK_BYTES_MIN = 500
"""Datagrams of a transfer's body are larger, all others smaller."""
TAG = slice(60, 76)
"""Ciphertext, whatever headers stand before: it comes twice only if it is sent twice."""
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True)
class Path:
    """What lies between two hosts. Both directions are alike."""

    rate_mbit: float
    rtt_ms: float
    loss: float = 0.0
    queue_products: float = 1.0
    """Bytes of the queue, in products of rate and round trip."""
    seed: int = 1

    @property
    def queue_bytes(self) -> int:
        return int(self.queue_products * self.rate_mbit / 8 * self.rtt_ms * 1000)

    def make_fifo(self, seed: int) -> Fifo:
        rate, delay = self.rate_mbit * 1e6 / 8, self.rtt_ms / 2000
        return Fifo(rate, delay, self.queue_bytes, self.loss, random.Random(f"{self.seed}/{seed}"))


class Fifo:
    """One direction (pure). Times are seconds, sizes bytes."""

    def __init__(
        self, rate: float, delay: float, queue_bytes: float, loss: float, rng: random.Random
    ) -> None:
        self._rate = rate
        self._delay = delay
        self._queue_bytes = queue_bytes
        self._loss = loss
        self._random = rng.random
        self._departure = 0.0
        self.packets = self.bytes = self.dropped = self.lost = 0
        self._waits = [0] * WAITS

    def offer(self, now: float, size: int) -> float | None:
        """A packet comes; return when it arrives at the other end, None if it never does."""
        self.packets += 1
        self.bytes += size
        wait = max(self._departure - now, 0.0)
        if wait * self._rate + size > self._queue_bytes:
            self.dropped += 1
            return None
        self._waits[min(int(wait / WAIT_STEP_SECONDS), WAITS - 1)] += 1
        self._departure = now + wait + size / self._rate
        if self._random() < self._loss:
            self.lost += 1
            return None
        return self._departure + self._delay

    def wait_us(self, share: float) -> int:
        """Return within which time in the queue so large a share of the packets left it."""
        left = share * sum(self._waits)
        for number, count in enumerate(self._waits):
            left -= count
            if count and left <= 0:
                return int((number + 1) * WAIT_STEP_SECONDS * 1e6)
        return 0


class Tally:
    """Counts bodies that are sent again (pure)."""

    def __init__(self) -> None:
        self._arriving: dict[int, bool] = {}
        self.bulk = self.again = self.needless = 0

    def count(self, packet: bytes, *, arrives: bool) -> None:
        """A packet comes from the sender, and will arrive or not."""
        if len(packet) < BULK_BYTES_MIN:
            return
        self.bulk += 1
        tag = hash(packet[TAG])
        before = self._arriving.get(tag)
        if before is None:
            self._arriving[tag] = arrives
            return
        self.again += 1
        self.needless += before
        self._arriving[tag] = before or arrives


class Direction:
    """One device to the other."""

    def __init__(self, source: int, target: int, fifo: Fifo) -> None:
        self._source, self._target = source, target
        self._fifo = fifo
        self._tally = Tally()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self.late = 0

    def take(self, now: float) -> None:
        """Read whatever has come."""
        source, fifo, waiting, count = self._source, self._fifo, self._waiting, self._tally.count
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                packet = os.read(source, 2048)
                due = fifo.offer(now, len(packet))
                count(packet, arrives=due is not None)
                if due is not None:
                    waiting.append((due, packet))

    def give(self, now: float) -> None:
        """Write what is due."""
        waiting, target = self._waiting, self._target
        while waiting and waiting[0][0] <= now:
            due, packet = waiting.popleft()
            try:
                os.write(target, packet)
            except OSError:  # that host is not up yet
                continue
            self.late += now - due > LATE_SECONDS

    @property
    def figures(self) -> dict[str, int]:
        fifo, tally = self._fifo, self._tally
        return {
            "packets": fifo.packets,
            "bytes": fifo.bytes,
            "dropped": fifo.dropped,
            "lost": fifo.lost,
            "wait_us_p50": fifo.wait_us(0.5),
            "wait_us_p95": fifo.wait_us(0.95),
            "late": self.late,
            "bulk": tally.bulk,
            "again": tally.again,
            "needless": tally.needless,
        }


def open_device(name: str, pid: int) -> int:
    """Make a TUN device, hand it to the namespace of a process; return our end."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TUN | _IFF_NO_PI
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    options = ["txqueuelen", str(KERNEL_QUEUE_PACKETS), "mtu", str(MTU), "netns", str(pid)]
    subprocess.run(["ip", "link", "set", name, *options], check=True, timeout=10)
    return device


def main() -> int:
    path = Path(**json.loads(sys.argv[1]))
    left, right = (open_device(f"{DEVICE}{n}", int(pid)) for n, pid in enumerate(sys.argv[2:4]))
    directions = [
        Direction(left, right, path.make_fifo(0)),
        Direction(right, left, path.make_fifo(1)),
    ]
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    with contextlib.suppress(PermissionError):  # it stands for hardware, which is never busy
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    gc.disable()
    print("ready", flush=True)
    while not stops:
        time.sleep(STEP_SECONDS)
        now = time.monotonic()
        for direction in directions:
            direction.take(now)
        now = time.monotonic()
        for direction in directions:
            direction.give(now)
    print(json.dumps([direction.figures for direction in directions]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
