"""Links that a running node keeps open for its user."""

import asyncio
from types import SimpleNamespace

import pytest

from bytestag.gateway.reading import OpenLinks
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
