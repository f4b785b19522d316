"""OpenDHT's part of ``sockets``: a script for the interpreter that has its bindings.

    python3 opendht_peer.py NODES OPERATIONS AT_ONCE VALUE_BYTES

N nodes, each with threads of its own, in one process, which may use all cores; its rate limits are
lifted. One puts and another gets, ``AT_ONCE`` at one time, a tenth as many before to warm up.
Prints one JSON object. Nothing here is imported by the benchmark.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import opendht

PORT = 23_000
JOIN_SECONDS = 60.0
ENOUGH = 4
WAIT_SECONDS = 30.0
Ended = Callable[[object], None]
"""Is told whether it was done."""
Begin = Callable[[int, Ended], None]


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def start(count: int) -> list[Any]:
    """Start nodes; return them once each of them finds others."""
    nodes: list[Any] = []
    for number in range(count):
        node, config = opendht.DhtRunner(), opendht.DhtConfig()
        config.setBootstrapMode(number == 0)
        config.setRateLimit(-1, -1)
        node.run(port=PORT + number, config=config)
        if number:
            node.bootstrap("127.0.0.1", str(PORT))
        nodes.append(node)
    deadline = time.monotonic() + JOIN_SECONDS
    left = nodes[1:]
    while left and time.monotonic() < deadline:
        left = [node for node in left if found(node) < min(ENOUGH, count - 1)]
    if left:
        sys.exit(f"{len(left)} nodes have not joined")
    return nodes


def found(node: Any) -> int:
    """Return how many nodes a look-up of a random key ended at."""
    done = threading.Event()
    result: list[int] = []
    random = opendht.InfoHash.getRandom()

    def ended(ok: bool, near: list[Any]) -> None:
        result.append(len(near))
        done.set()

    node.get(random, lambda value: True, ended)
    done.wait(10)
    return result[0] if result else 0


def run(begin: Begin, count: int, at_once: int) -> dict[str, float]:
    """Begin operations, at most so many at one time; return what they came to."""
    places, lock = threading.Semaphore(at_once), threading.Lock()
    took: list[float] = []
    fine: list[bool] = []
    began, used = time.perf_counter(), cpu()

    def one(number: int) -> None:
        started = time.perf_counter()

        def ended(ok: object) -> None:
            with lock:
                took.append(time.perf_counter() - started)
                fine.append(bool(ok))
            places.release()

        begin(number, ended)

    for number in range(count):
        if not places.acquire(timeout=WAIT_SECONDS):
            break
        one(number)
    for _ in range(at_once):
        places.acquire(timeout=WAIT_SECONDS)
    seconds = time.perf_counter() - began
    took.sort()
    return {
        "rate": len(took) / seconds,
        "done": sum(fine) / count,
        "p99": took[min(int(len(took) * 0.99), len(took) - 1)] if took else 0.0,
        "cpu_ms": 1000 * (cpu() - used) / max(len(took), 1),
    }


def main() -> None:
    count, operations, at_once, size = map(int, sys.argv[1:5])
    nodes = start(count)
    values = [os.urandom(size) for _ in range(operations)]
    putter, getter = nodes[1], nodes[count // 2]

    def operate(name: str, total: int) -> dict[str, dict[str, float]]:
        def key(number: int) -> Any:
            return opendht.InfoHash.get(f"{name} {number}")

        def put(number: int, ended: Ended) -> None:
            value = opendht.Value(values[number])
            putter.put(key(number), value, lambda ok, near: ended(ok))

        def get(number: int, ended: Ended) -> None:
            got: list[Any] = []

            def take(value: Any) -> bool:
                got.append(value)
                return False

            getter.get(key(number), take, lambda ok, near: ended(got))

        return {"put": run(put, total, at_once), "get": run(get, total, at_once)}

    operate("warm", max(operations // 10, at_once))
    print(json.dumps(operate("key", operations)), flush=True)
    os._exit(0)


main()
