"""FileParts: the parts of one file, from whoever gives them, to their places (shell).

Who serves the whole is asked for runs of parts, which are one transfer each; what is left after
that is asked for part by part, from all who may have it. Each part is compared before it is
written.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from bytestag.config import VALUE_BYTES_MAX
from bytestag.dht.fetching import OF_THE_NETWORK
from bytestag.dht.resolving import Resolver
from bytestag.events.batcher import Batcher
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.together import Together, together
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import PartEntry
from bytestag.network.messages import VALUES_AT_ONCE_MAX
from bytestag.tables.landing import IncompleteFile

Landing = Batcher[Sequence[tuple[PartEntry, bytes | memoryview | None]], list[bool]]
"""Where the parts of the file come together."""
Done = Callable[[int, bool], None]
"""Is told how many bytes are in their place, and whether they were there before."""


class FileParts:
    """Fetches what is missing of one file."""

    def __init__(
        self,
        resolver: Resolver,
        slot: FnTaskSlot,
        runtime: Runtime,
        file: IncompleteFile,
        done: Done,
    ) -> None:
        self._resolver = resolver
        self._slot = slot
        self._runtime = runtime
        self._file = file
        self._done = done
        self._left: deque[PartEntry] = deque()
        """What nobody gave as one of a run."""

    async def land(self, info: FileInfo) -> None:
        """Bring every part of the file to its place.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt: a part cannot be had; the others are there.
            StorageError: it cannot be written.
        """
        async with together(*OF_THE_NETWORK) as tasks:
            landing: Landing = Batcher(self._file.land, self._runtime.offload, tasks.parent)
            async for run in _runs(self._resolver.parts(info)):
                tasks.add(await self._slot.add(self._land_run, landing, run))
                await self._land_left(landing, tasks)
                if tasks.error is not None:
                    break
            await tasks.wait()
            await self._land_left(landing, tasks)

    async def _land_left(self, landing: Landing, tasks: Together) -> None:
        while self._left and tasks.error is None:
            tasks.add(await self._slot.add(self._land_part, landing, self._left.popleft()))

    async def _land_run(self, landing: Landing, run: Sequence[PartEntry]) -> None:
        missing = list(run)
        if self._file.was_there:
            there = await landing.do([(part, None) for part in run])
            self._tell(itertools.compress(run, there), are_resumed=True)
            missing = [part for part, is_there in zip(run, there, strict=True) if not is_there]

        async def take(values: Sequence[tuple[int, bytes | memoryview]]) -> set[int]:
            fits = await landing.do([(missing[number], value) for number, value in values])
            return {number for (number, _), fit in zip(values, fits, strict=True) if fit}

        taken = await self._resolver.parts_at_once(missing, take)
        self._tell(missing[number] for number in taken)
        self._left.extend(part for number, part in enumerate(missing) if number not in taken)

    async def _land_part(self, landing: Landing, part: PartEntry) -> None:
        async def take(value: bytes) -> bool:
            return (await landing.do([(part, value)]))[0]

        await self._resolver.part(part, take)
        self._tell([part])

    def _tell(self, parts: Iterable[PartEntry], *, are_resumed: bool = False) -> None:
        self._done(sum(part.size for part in parts), are_resumed)


async def _runs(parts: AsyncIterator[PartEntry]) -> AsyncIterator[list[PartEntry]]:
    """Put parts together that may be asked for at one go."""
    run: list[PartEntry] = []
    size = 0
    async for part in parts:
        if run and (size + part.size > VALUE_BYTES_MAX or len(run) == VALUES_AT_ONCE_MAX):
            yield run
            run, size = [], 0
        run.append(part)
        size += part.size
    if run:
        yield run
