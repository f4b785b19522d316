"""From a link to what it names: descriptions, manifests, and which of them are believed."""

from dataclasses import replace

import pytest

from bytestag.config import PART_BYTES
from bytestag.dht.fetching import Fetcher
from bytestag.dht.providing import SortedKeys
from bytestag.dht.resolving import INFOS_TRIED_MAX, Resolver
from bytestag.errors import Corrupt, FormatError, NotFound, Timeout
from bytestag.hashing import blake3, sha1
from bytestag.models.directory import DirectoryManifest
from bytestag.models.parts import place
from bytestag.sim.network import Conditions
from bytestag.sim.world import run
from bytestag.uri import Link
from tests.dht.helpers import (
    Cluster,
    add_values,
    content,
    described,
    get_nothing,
    link_of,
    link_of_tree,
    own,
    publisher,
    serve,
    tree,
)

CALM = Conditions(latency=0.005, spread=0)
WHOLE = content(2 * PART_BYTES + 9)
INFO, ROWS = described(WHOLE)
BARE = Link.parse(INFO.hash.base16)


def resolved(link, *rows, prepare=lambda nodes: None):
    """Resolve a link in a network whose nodes have these rows each."""

    async def main(world):
        async with Cluster(world) as cluster:
            nodes = [await cluster.start() for _ in rows]
            reader = await cluster.start(is_client=True, cache_bytes=0)
            for node, its in zip(nodes, rows, strict=True):
                add_values(node, its)
            prepare(nodes)
            fetcher = Fetcher(
                reader.dht_network, reader.stores.table, reader.config, reader.runtime,
                reader._group,
            )  # fmt: skip
            try:
                return await Resolver(fetcher, reader.runtime).resolve(link)
            finally:
                fetcher.close()

    return run(main, conditions=CALM)


def forged(seed):
    """Return a description that says it is our file's and leads to another."""
    return described(content(len(WHOLE), seed), hash=sha1(WHOLE))


# --- Descriptions --------------------------------------------------------------------------------


def test_a_link_with_its_blake3_names_the_very_description():
    rows = forged(1)[1] | ROWS
    target = resolved(link_of(INFO), rows)
    assert target.info == INFO
    assert not target.is_claimed


def test_what_a_bare_key_leads_to_is_only_claimed():
    target = resolved(BARE, ROWS)
    assert target.info == INFO
    assert target.is_claimed
    assert target.others == ()


def test_all_descriptions_of_a_bare_key_are_remembered():
    infos, rows = {INFO}, dict(ROWS)
    for seed in range(1, 4):
        info, more = forged(seed)
        infos.add(info)
        rows |= more
    target = resolved(BARE, rows)
    assert {blake3(target.info.to_bytes()), *target.others} == {
        blake3(info.to_bytes()) for info in infos
    }


def test_the_description_that_most_holders_name_is_tried_first():
    for seed in range(1, 6):
        liar = {k: v for k, v in forged(seed)[1].items() if k.key == INFO.hash}
        target = resolved(BARE, liar | ROWS, liar, ROWS, ROWS)
        assert target.info == INFO
        assert len(target.others) == 1


def test_one_honest_description_among_many_that_are_not_any_is_found():
    garbage = {}
    for seed in range(20):
        garbage |= own(content(1_500 + seed, seed), INFO.hash)
    nodes = [dict(list(garbage.items())[4 * n : 4 * n + 2]) for n in range(3)]
    assert resolved(BARE, *nodes, ROWS).info == INFO


def test_a_key_with_nothing_but_garbage_is_corrupt():
    with pytest.raises(Corrupt, match="no description"):
        resolved(BARE, own(content(1_500), INFO.hash))


def test_silent_holders_of_descriptions_are_a_timeout():
    with pytest.raises(Timeout):
        resolved(BARE, own(content(1_500), INFO.hash), prepare=lambda nodes: get_nothing(nodes[0]))


def test_a_holder_that_claims_the_whole_value_does_not_hide_the_description():
    lie = own(content(3_000))
    (name,) = lie

    def claim(nodes):
        record = nodes[0].stores.cache.record(name)
        kvpid = type(name)(INFO.hash, INFO.hash)
        table = nodes[0].stores.table
        table.records_by_key = lambda key: [replace(record, kvpid=kvpid)]
        table.read_row = lambda record: lie[name]

    assert resolved(BARE, lie, ROWS, prepare=claim).info == INFO


def test_no_more_descriptions_are_tried_than_a_few():
    asked = set()

    def note(record, value):
        asked.add(value)
        return value

    nodes = []
    for node in range(5):
        nodes.append({})
        for n in range(4):
            nodes[-1] |= own(content(1_200 + node, n), INFO.hash)

    def prepare(clients):
        for client in clients:
            serve(client, note)

    with pytest.raises(Corrupt):
        resolved(BARE, *nodes, prepare=prepare)
    assert 4 <= len(asked) <= INFOS_TRIED_MAX == 8


def test_a_magnet_link_is_the_description_whose_sha1_it_is():
    link = Link.parse(f"magnet:?xt=urn:bstagih:{INFO.id.base32}")
    assert resolved(link, ROWS).info == INFO
    with pytest.raises(FormatError):
        resolved(Link.parse(f"magnet:?xt=urn:bstagih:{sha1(b'no info').hex()}"), own(b"no info"))


def test_a_description_of_2012_without_a_size_says_so():
    old = replace(
        INFO, size=None, blake3=b"", parts=tuple(p._replace(blake3=b"") for p in INFO.parts)
    )
    with pytest.raises(FormatError, match="how large"):
        resolved(link_of(old), own(old.to_bytes(), old.hash))


def test_a_share_that_only_its_provider_has_resolves_from_the_bare_key():
    async def main(world):
        async with Cluster(world) as cluster:
            for _ in range(2):
                await cluster.start()
            provider = await publisher(cluster)
            add_values(provider, ROWS)
            await provider.announcer.announce(SortedKeys([INFO.hash]))
            # Its address is known from its record alone.
            for client in cluster.clients[:2]:
                client.protocol.router.remove_contact(
                    client.protocol.router.contact(provider.identity.node_id)
                )
                client.protocol.router.add_contact = lambda contact: None
            reader = await cluster.start(is_client=True, cache_bytes=0)
            fetcher = Fetcher(
                reader.dht_network, reader.stores.table, reader.config, reader.runtime,
                reader._group,
            )  # fmt: skip
            target = await Resolver(fetcher, reader.runtime).resolve(BARE)
            fetcher.close()
            assert target.info == INFO
            assert target.is_claimed

    run(main, conditions=CALM)


# --- Directories ---------------------------------------------------------------------------------

FILES = {"a/small": content(3_000, 1), "a/large": WHOLE, "a/none": b"", "b": b"x"}


def in_parts(manifest):
    packed = manifest.to_bytes()
    info, rows = described(packed, part_bytes=1024)
    link = Link("bytestag", info.hash, "d", "d", blake3(packed), blake3(info.to_bytes()))
    return link, rows, info


def test_a_manifest_in_parts_resolves_from_its_link_and_from_its_bare_key():
    manifest, _ = tree({f"{n}": b"%d" % n for n in range(20)})
    link, rows, info = in_parts(manifest)
    assert info.part_count > 3
    assert resolved(link, rows).manifest == manifest
    assert resolved(Link.parse(f"sha1dir://{info.hash}.d"), rows).manifest == manifest


def test_a_manifest_in_parts_that_is_not_the_one_named_is_corrupt():
    manifest, _ = tree({f"{n}": b"%d" % n for n in range(20)})
    link, rows, _ = in_parts(manifest)
    with pytest.raises(Corrupt):
        resolved(replace(link, b3=blake3(b"other")), rows)
    liar = DirectoryManifest.build([(["x"], manifest.files["1"])])
    _, lies, lying = in_parts(liar)
    lying = replace(lying, hash=link.key)
    rows = lies | own(lying.to_bytes(), link.key)
    with pytest.raises(Corrupt):
        resolved(Link.parse(f"sha1dir://{link.key}.d"), rows)


def test_a_forged_description_of_a_manifest_does_not_hide_the_true_one():
    manifest, _ = tree({f"{n}": b"%d" % n for n in range(20)})
    link, rows, _ = in_parts(manifest)
    _, lies, lying = in_parts(tree({"x": b"evil"})[0])
    lying = replace(lying, hash=link.key)
    rows = lies | own(lying.to_bytes(), link.key) | rows
    assert resolved(Link.parse(f"sha1dir://{link.key}.d"), rows).manifest == manifest


def test_a_manifest_that_claims_to_be_huge_is_refused_before_anything_of_it_is_fetched():
    info = described(b"", part_bytes=2**20)[0]
    entry = (sha1(b""), blake3(b""))
    size = 600 * 2**20
    huge = replace(info, size=size, parts=tuple(place([entry] * 600, 0, 2**20, size)))
    link = Link("bytestag", huge.hash, "d", "d", blake3(b""), blake3(huge.to_bytes()))
    with pytest.raises(FormatError, match="larger"):
        resolved(link, own(huge.to_bytes(), huge.hash))


def test_a_path_leads_to_a_file_a_directory_or_nothing():
    manifest, rows = tree(FILES)
    link, more = link_of_tree(manifest)
    at = {
        path: resolved(replace(link, path=tuple(path.split("/"))), rows | more)
        for path in (*FILES, "a")
    }
    assert at["a/small"].value == FILES["a/small"]
    assert at["a/none"].value == b""
    assert at["a/large"].info == INFO
    assert not at["a/large"].is_claimed
    assert sorted(at["a"].manifest.files) == ["large", "none", "small"]
    for path in ("c", "a/c", "b/c"):
        with pytest.raises(NotFound, match=path):
            resolved(replace(link, path=tuple(path.split("/"))), rows | more)


def test_a_manifest_and_a_description_that_disagree_are_refused():
    manifest, rows = tree(FILES)
    for fields in ({"size": len(WHOLE) + 1}, {"b3": blake3(b"other")}):
        lying = DirectoryManifest.build(
            [(["large"], replace(manifest.dirs["a"].files["large"], **fields))]
        )
        link, more = link_of_tree(lying)
        with pytest.raises(FormatError):
            resolved(replace(link, path=("large",)), rows | more)


def test_a_liar_about_a_manifest_is_overtaken():
    manifest, _ = tree(FILES)
    link, more = link_of_tree(manifest)
    target = resolved(
        link, more, more, prepare=lambda nodes: serve(nodes[0], lambda r, v: v[:-1] + b" ")
    )
    assert target.manifest == manifest
