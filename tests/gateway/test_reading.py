"""Links that a running node keeps open for its user."""

import asyncio
import random
from functools import partial
from types import SimpleNamespace

import pytest

from bytestag.errors import NotFound
from bytestag.gateway.reading import OpenLinks
from bytestag.gateway.streams import SENT_BYTES
from bytestag.models.directory import DirectoryManifest
from bytestag.uri import Link

LINK = Link("sha1", bytes(20))


class Slow(OpenLinks):
    """Resolves when it is told to."""

    def __init__(self):
        super().__init__(SimpleNamespace())
        self.asked = 0
        self.go = asyncio.Event()

    async def _resolve(self, link, seconds):
        self.asked += 1
        await self.go.wait()
        return DirectoryManifest()


def test_who_waits_for_an_answer_has_it_though_the_first_who_asked_left():
    async def main():
        links = Slow()
        first = asyncio.create_task(links.open(LINK, 5))
        await asyncio.sleep(0)
        second = asyncio.create_task(links.open(LINK, 5))
        await asyncio.sleep(0)
        first.cancel()
        links.go.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second, links.asked

    opened, asked = asyncio.run(main())
    assert (opened, asked) == (DirectoryManifest(), 2)


@pytest.mark.parametrize("fails", [1, 100])
def test_who_reads_what_breaks_off_has_the_rest_or_the_reason(opened, fails):
    content = random.Random(1).randbytes(3 * SENT_BYTES)
    left = fails

    async def read(start, end):
        nonlocal left
        if start >= SENT_BYTES and left:
            left -= 1
            raise NotFound("nobody holds the second part")
        return content[start:end]

    async def check(node):
        async def file(_link, _seconds):
            return SimpleNamespace(size=len(content), read=read)

        node.control._links.file = file
        reading = node.runtime.offload(
            partial(node.door.read_range, "/v1/content", 5, len(content) - 1, link=str(LINK))
        )
        if fails == 1:
            assert await reading == content[5:-1]
        else:
            with pytest.raises(NotFound, match="second part"):
                await reading

    opened(check)


def test_a_link_is_resolved_once_for_all_who_ask():
    async def main():
        links = Slow()
        asking = [asyncio.create_task(links.open(LINK, 5)) for _ in range(3)]
        await asyncio.sleep(0)
        links.go.set()
        found = await asyncio.gather(*asking)
        await links.open(LINK, 5)
        return {id(one) for one in found}, links.asked

    found, asked = asyncio.run(main())
    assert (len(found), asked) == (1, 1)
