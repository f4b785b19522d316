"""Runs: what one who serves all gives at one go, what it lacks, and what it forges."""

import asyncio
from dataclasses import replace

import pytest

from bytestag.config import PART_BYTES
from bytestag.dht.runs import Runs
from bytestag.errors import NotFound, Timeout
from bytestag.events.slots import FnTaskSlot
from bytestag.events.together import together
from bytestag.network.links import Link as NetworkLink
from bytestag.tables.landing import INCOMPLETE_SUFFIX
from tests.dht.helpers import add_values, content, described, link_of, link_of_tree, serve, tree
from tests.dht.test_downloading import CALM, LIES, in_cluster, lies_about_parts

WHOLE = content(9 * PART_BYTES + 1000)
FILES = {f"{n % 3}/{n}": content(2000 + n, n) for n in range(1, 150)}
FILES |= {"large": WHOLE, "empty": b""}


@pytest.fixture
def asked(monkeypatch):
    """The requests of all nodes: for each how many values it asks for."""
    counts = []
    get, get_many = NetworkLink.get, NetworkLink.get_many

    def counted(self, *args, **options):
        counts.append(1)
        return get(self, *args, **options)

    def counted_many(self, wants, **options):
        counts.append(len(wants))
        return get_many(self, wants, **options)

    monkeypatch.setattr(NetworkLink, "get", counted)
    monkeypatch.setattr(NetworkLink, "get_many", counted_many)
    return counts


def by(node):
    """Say in a link that a node serves all."""
    return {"node_id": node.identity.node_id, "hints": (node.address,)}


def read_tree(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_directory_comes_in_few_transfers_from_who_serves_it_all(tmp_path, asked):
    manifest, rows = tree(FILES)

    async def main(cluster, reader, nodes):
        link, more = link_of_tree(manifest, **by(nodes[0]))
        add_values(nodes[0], rows | more)
        progress = await reader.fetch(link, tmp_path / "out")
        assert progress.files_done == len(FILES)
        assert progress.bytes_done == sum(map(len, FILES.values()))

    in_cluster(main, 1)
    assert read_tree(tmp_path / "out") == FILES
    assert sum(asked) < 150 + 10 + 5
    assert len(asked) < 40  # runs grow with what the source has shown to take


def test_what_a_server_lacks_comes_from_donors_and_is_asked_for_once_more(tmp_path):
    manifest, rows = tree(FILES)

    async def main(cluster, reader, nodes):
        link, more = link_of_tree(manifest, **by(nodes[0]))
        some = dict(list(rows.items())[::2])
        add_values(nodes[0], some | more)
        add_values(nodes[1], rows)
        await reader.fetch(link, tmp_path / "out")

    in_cluster(main, 2)
    assert read_tree(tmp_path / "out") == FILES


@pytest.mark.parametrize("lie", list(LIES))
@pytest.mark.parametrize("is_directory", [False, True])
def test_a_server_that_lies_about_some_of_a_run_is_overtaken(tmp_path, lie, is_directory):
    info, rows = described(WHOLE)
    manifest, rows_of_tree = tree(FILES)

    async def main(cluster, reader, nodes):
        link, more = link_of(info, **by(nodes[0])), {}
        if is_directory:
            link, more = link_of_tree(manifest, **by(nodes[0]))
        for node in nodes:
            add_values(node, rows | rows_of_tree | more)
        parts = lies_about_parts(LIES[lie])  # not about the manifest, or nobody would go on
        serve(nodes[0], lambda row, value: value if row.kvpid in more else parts(row, value))
        await reader.fetch(link, tmp_path / "out")

    in_cluster(main, 2)
    if is_directory:
        assert read_tree(tmp_path / "out") == FILES
    else:
        assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_directory_that_was_begun_is_gone_on_with_and_only_the_rest_is_asked_for(tmp_path, asked):
    manifest, rows = tree(FILES)

    async def main(cluster, reader, nodes):
        link, more = link_of_tree(manifest, **by(nodes[0]))
        add_values(nodes[0], rows | more)
        await reader.fetch(link, tmp_path / "out")
        for n in range(1, 21):
            (tmp_path / "out" / str(n % 3) / str(n)).unlink()
        asked.clear()
        progress = await reader.fetch(link, tmp_path / "out")
        assert progress.bytes_resumed == sum(map(len, FILES.values())) - sum(
            2000 + n for n in range(1, 21)
        )

    in_cluster(main, 1)
    assert read_tree(tmp_path / "out") == FILES
    assert sum(asked) <= 20 + 5


def test_one_part_that_nobody_has_does_not_keep_the_others_from_landing(tmp_path):
    info, rows = described(WHOLE)
    lost = next(kvpid for kvpid, value in rows.items() if value == WHOLE[:PART_BYTES])
    left = {kvpid: value for kvpid, value in rows.items() if kvpid != lost}

    async def main(cluster, reader, nodes):
        add_values(nodes[0], left)  # a donor: it serves no runs
        with pytest.raises((NotFound, Timeout)):
            await reader.fetch(link_of(info), tmp_path / "out")

    in_cluster(main, 1)
    (incomplete,) = tmp_path.glob("*" + INCOMPLETE_SUFFIX)
    assert incomplete.read_bytes() == bytes(PART_BYTES) + WHOLE[PART_BYTES:]


def test_what_runs_leave_is_tried_though_one_of_it_failed():
    tried = []

    async def land_one(item):
        tried.append(item)
        if not item:
            raise NotFound("nobody")

    async def land_run(items):
        return items

    async def main():
        async with together(NotFound) as tasks:
            runs = Runs(FnTaskSlot(1, 0, tasks.parent), tasks, land_run, land_one)
            for item in range(20):
                await runs.add(item, 2**18)
            await runs.end()

    with pytest.raises(NotFound):
        asyncio.run(main())
    assert sorted(tried) == list(range(20))


def test_many_lost_datagrams_do_not_keep_runs_from_arriving(tmp_path):
    manifest, rows = tree(FILES)

    async def main(cluster, reader, nodes):
        link, more = link_of_tree(manifest, **by(nodes[0]))
        add_values(nodes[0], rows | more)
        await reader.fetch(link, tmp_path / "out")

    in_cluster(main, 1, conditions=replace(CALM, loss=0.1))
    assert read_tree(tmp_path / "out") == FILES
