"""From a link to whole files: sizes, resume, liars, the silent, hostile manifests, full disks."""

import asyncio
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bytestag.config import MIB, PART_BYTES
from bytestag.errors import (
    Corrupt,
    FormatError,
    Incomplete,
    NoSpace,
    NotFound,
    StorageError,
    Timeout,
    Unreachable,
)
from bytestag.hashing import blake3, sha1
from bytestag.keys import KeyBytes
from bytestag.models.directory import DirectoryManifest
from bytestag.models.fileinfo import FileInfo
from bytestag.models.parts import place
from bytestag.network.links import RATE_MIN
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.tables import landing
from bytestag.tables.landing import INCOMPLETE_SUFFIX, Exists
from bytestag.uri import Link
from tests.dht.helpers import (
    Cluster,
    add_values,
    content,
    described,
    entry_of,
    get_nothing,
    link_of,
    link_of_tree,
    own,
    serve,
    tree,
)
from tests.network.nodes import let_trickle

CALM = Conditions(latency=0.005, spread=0)
WHOLE = content(3 * PART_BYTES + 1000)


def in_cluster(main, holders=2, conditions=CALM, **changes):
    """Run ``main(cluster, reader, holders)`` in a network of donors and one reader."""

    async def started(world):
        async with Cluster(world, **changes) as cluster:
            nodes = [await cluster.start() for _ in range(holders)]
            reader = await cluster.start(is_client=True, cache_bytes=0)
            return await main(cluster, reader, nodes)

    return run(started, conditions=conditions)


def fetched(link, rows, dest, holders=1, **options):
    """Fetch from holders that have all rows; return the progress."""

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
        return await reader.fetch(link, dest, **options)

    return in_cluster(main, holders)


def left_over(directory):
    return sorted(p.name for p in directory.rglob("*" + INCOMPLETE_SUFFIX))


# --- Files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [0, 1, 1000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 1]
)
def test_a_file_of_any_size_arrives_whole_and_nothing_incomplete_is_left(tmp_path, size):
    whole = content(size)
    info, rows = described(whole)
    progress = fetched(link_of(info), rows, tmp_path / "out", holders=2)
    assert (tmp_path / "out").read_bytes() == whole
    assert os.listdir(tmp_path) == ["out"]
    assert (progress.phase, progress.files_done, progress.bytes_done) == ("done", 1, size)


def test_parts_of_another_size_than_ours_are_read(tmp_path):
    whole = content(10_500)
    info, rows = described(whole, part_bytes=1024)
    fetched(link_of(info), rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == whole


@pytest.mark.slow
def test_a_file_whose_parts_stand_in_list_values_arrives_whole(tmp_path):
    whole = content(1024 * 4096 + 5)
    info, rows = described(whole, part_bytes=1024)
    assert info.lists

    async def main(cluster, reader, nodes):
        lists = {k: v for k, v in rows.items() if len(v) != 1024}
        parts = {k: v for k, v in rows.items() if len(v) == 1024}
        add_values(nodes[0], lists)
        add_values(reader, parts)  # thousands of transfers would only make the test slow
        await reader.fetch(link_of(info), tmp_path / "out")

    run_with_cache(main)
    assert (tmp_path / "out").read_bytes() == whole


def run_with_cache(main):
    """As in_cluster, with a reader that may hold values itself."""

    async def started(world):
        async with Cluster(world) as cluster:
            nodes = [await cluster.start()]
            reader = await cluster.start(is_client=True)
            return await main(cluster, reader, nodes)

    return run(started, conditions=CALM)


@pytest.mark.parametrize("size", [700, 100_000])
def test_a_bare_key_of_a_file_in_one_part_is_the_file(tmp_path, size):
    whole = content(size)
    _, rows = described(whole)
    fetched(Link.parse(sha1(whole).hex()), rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == whole


def test_a_bare_key_of_a_file_in_several_parts_finds_its_description(tmp_path):
    info, rows = described(WHOLE)
    fetched(Link.parse(f"sha1://{info.hash}/name"), rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_magnet_link_names_the_description(tmp_path):
    info, rows = described(WHOLE)
    link = Link.parse(f"magnet:?xt=urn:bstagih:{info.id.base32}&dn=name")
    fetched(link, rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_bare_key_of_a_manifest_is_its_json_and_sha1dir_is_the_directory(tmp_path):
    manifest, rows = tree({"a": b"one"})
    link, more = link_of_tree(manifest)
    fetched(Link.parse(f"sha1://{link.key}"), rows | more, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == manifest.to_bytes()
    fetched(Link.parse(f"sha1dir://{link.key}.d"), rows | more, tmp_path / "directory")
    assert (tmp_path / "directory/a").read_bytes() == b"one"


# --- Directories ---------------------------------------------------------------------------------

TREE = {
    "empty": b"",
    "one byte": b"x",
    "ein Verzeichnis/größe.txt": content(5_000, 1),
    "каталог/файл": content(6_000, 2),
    "目录/文件.csv": content(PART_BYTES + 7, 3),
    "दस्तावेज़/ا ب ت": content(900, 4),
    "a/b/c/d/e/f": content(2_000, 5),
    "a/b/twin": content(2_000, 5),
}


def test_a_directory_arrives_with_its_empty_ones_and_names_in_many_scripts(tmp_path):
    manifest, rows = tree(TREE, empty=["nothing here", "a/b/nor/here"])
    link, more = link_of_tree(manifest)
    progress = fetched(link, rows | more, tmp_path / "out", holders=2)
    found = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == {str(Path(*name.split("/"))): whole for name, whole in TREE.items()}
    assert (tmp_path / "out/nothing here").is_dir()
    assert (tmp_path / "out/a/b/nor/here").is_dir()
    assert (progress.files, progress.files_done) == (len(TREE), len(TREE))
    assert progress.bytes == progress.bytes_done == sum(map(len, TREE.values()))


@pytest.mark.slow
def test_a_manifest_in_parts_is_put_together_and_compared(tmp_path):
    files = {f"{n:05d} {'x' * 60}": b"%d" % (n % 3) for n in range(1000)}
    manifest, rows = tree(files)
    packed = manifest.to_bytes()
    assert len(packed) > PART_BYTES
    info, more = described(packed)
    link = Link(
        "bytestag", info.hash, "d", "d", blake3(packed), blake3(info.to_bytes()), network="local"
    )
    fetched(link, rows | more, tmp_path / "out")
    assert len(os.listdir(tmp_path / "out")) == 1000


def test_a_link_with_a_path_fetches_what_lies_there_alone(tmp_path):
    manifest, rows = tree(TREE)
    link, more = link_of_tree(manifest)
    for path in ("目录/文件.csv", "one byte", "empty", "a/b"):
        inside = replace(link, path=tuple(path.split("/")))
        fetched(inside, rows | more, tmp_path / path.replace("/", " "))
    assert (tmp_path / "目录 文件.csv").read_bytes() == TREE["目录/文件.csv"]
    assert (tmp_path / "one byte").read_bytes() == b"x"
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "a b/twin").read_bytes() == TREE["a/b/twin"]
    assert len(os.listdir(tmp_path)) == 4


def test_a_path_that_is_not_in_the_directory_is_not_found(tmp_path):
    manifest, rows = tree({"a": b"one"})
    link, more = link_of_tree(manifest)
    with pytest.raises(NotFound, match="nowhere"):
        fetched(replace(link, path=("nowhere",)), rows | more, tmp_path / "out")


def test_small_files_cut_into_smaller_parts_by_others_arrive(tmp_path):
    whole = content(9_000)
    info, rows = described(whole, part_bytes=1024)
    entry = entry_of(whole, info=info.id, info_b3=blake3(info.to_bytes()))
    link, more = link_of_tree(DirectoryManifest.build([(["file"], entry)]))
    fetched(link, rows | more, tmp_path / "out")
    assert (tmp_path / "out/file").read_bytes() == whole


def test_a_manifest_of_kachery_without_descriptions_is_fetched(tmp_path):
    files = {"small": content(3_000, 1), "large": WHOLE}
    rows = {}
    for whole in files.values():
        rows |= described(whole)[1]
    bare = {n: entry_of(w, b3=b"", info=b"", info_b3=b"") for n, w in files.items()}
    manifest = DirectoryManifest.build([([name], entry) for name, entry in bare.items()])
    link, more = link_of_tree(manifest)
    fetched(link, rows | more, tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files


# --- Going on ------------------------------------------------------------------------------------


def test_a_second_fetch_asks_only_for_what_the_first_did_not_get(tmp_path):
    info, rows = described(WHOLE)
    values = list(rows.items())
    last = {k: v for k, v in values if len(v) == len(WHOLE) % PART_BYTES}

    async def main(cluster, reader, nodes):
        add_values(nodes[0], {k: v for k, v in values if k not in last})
        with pytest.raises(NotFound):
            await reader.fetch(link_of(info), tmp_path / "out")
        assert left_over(tmp_path) == ["out" + INCOMPLETE_SUFFIX]
        assert not (tmp_path / "out").exists()
        add_values(nodes[0], last)
        before = world_bytes(cluster)
        progress = await reader.fetch(link_of(info), tmp_path / "out")
        assert progress.bytes_resumed == 3 * PART_BYTES
        assert progress.bytes_done == len(WHOLE)
        assert world_bytes(cluster) - before < 20_000

    in_cluster(main, 1)
    assert (tmp_path / "out").read_bytes() == WHOLE
    assert os.listdir(tmp_path) == ["out"]


def world_bytes(cluster):
    return cluster.world.network.bytes_sent


def test_a_holder_that_dies_midway_leaves_what_a_second_fetch_goes_on_with(tmp_path):
    whole = content(12 * PART_BYTES)
    info, rows = described(whole)

    async def main(cluster, reader, nodes):
        add_values(nodes[0], rows)

        def report(progress):
            if progress.bytes_done >= 4 * PART_BYTES:
                cluster.crash(nodes[0])

        with pytest.raises(Timeout):
            await reader.fetch(link_of(info), tmp_path / "out", report=report)
        assert not (tmp_path / "out").exists()
        add_values(nodes[1], rows)
        await asyncio.sleep(60)
        before = world_bytes(cluster)
        progress = await reader.fetch(link_of(info), tmp_path / "out")
        resumed = progress.bytes_resumed
        assert 4 * PART_BYTES <= resumed < len(whole)
        assert world_bytes(cluster) - before < 1.2 * (len(whole) - resumed) + 20_000

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == whole
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", ["garbage", "longer", "shorter", "one bit"])
def test_an_incomplete_file_with_wrong_bytes_is_repaired(tmp_path, kind):
    info, rows = described(WHOLE)
    flipped = bytearray(WHOLE)
    flipped[PART_BYTES + 5] ^= 1
    found = {
        "garbage": b"\1" * len(WHOLE),
        "longer": WHOLE + b"more",
        "shorter": WHOLE[:1000],
        "one bit": bytes(flipped),
    }[kind]
    (tmp_path / ("out" + INCOMPLETE_SUFFIX)).write_bytes(found)
    progress = fetched(link_of(info), rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE
    resumed = {"garbage": 0, "shorter": 0, "longer": len(WHOLE)}
    assert progress.bytes_resumed == resumed.get(kind, len(WHOLE) - PART_BYTES)


def test_a_directory_goes_on_where_it_stopped(tmp_path):
    files = {f"{n}": content(5_000, n) for n in range(20)}
    manifest, rows = tree(files)
    link, more = link_of_tree(manifest)

    async def main(cluster, reader, nodes):
        missing = {k: v for k, v in rows.items() if v == files["7"]}
        add_values(nodes[0], {k: v for k, v in (rows | more).items() if k not in missing})
        with pytest.raises(Incomplete, match="1 of 20 files are missing; the first is '7'"):
            await reader.fetch(link, tmp_path / "out")
        assert len(os.listdir(tmp_path / "out")) == 19
        add_values(nodes[0], missing)
        before = world_bytes(cluster)
        progress = await reader.fetch(link, tmp_path / "out")
        assert progress.bytes_resumed == 19 * 5_000
        assert world_bytes(cluster) - before < 20_000

    in_cluster(main, 1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files


def test_what_stands_there_already_is_not_fetched_again(tmp_path):
    info, rows = described(WHOLE)
    (tmp_path / "out").write_bytes(WHOLE)

    async def main(cluster, reader, nodes):
        add_values(nodes[0], rows)
        before = world_bytes(cluster)
        progress = await reader.fetch(link_of(info), tmp_path / "out")
        assert (progress.bytes_resumed, progress.files_done) == (len(WHOLE), 1)
        assert world_bytes(cluster) - before < 10_000

    in_cluster(main, 1)
    assert os.listdir(tmp_path) == ["out"]


def test_a_file_of_one_value_that_stands_there_already_is_left(tmp_path):
    whole = content(2_000)
    (tmp_path / "out").write_bytes(whole)
    before = (tmp_path / "out").stat().st_ino
    progress = fetched(Link.parse(sha1(whole).hex()), own(whole), tmp_path / "out")
    assert progress.files_done == 1
    assert (tmp_path / "out").stat().st_ino == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [5_000, 2 * PART_BYTES])
@pytest.mark.parametrize("is_bare", [False, True])
def test_other_content_is_left_alone_and_replaced_only_by_force(tmp_path, size, is_bare):
    whole = content(size)
    info, rows = described(whole)
    link = Link.parse(f"sha1://{info.hash}") if is_bare else link_of(info)
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(Exists):
        fetched(link, rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"mine"
    fetched(link, rows, tmp_path / "out", is_forced=True)
    assert (tmp_path / "out").read_bytes() == whole
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [5_000, 2 * PART_BYTES])
def test_other_content_inside_a_directory_is_left_alone_and_said(tmp_path, size):
    files = {f"{n}": content(size, n) for n in range(3)}
    manifest, rows = tree(files)
    link, more = link_of_tree(manifest)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/1").write_bytes(b"mine")
    with pytest.raises(Exists, match="out/1"):
        fetched(link, rows | more, tmp_path / "out")
    assert (tmp_path / "out/1").read_bytes() == b"mine"
    fetched(link, rows | more, tmp_path / "out", is_forced=True)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files


def test_a_file_that_takes_the_name_meanwhile_is_left_alone(tmp_path):
    info, rows = described(WHOLE)

    def report(progress):
        if progress.bytes_done:
            (tmp_path / "out").write_bytes(b"mine")

    with pytest.raises(Exists):
        fetched(link_of(info), rows, tmp_path / "out", report=report)
    assert (tmp_path / "out").read_bytes() == b"mine"


# --- Holders -------------------------------------------------------------------------------------


def test_two_holders_with_half_of_the_parts_each_give_the_whole(tmp_path):
    whole = content(6 * PART_BYTES)
    info, rows = described(whole)
    parts = [k for k, v in rows.items() if len(v) == PART_BYTES]

    async def main(cluster, reader, nodes):
        for number, node in enumerate(nodes):
            others = set(parts[1 - number :: 2])
            add_values(node, {k: v for k, v in rows.items() if k not in others})
        progress = await reader.fetch(
            link_of(info), tmp_path / "out", report=lambda p: told.append((p.files_done, p.sources))
        )
        assert progress.sources == 2

    told = []
    in_cluster(main)
    assert (0, 2) in told  # before the file is done
    assert (tmp_path / "out").read_bytes() == whole


LIES = {
    "flipped": lambda record, value: bytes([value[0] ^ 1]) + value[1:],
    "short": lambda record, value: value[:-1],
    "long": lambda record, value: value + b"!",
    "empty": lambda record, value: b"",
    "zeros": lambda record, value: bytes(len(value)),
    "another part": lambda record, value: WHOLE[:PART_BYTES],
}


def lies_about_parts(lie):
    return lambda record, value: lie(record, value) if record.size > 2_000 else value


@pytest.mark.parametrize("lie", list(LIES))
def test_a_liar_is_overtaken_and_nothing_wrong_gets_the_name(tmp_path, lie):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
        serve(nodes[0], lies_about_parts(LIES[lie]))
        await reader.fetch(link_of(info), tmp_path / "out")

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == WHOLE


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "long"])
def test_when_all_holders_lie_nothing_gets_the_name(tmp_path, lie):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
            serve(node, lies_about_parts(LIES[lie]))
        with pytest.raises((Corrupt, Timeout)) as caught:
            await reader.fetch(link_of(info), tmp_path / "out")
        return caught.value

    error = in_cluster(main)
    assert not (tmp_path / "out").exists()
    if lie in ("flipped", "zeros"):
        assert error.exit_status == 6


def test_small_values_that_lie_inside_replies_are_not_believed(tmp_path):
    whole = content(700)
    manifest, rows = tree({"file": whole})
    link, more = link_of_tree(manifest)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows | more)
        serve(nodes[0], LIES["flipped"])
        await reader.fetch(link, tmp_path / "out")
        serve(nodes[1], LIES["flipped"])
        with pytest.raises(Corrupt):
            await reader.fetch(link, tmp_path / "again")

    in_cluster(main)
    assert (tmp_path / "out/file").read_bytes() == whole
    assert not (tmp_path / "again").exists()


def test_a_holder_that_never_answers_is_overtaken_within_the_idle_time(tmp_path):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
        get_nothing(nodes[0])
        began = reader.runtime.monotonic()
        await reader.fetch(link_of(info), tmp_path / "out")
        assert reader.runtime.monotonic() - began < 2 * reader.config.transfer_idle_seconds + 3

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == WHOLE


def sends_half(node):
    """Make a node announce whole values and send their first half."""
    true_serve = node._serving._serve

    async def serve_half(link, get):
        true_upload = link.session.upload
        link.session.upload = lambda id_, slot, part, unit: true_upload(
            id_, slot, part[: len(part) // 2], unit
        )
        try:
            await true_serve(link, get)
        finally:
            link.session.upload = true_upload

    node._serving._serve = serve_half


def test_a_holder_that_stops_halfway_is_overtaken_within_the_idle_time(tmp_path):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
        sends_half(nodes[0])
        began = reader.runtime.monotonic()
        await reader.fetch(link_of(info), tmp_path / "out")
        assert reader.runtime.monotonic() - began < 2 * reader.config.transfer_idle_seconds + 3

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_holder_that_lets_values_trickle_is_overtaken(tmp_path):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
        let_trickle(cluster.world, nodes[0].address, 9.0)
        began = reader.runtime.monotonic()
        await reader.fetch(link_of(info), tmp_path / "out")
        patience = reader.config.transfer_idle_seconds + MIB / RATE_MIN
        assert reader.runtime.monotonic() - began < patience + 10

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_holders_that_are_known_but_silent_end_in_a_timeout(tmp_path):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for node in nodes:
            add_values(node, rows)
            get_nothing(node)
        with pytest.raises(Timeout, match="none delivered") as caught:
            await reader.fetch(link_of(info), tmp_path / "out")
        assert caught.value.exit_status == 5

    in_cluster(main)
    assert not (tmp_path / "out").exists()


def test_what_nobody_holds_is_not_found_and_the_error_counts_who_was_asked(tmp_path):
    info, _ = described(WHOLE)

    async def main(cluster, reader, nodes):
        for link in (link_of(info), Link.parse(info.hash.base16)):
            with pytest.raises(NotFound, match=r"asked \d+, \d+ answered") as caught:
                await reader.fetch(link, tmp_path / "out")
            assert caught.value.exit_status == 3

    in_cluster(main)
    assert os.listdir(tmp_path) == []


def test_without_peers_a_fetch_is_unreachable(tmp_path):
    info, _ = described(WHOLE)

    async def main(cluster, reader, nodes):
        with pytest.raises(Unreachable) as caught:
            await reader.fetch(link_of(info), tmp_path / "out")
        assert caught.value.exit_status == 4

    in_cluster(main, 0)


@pytest.mark.parametrize("size", [5_000, 2 * PART_BYTES])
def test_what_is_missing_of_a_directory_is_named_and_the_rest_is_there(tmp_path, size):
    files = {f"{n}": content(size, n) for n in range(4)}
    manifest, rows = tree(files)
    link, more = link_of_tree(manifest)
    gone = {k: v for k, v in rows.items() if v in (files["2"], files["2"][:PART_BYTES])}
    kept = {k: v for k, v in (rows | more).items() if k not in gone}
    with pytest.raises(Incomplete, match="'2'") as caught:
        fetched(link, kept, tmp_path / "out")
    assert caught.value.exit_status == 7
    there = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if "." not in p.name}
    assert there == {name: whole for name, whole in files.items() if name != "2"}


# --- Descriptions that lie -----------------------------------------------------------------------


def forged(info, **fields):
    """Return the link and the row of a changed description."""
    lie = replace(info, **fields)
    packed = lie.to_bytes()
    return link_of(lie), own(packed) | own(packed, lie.hash)


def test_a_description_whose_whole_hash_does_not_fit_its_parts_is_corrupt(tmp_path):
    info, rows = described(WHOLE)
    link, more = forged(info, blake3=blake3(b"other"))
    with pytest.raises(Corrupt) as caught:
        fetched(link, rows | more, tmp_path / "out")
    assert caught.value.exit_status == 6
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [-1, 1, 5_000])
def test_a_description_that_lies_about_the_size_of_its_last_part_is_refused(tmp_path, more):
    whole = content(2 * PART_BYTES + 10_000)
    info, rows = described(whole)
    last = info.parts[-1]
    size = len(whole) + more
    parts = (*info.parts[:-1], last._replace(size=last.size + more))
    link, lie = forged(info, size=size, parts=parts)
    with pytest.raises((FormatError, Corrupt)) as caught:
        fetched(link, rows | lie, tmp_path / "out")
    assert more < 0 or "size of a part" in caught.value.message
    assert not (tmp_path / "out").exists()


def test_a_forged_description_under_the_key_of_another_file_never_gets_the_name(tmp_path):
    other = content(len(WHOLE), seed=9)
    _, rows = described(other, hash=sha1(WHOLE))  # parts and BLAKE3 agree, the SHA-1 does not
    with pytest.raises(Corrupt):
        fetched(Link.parse(sha1(WHOLE).hex()), rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_fits_a_forged_description_is_not_taken_for_the_right_one(tmp_path):
    other = content(len(WHOLE), seed=9)
    _, rows = described(other, hash=sha1(WHOLE))
    (tmp_path / "out").write_bytes(other)
    with pytest.raises((Corrupt, Exists)):
        fetched(Link.parse(sha1(WHOLE).hex()), rows, tmp_path / "out")


def test_the_honest_description_is_found_among_forged_ones(tmp_path):
    info, rows = described(WHOLE)
    for seed in range(1, 4):
        rows = described(content(len(WHOLE), seed), hash=sha1(WHOLE))[1] | rows
    fetched(Link.parse(info.hash.base16), rows, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_holder_that_names_descriptions_and_sends_none_does_not_hide_the_honest_one(tmp_path):
    info, rows = described(WHOLE)

    async def main(cluster, reader, nodes):
        for seed in range(1, 4):
            add_values(nodes[0], own(b"x" * 2_000 + b"%d" % seed, info.hash))
        get_nothing(nodes[0])
        add_values(nodes[1], rows)
        await reader.fetch(Link.parse(info.hash.base16), tmp_path / "out")

    in_cluster(main)
    assert (tmp_path / "out").read_bytes() == WHOLE


def test_a_description_of_another_file_is_refused(tmp_path):
    info, rows = described(WHOLE)
    other = described(content(600, 7))[0]
    packed = other.to_bytes()
    link = Link("bytestag", info.hash, "f", "f", blake3(packed), network="local")
    with pytest.raises(FormatError, match="another file"):
        fetched(link, rows | own(packed, info.hash), tmp_path / "out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("size", "field"),
    [
        *[(0, field) for field in ("size", "b3")],
        *[(5_000, field) for field in ("size", "sha1", "b3")],
        *[(2 * PART_BYTES, field) for field in ("size", "sha1", "b3", "info_b3")],
    ],
)
def test_a_manifest_that_lies_about_a_file_makes_nothing_of_that_name(tmp_path, size, field):
    whole = content(size)
    lie = {
        "size": {"size": size + 1},
        "sha1": {"sha1": sha1(b"other")},
        "b3": {"b3": blake3(b"other")},
        "info_b3": {"info_b3": blake3(described(content(size, 1))[0].to_bytes())},
    }[field]
    entry = entry_of(whole, **lie)
    rows = described(whole)[1] | described(content(size, 1))[1]
    link, more = link_of_tree(DirectoryManifest.build([(["file"], entry)]))
    with pytest.raises((FormatError, Corrupt, NotFound)):
        fetched(link, rows | more, tmp_path / "out")
    assert not (tmp_path / "out/file").exists()


def repeated(count, part_bytes=1024):
    """Return the description of a file that is one part, again and again, and its rows."""
    part = content(part_bytes)
    hashes = [(sha1(part), blake3(part))] * count
    whole_blake3, whole_sha1 = blake3(part * count), sha1(part * count)
    parts = tuple(place(hashes, 0, part_bytes, part_bytes * count))
    size = part_bytes * count
    info = FileInfo(KeyBytes(whole_sha1), size, whole_blake3, parts, part_bytes=part_bytes)
    return info, part


@pytest.mark.slow
def test_one_part_named_thousands_of_times_stays_within_the_size_and_small_in_memory(tmp_path):
    info, part = repeated(4096)

    async def main(cluster, reader, nodes):
        add_values(nodes[0], own(info.to_bytes(), info.hash))
        add_values(reader, own(part))
        tracemalloc.start()
        try:
            await reader.fetch(link_of(info), tmp_path / "out")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert run_with_cache(main) < 16 * 2**20
    assert (tmp_path / "out").stat().st_size == info.size == 4096 * 1024


def test_a_description_with_more_parts_than_one_may_list_is_refused():
    info, _ = repeated(4096)
    json = info.to_json()
    json["parts"], json["parts_b3"] = json["parts"][:1] * 30_000, json["parts_b3"][:1] * 30_000
    json["size"] = 30_000 * 1024
    with pytest.raises(FormatError):
        FileInfo.from_json(json)


UNSAFE = [
    ("..",),
    ("/etc",),
    ("a", "..", "b"),
    ("C:\\x",),
    ("nul.txt",),
    ("x\n",),
    ("dot.",),
    ("\u202etxt",),
]


def raw_link(text):
    key = own(text)
    (kvpid,) = key
    return Link("bytestag", kvpid.key, "d", "d", blake3(text), network="local"), key


def raw_manifest(*paths):
    """Return the bytes of a manifest with any names; it is built without the checks of ours."""
    manifest = DirectoryManifest()
    entry = entry_of(b"evil")
    for path in paths:
        here = manifest
        for name in path[:-1]:
            here = here.dirs.setdefault(name, DirectoryManifest())
        here.files[path[-1]] = entry
    return manifest.to_bytes()


@pytest.mark.parametrize(
    "paths",
    [
        *[[path] for path in UNSAFE],
        [("a",), ("A",)],
        [("stra\u00dfe",), ("STRASSE",)],
        [("a", "x"), ("A", "y")],
        [("\u00e9",), ("e\u0301",)],
        [("a",), ("a", "b")],
        [("d",) * 40],
        [("d",) * 70],
        [("x" * 300,)],
    ],
    ids=ascii,
)
def test_names_that_could_harm_are_refused_before_anything_is_written(tmp_path, paths):
    link, more = raw_link(raw_manifest(*paths))
    with pytest.raises(FormatError) as caught:
        fetched(link, described(b"evil")[1] | more, tmp_path / "in" / "out")
    assert caught.value.exit_status == 6
    assert os.listdir(tmp_path) == []


def test_a_manifest_that_is_not_one_is_refused(tmp_path):
    for text in (b"", b"{}", b"[1]", b'{"files":{"a":{"sha1":"00","size":1}}}', b"{" * 5_000,
                 b'{"files":{"a":{},"a":{}}}', b'{"files":{},"dirs":NaN}'):  # fmt: skip
        link, more = raw_link(text)
        with pytest.raises(FormatError):
            fetched(link, more, tmp_path / "out")
    assert os.listdir(tmp_path) == []


# --- The place -----------------------------------------------------------------------------------


def test_a_planted_link_in_the_destination_is_not_followed(tmp_path):
    manifest, rows = tree({"sub/file": b"evil", "sub/large": WHOLE})
    link, more = link_of_tree(manifest)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(outside)
    for is_forced in (False, True):
        with pytest.raises(StorageError):
            fetched(link, rows | more, tmp_path / "out", is_forced=is_forced)
        assert os.listdir(outside) == []


@pytest.mark.parametrize("kind", ["symlink", "hard link", "directory", "fifo"])
@pytest.mark.parametrize("size", [5_000, 2 * PART_BYTES])
def test_a_planted_incomplete_file_is_not_written_to(tmp_path, kind, size):
    info, rows = described(content(size))
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = tmp_path / ("out" + INCOMPLETE_SUFFIX)
    match kind:
        case "symlink":
            planted.symlink_to(victim)
        case "hard link":
            planted.hardlink_to(victim)
        case "directory":
            planted.mkdir()
        case "fifo":
            os.mkfifo(planted)
    with pytest.raises(StorageError):
        fetched(link_of(info), rows, tmp_path / "out")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "out").exists()


def test_by_force_a_link_at_the_name_is_replaced_and_not_written_through(tmp_path):
    info, rows = described(WHOLE)
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "out").symlink_to(tmp_path / "victim")
    with pytest.raises(Exists):
        fetched(link_of(info), rows, tmp_path / "out")
    fetched(link_of(info), rows, tmp_path / "out", is_forced=True)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "out").is_symlink()


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_disk_that_is_too_small_is_found_out_before_the_first_byte(
    tmp_path, monkeypatch, is_directory
):
    if is_directory:
        manifest, rows = tree({"large": WHOLE})
        link, more = link_of_tree(manifest)
    else:
        info, rows = described(WHOLE)
        link, more = link_of(info), {}
    true = os.statvfs(tmp_path)

    class Small:
        f_bavail = (len(WHOLE) - 1) // true.f_frsize
        f_frsize = true.f_frsize

    monkeypatch.setattr(landing.os, "statvfs", lambda path: Small)
    with pytest.raises(NoSpace) as caught:
        fetched(link, rows | more, tmp_path / "out")
    assert caught.value.exit_status == 8
    assert os.listdir(tmp_path) == []


def full_after(bytes_max, monkeypatch):
    """Let the disk be full after so many bytes."""
    left = bytes_max
    true_pwrite = os.pwrite

    def pwrite(fd, buffer, offset):
        nonlocal left
        if left <= 0:
            raise OSError(28, "No space left on device")
        chunk = memoryview(buffer)[:left]
        left -= len(chunk)
        return true_pwrite(fd, chunk, offset)

    monkeypatch.setattr(landing.os, "pwrite", pwrite)


def test_a_disk_that_becomes_full_ends_the_fetch_and_keeps_what_was_verified(tmp_path, monkeypatch):
    info, rows = described(WHOLE)
    with monkeypatch.context() as patch:
        full_after(2 * PART_BYTES + 100, patch)
        with pytest.raises(NoSpace):
            fetched(link_of(info), rows, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    progress = fetched(link_of(info), rows, tmp_path / "out")
    assert progress.bytes_resumed >= PART_BYTES  # and the last part, if it was the first to come
    assert (tmp_path / "out").read_bytes() == WHOLE


@pytest.mark.parametrize("size", [5_000, pytest.param(2 * PART_BYTES, marks=pytest.mark.slow)])
def test_a_disk_that_becomes_full_ends_a_directory_at_once(tmp_path, monkeypatch, size):
    files = {f"{n:03d}": content(size, n) for n in range(30)}
    manifest, rows = tree(files)
    link, more = link_of_tree(manifest)
    with monkeypatch.context() as patch:
        full_after(3 * size, patch)
        with pytest.raises(NoSpace):
            fetched(link, rows | more, tmp_path / "out")
    progress = fetched(link, rows | more, tmp_path / "out")
    assert 3 * size >= progress.bytes_resumed > 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == files


# --- Meanwhile -----------------------------------------------------------------------------------


def test_progress_only_rises_and_ends_with_all(tmp_path):
    manifest, rows = tree(TREE)
    link, more = link_of_tree(manifest)
    seen = []
    fetched(link, rows | more, tmp_path / "out", holders=2,
            report=lambda p: seen.append((p.files_done, p.bytes_done, p.bytes)))  # fmt: skip
    assert seen[0] == (0, 0, 0)  # found
    done = [(files, bytes_) for files, bytes_, _ in seen]
    assert done == sorted(done)
    assert len({files for files, _ in done}) > 3
    assert seen[-1] == (len(TREE), sum(map(len, TREE.values())), sum(map(len, TREE.values())))


@pytest.mark.slow
@pytest.mark.parametrize("is_directory", [False, True])
def test_cancelling_ends_the_traffic_and_leaves_no_tasks(tmp_path, is_directory):
    files = {f"{n}": content(200_000, n) for n in range(200 if is_directory else 0)}
    whole = content(30 * PART_BYTES)
    manifest, rows = tree(files | {"large": whole})
    link, more = link_of_tree(manifest)
    if not is_directory:
        link = link_of(described(whole)[0])

    async def main(cluster, reader, nodes):
        add_values(nodes[0], rows | more)
        started = asyncio.Event()
        fetching = asyncio.ensure_future(
            reader.fetch(link, tmp_path / "out", report=lambda p: p.bytes_done and started.set())
        )
        await started.wait()
        before = world_bytes(cluster)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        await asyncio.sleep(1)
        assert world_bytes(cluster) - before < 3 * 2**20  # what was under way, not what waited
        assert reader.download_slot.current_tasks == ()
        assert reader.download_slot.queue == 0
        assert not nodes[0].upload_slot.current_tasks
        before = world_bytes(cluster)
        await asyncio.sleep(10)
        assert world_bytes(cluster) - before < 5_000
        await reader.fetch(link, tmp_path / "out")

    in_cluster(main, 1)
    assert left_over(tmp_path) == []


def test_reports_come_in_the_thread_of_the_loop(tmp_path):
    manifest, rows = tree({"a": b"one", "b": b"two"})
    link, more = link_of_tree(manifest)
    threads = set()

    async def in_thread(function, /, *args, **kwargs):
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function, *args, **kwargs).result()

    async def main(cluster, reader, nodes):
        add_values(reader, rows | more)
        reader.runtime = replace(reader.runtime, offload=in_thread)
        await reader.fetch(
            link, tmp_path / "out", report=lambda p: threads.add(threading.get_ident())
        )

    run_with_cache(main)
    assert threads == {threading.get_ident()}
