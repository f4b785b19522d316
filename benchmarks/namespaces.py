"""Two hosts in network namespaces of their own, joined by a router or by a cable.

A namespace lives as long as the processes in it. The first of them sleeps; the kernel kills it, and
whatever :meth:`Host.command` starts, when their parent dies, so nothing is left over whatever
happens. No interface leads out. Needs root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

from benchmarks.router import DEVICE, Path

TOOLS = ("ip", "unshare", "nsenter", "setpriv", "sysctl")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
TCP_BUFFER_BYTES_MAX = 128 * 1024 * 1024
"""So that buffers do not limit the peers' flows: more than twice 1 Gbit/s × 200 ms."""
SAMPLE_SECONDS = 0.01
EDGE_BYTES = 64 * 1024
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def missing() -> str:
    """Say what is missing to make namespaces; nothing if all is there."""
    if os.name != "posix" or os.geteuid():
        return "needs root"
    tools = [tool for tool in TOOLS if shutil.which(tool) is None]
    if tools:
        return "needs " + ", ".join(tools)
    return "" if os.access("/dev/net/tun", os.W_OK) else "needs /dev/net/tun"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10, stdout=subprocess.DEVNULL)


class Host:
    """One namespace."""

    def __init__(self, number: int) -> None:
        self.address = ADDRESSES[number]
        self.device = f"{DEVICE}{number}"
        command = ["unshare", "--net", *_DIES_WITH_US, "sleep", "infinity"]
        self._process = subprocess.Popen(command)
        self.pid = self._process.pid
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.pid}/ns/net") == ours:
            if time.monotonic() > deadline:
                raise TimeoutError("unshare")
            time.sleep(0.01)

    def command(self, *command: str) -> list[str]:
        """Return the command that runs another one here."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *_DIES_WITH_US, *command]

    def run(self, *command: str) -> None:
        _run(*self.command(*command))

    def set_up(self) -> None:
        """Give the device its address, once it is here."""
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", self.device)
        self.run("ip", "link", "set", self.device, "up")
        for name in ("tcp_rmem", "tcp_wmem"):
            self.run("sysctl", "-qw", f"net.ipv4.{name}=4096 131072 {TCP_BUFFER_BYTES_MAX}")

    def received(self) -> tuple[int, int]:
        """Return bytes that came, packets that the kernel dropped on their way out."""
        for line in FilePath(f"/proc/{self.pid}/net/dev").read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == self.device:
                figures = [int(number) for number in numbers.split()]
                return figures[0], figures[11]
        return 0, 0

    def unread(self) -> int:
        """Return how many datagrams came for a socket that had no room."""
        lines = FilePath(f"/proc/{self.pid}/net/snmp").read_text().splitlines()
        names, numbers = (line.split() for line in lines if line.startswith("Udp:"))
        return int(numbers[names.index("RcvbufErrors")])

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)


class Router:
    """A running :mod:`benchmarks.router`."""

    def __init__(self, path: Path, hosts: Sequence[Host]) -> None:
        pids = [str(host.pid) for host in hosts]
        command = [sys.executable, "-m", "benchmarks.router"]
        arguments = [json.dumps(dataclasses.asdict(path)), *pids]
        self._process = subprocess.Popen(
            ["unshare", "--net", *_DIES_WITH_US, *command, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=FilePath(__file__).parents[1],
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the router did not start")

    def stop(self) -> list[dict[str, int]]:
        """Return what it carried from the first host, from the second."""
        self._process.terminate()
        output, _ = self._process.communicate(timeout=10)
        figures: list[dict[str, int]] = json.loads(output)
        return figures

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


@contextlib.contextmanager
def _hosts() -> Iterator[list[Host]]:
    with contextlib.ExitStack() as stack:
        hosts = []
        for number in range(2):
            hosts.append(Host(number))
            stack.callback(hosts[-1].close)
        yield hosts


@contextlib.contextmanager
def routed(path: Path) -> Iterator[tuple[list[Host], Router]]:
    """Two hosts with a router between."""
    with _hosts() as hosts:
        router = Router(path, hosts)
        try:
            for host in hosts:
                host.set_up()
            yield hosts, router
        finally:
            router.close()


@contextlib.contextmanager
def cabled(*, gro: bool) -> Iterator[list[Host]]:
    """Two hosts with a cable between, over which every datagram goes as a packet of its own.

    The sender's kernel cuts trains; the receiver's joins them again if ``gro``. A device of this
    kind looks at what it receives only if its peer does not segment TCP itself.
    """
    with _hosts() as hosts:
        first, second = hosts
        pair = ["type", "veth", "peer", "name", second.device, "netns", str(second.pid)]
        first.run("ip", "link", "add", first.device, *pair)
        for host in hosts:
            offloads = ["tx-udp-segmentation", "off", "tso", "off", "gro", "on" if gro else "off"]
            host.run("ethtool", "-K", host.device, *offloads)
            host.set_up()
        yield hosts


class Meter:
    """When the bytes came that a host received, read from its interface."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._samples: list[tuple[float, int]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        with contextlib.suppress(OSError):  # the host is gone
            while not self._is_over.wait(SAMPLE_SECONDS):
                self._samples.append((time.monotonic(), self._host.received()[0]))

    def stop(self) -> float:
        """Return the seconds between the first 64 KiB and the last."""
        self._is_over.set()
        self._thread.join()
        return seconds_of_flow(self._samples)


def seconds_of_flow(samples: Sequence[tuple[float, int]]) -> float:
    """Return the time from the last sample with little received to the first with nearly all."""
    first, last = samples[0][1] + EDGE_BYTES, samples[-1][1] - EDGE_BYTES
    began = max((at for at, count in samples if count < first), default=samples[0][0])
    ended = min((at for at, count in samples if count > last), default=samples[-1][0])
    return ended - began
