"""Real bytestag processes with homes of their own, and what they cost."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil


def make_file(path: Path, size_mib: int) -> None:
    """Make a file that cannot be compressed."""
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(os.urandom(1 << 20))


class Program:
    """A running command; its lines are read as they come, its memory is sampled."""

    def __init__(
        self,
        arguments: list[str],
        home: Path,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
    ) -> None:
        environment = {**os.environ, "BYTESTAG_HOME": str(home), "NO_COLOR": "1"}
        environment.pop("PYTHONPATH", None)
        self.log = home / "stderr.txt"
        home.mkdir(parents=True, exist_ok=True)
        self.began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, python, "-m", "bytestag", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=home,
                text=True,
            )
        self.rss_max = 0
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._sample, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _sample(self) -> None:
        with contextlib.suppress(psutil.Error):
            watched = psutil.Process(self.process.pid)
            while self.process.poll() is None:
                self.rss_max = max(self.rss_max, watched.memory_info().rss)
                time.sleep(0.05)

    def line(self, seconds: float) -> str:
        """Return the next line of stdout."""
        line = self._lines.get(timeout=seconds)
        if line is None:
            raise RuntimeError(f"ended early: {self.errors()}")
        return line

    def wait(self, seconds: float) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> int:
        """SIGKILL; return the exit code, -9 where it was still running."""
        self.process.kill()
        return self.process.wait(10)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()

    def errors(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


@contextlib.contextmanager
def stopping(programs: list[Program]) -> Iterator[None]:
    """Stop every program in the list at the end, whatever happens."""
    try:
        yield
    finally:
        for program in programs:
            program.process.terminate() if program.process.poll() is None else None
        for program in programs:
            program.stop()


def free_port() -> int:
    """Return a UDP port that is free now."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
