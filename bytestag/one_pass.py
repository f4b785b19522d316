"""One pass over a file: all hashes that are wanted of it, and a copy, from one read (shell).

Two threads share the work of a large file: whatever is to be done with a block, either takes it
when it is free. Hashes let go of Python's lock, so both processors are busy, whatever the hashes
weigh; and a block is still in the processor's cache when the next hash reads it. What was hashed
are the very buffers that are written, so a file that changes meanwhile cannot get the name of what
it was.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bytestag.config import MIB, PART_BYTES

BLOCK_BYTES = 2 * PART_BYTES  # a buffer stays in the processor's cache while it is hashed
BUFFERS = 4  # so far may a thread be held up before the other waits
PARALLEL_BYTES_MIN = 4 * MIB  # below, starting a thread costs more than it gives

Take = Callable[[memoryview], object]
"""Takes the blocks of a file one after another: a hash, or a writer."""
TakeParts = Callable[[int, memoryview], object]
"""Takes blocks in any order, two at a time: the number of the first part in each, and its bytes."""
Tick = Callable[[int], object]
"""Called with the bytes read, in the thread of the caller; may raise to stop."""


def no_tick(_bytes: int) -> None:
    """Say nothing of the bytes read."""


def read_once(
    source: int,
    takers: Sequence[Take],
    take_parts: TakeParts | None = None,
    *,
    tick: Tick = no_tick,
) -> int:
    """Read a file from where it stands to its end; return its bytes.

    Raises OSError if it cannot be read, and whatever a taker or ``tick`` raises; a second thread
    has ended by then.
    """
    is_parallel = os.fstat(source).st_size >= PARALLEL_BYTES_MIN and processors() > 1
    work = _Work(source, takers, take_parts, BUFFERS if is_parallel else 1)
    if not is_parallel:
        work.run(tick)
        return work.size
    helper = threading.Thread(target=work.help, name="bytestag-one-pass", daemon=True)
    helper.start()
    try:
        work.run(tick)
    except BaseException:
        work.stop()
        raise
    finally:
        helper.join()
    if work.error is not None:
        raise work.error
    return work.size


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def fill(source: int, buffer: memoryview) -> int:
    """Read until the buffer is full or the file ends; return how many bytes."""
    filled = 0
    while filled < len(buffer):
        count = os.readv(source, [buffer[filled:]])
        if not count:
            break
        filled += count
    return filled


# --- Inside --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Block:
    """A buffer with a piece of the file, and how much is still to be done with it."""

    buffer: memoryview
    view: memoryview
    left: int


@dataclass(slots=True)
class _Line:
    """Blocks that wait for one taker, which has one at a time, in order."""

    take: Take
    waiting: deque[_Block] = field(default_factory=deque)
    is_busy: bool = False


_Task = Callable[[], None]


class _Work:
    """What is to be done, for as many threads as run it."""

    def __init__(
        self, source: int, takers: Sequence[Take], take_parts: TakeParts | None, buffers: int
    ) -> None:
        self.size = 0
        self.error: BaseException | None = None
        self._source = source
        self._lines = [_Line(take) for take in takers]
        self._take_parts = take_parts
        self._parts: deque[tuple[_Block, int]] = deque()
        self._free = [memoryview(bytearray(BLOCK_BYTES)) for _ in range(buffers)]
        self._is_reading = False
        self._is_ended = False
        self._is_stopped = False
        self._changed = threading.Condition(threading.Lock())

    def run(self, tick: Tick) -> None:
        """Work until nothing is left; say between two tasks what was read."""
        told = 0
        while (task := self._next()) is not None:
            task()
            if self.size != told:
                size = self.size
                tick(size - told)
                told = size
        if self.size != told:
            tick(self.size - told)

    def help(self) -> None:
        """Work until nothing is left, or something failed, which stops all others as well."""
        try:
            while (task := self._next()) is not None:
                task()
        except BaseException as error:
            self.error = error
            self.stop()

    def stop(self) -> None:
        """Let all threads end after what they have in hand."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _next(self) -> _Task | None:
        """Wait for something to do; None if nothing will come that another thread has not got.

        What has an order goes first, for only that can hold up the end; a block is read when
        nothing can be done with those that were.
        """
        with self._changed:
            while not self._is_stopped:
                ready = [line for line in self._lines if line.waiting and not line.is_busy]
                if ready:
                    line = max(ready, key=lambda line: len(line.waiting))
                    line.is_busy = True
                    return partial(self._give, line, line.waiting.popleft())
                if self._parts:
                    return partial(self._give_parts, *self._parts.popleft())
                if self._is_ended:
                    return None
                if self._free and not self._is_reading:
                    self._is_reading = True
                    return partial(self._read, self._free.pop())
                self._changed.wait()
        return None

    def _give(self, line: _Line, block: _Block) -> None:
        line.take(block.view)
        with self._changed:
            line.is_busy = False
            self._let_go(block)

    def _give_parts(self, block: _Block, first: int) -> None:
        assert self._take_parts is not None
        self._take_parts(first, block.view)
        with self._changed:
            self._let_go(block)

    def _let_go(self, block: _Block) -> None:
        block.left -= 1
        if not block.left:
            self._free.append(block.buffer)
        self._changed.notify()

    def _read(self, buffer: memoryview) -> None:
        filled = fill(self._source, buffer)
        has_parts = self._take_parts is not None
        block = _Block(buffer, buffer[:filled], len(self._lines) + has_parts)
        with self._changed:
            self._is_reading = False
            self._is_ended = filled < len(buffer)
            if filled:
                if has_parts:
                    self._parts.append((block, self.size // PART_BYTES))
                self.size += filled
                for line in self._lines:
                    line.waiting.append(block)
            self._changed.notify_all()
