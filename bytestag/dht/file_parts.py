"""FileParts: the parts of one file, from whoever gives them, to their places (shell).

Who serves the whole is asked for runs of parts, which are one transfer each; what is left after
that is asked for part by part, from all who may have it. Each part is compared before it is
written.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from bytestag.dht.fetching import OF_THE_NETWORK
from bytestag.dht.resolving import Resolver
from bytestag.dht.runs import Runs
from bytestag.events.batcher import Batcher
from bytestag.events.runtime import Runtime
from bytestag.events.slots import FnTaskSlot
from bytestag.events.together import together
from bytestag.hashing import Buffer
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import PartEntry
from bytestag.tables.landing import IncompleteFile

Landing = Batcher[Sequence[tuple[PartEntry, Buffer | None]], list[bool]]
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

    async def land(self, info: FileInfo) -> None:
        """Bring every part of the file to its place.

        Raises:
            NotFound, Unreachable, Timeout, Corrupt: a part cannot be had; the others are there.
            StorageError: it cannot be written.
        """
        async with together(*OF_THE_NETWORK) as tasks:
            landing: Landing = Batcher(self._file.land, self._runtime.offload, tasks.parent)
            runs = Runs(
                self._slot,
                tasks,
                lambda run: self._land_run(landing, run),
                lambda part: self._land_part(landing, part),
            )
            async for part in self._resolver.parts(info):
                if tasks.must_stop:
                    break
                await runs.add(part, part.size)
            await runs.end()

    async def _land_run(self, landing: Landing, run: list[PartEntry]) -> list[PartEntry]:
        missing = run
        if self._file.was_there:
            there = await landing.do([(part, None) for part in run])
            self._tell(itertools.compress(run, there), are_resumed=True)
            missing = [part for part, is_there in zip(run, there, strict=True) if not is_there]

        async def take(values: Sequence[tuple[int, Buffer]]) -> set[int]:
            fits = await landing.do([(missing[number], value) for number, value in values])
            return {number for (number, _), fit in zip(values, fits, strict=True) if fit}

        taken = await self._resolver.parts_at_once(missing, take)
        self._tell(missing[number] for number in taken)
        return [part for number, part in enumerate(missing) if number not in taken]

    async def _land_part(self, landing: Landing, part: PartEntry) -> None:
        async def take(value: bytes) -> bool:
            return (await landing.do([(part, value)]))[0]

        await self._resolver.part(part, take)
        self._tell([part])

    def _tell(self, parts: Iterable[PartEntry], *, are_resumed: bool = False) -> None:
        self._done(sum(part.size for part in parts), are_resumed)
