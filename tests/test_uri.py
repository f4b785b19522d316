"""Links: every form that is read, the one that is printed, and hostile text."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytestag.errors import UsageError
from bytestag.keys import KeyBytes
from bytestag.uri import Link, format_address, parse_address

VECTORS = json.loads((Path(__file__).parent / "vectors" / "links.json").read_text("utf-8"))
HEX = "37aa63c77398d954473262e1a0057c1e632eda77"
KEY = KeyBytes(HEX)
OTHER = KeyBytes.new_hash(b"other")
MD5 = "d41d8cd98f00b204e9800998ecf8427e"

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
components = names.filter(lambda name: name not in ("", ".", "..")).map(
    lambda name: name.replace("/", "_").replace("\0", "_")
)
hosts = st.one_of(
    st.ip_addresses().map(str), st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
)
hints = st.lists(st.tuples(hosts, st.integers(1024, 65_535)), max_size=3).map(tuple)
blake3s = st.one_of(st.just(b""), st.binary(min_size=32, max_size=32))
keys = st.binary(min_size=20, max_size=20).map(KeyBytes)


@st.composite
def links(draw: st.DrawFn) -> Link:
    scheme = draw(st.sampled_from(["bytestag", "sha1", "sha1dir", "bstagih", "btih"]))
    kind = "d" if scheme == "sha1dir" else draw(st.sampled_from(["f", "d", None]))
    has_path = scheme == "sha1dir" or (scheme == "bytestag" and kind != "f")
    return Link(
        scheme,
        draw(keys),
        draw(names).replace("/", "_") if scheme in ("bytestag", "sha1") else draw(names),
        kind,
        b3=draw(blake3s),
        ib3=draw(blake3s),
        hints=draw(hints),
        node_id=draw(st.none() | keys),
        network=draw(st.sampled_from(["BYTESTAG", "lab & co", "ü"])),
        path=tuple(draw(st.lists(components, max_size=3))) if has_path else (),
    )


@given(links())
def test_a_printed_link_is_read_back(link: Link) -> None:
    text = str(link)
    assert text.isascii()
    again = Link.parse(text)
    assert again == link
    assert str(again) == text


@given(
    st.one_of(
        st.text(max_size=80),
        st.builds(
            "{}:{}{}{}".format,
            st.sampled_from(["bytestag", "sha1", "sha1dir", "md5", "magnet", "kachery", "x"]),
            st.sampled_from(["//", "", "////", "?xt=urn:btih:", "z:sha1:"]),
            st.sampled_from([HEX, MD5, KEY.base32, ""]),
            st.text("/.?&=#%~:[]tbnf0x3e", max_size=40),
        ),
    )
)
def test_any_text_is_a_link_or_refused_with_a_hint(text: str) -> None:
    try:
        link = Link.parse(text)
    except UsageError as error:
        hint = error.hint
        assert hint is not None
    else:
        assert Link.parse(str(link)) is not None


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"][:60])
def test_the_vectors_hold(vector: dict[str, Any]) -> None:
    link = Link.parse(vector["text"])
    fields = {
        "scheme": link.scheme,
        "digest": link.digest.hex(),
        "name": link.name,
        "kind": link.kind,
        "b3": link.b3.hex(),
        "ib3": link.ib3.hex(),
        "hints": [list(hint) for hint in link.hints],
        "node_id": link.node_id and link.node_id.hex(),
        "network": link.network,
        "path": list(link.path),
    }
    assert fields == vector["fields"]
    assert str(link) == vector["printed"]


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.upper(),
        f"  sha1://{HEX}\n",
        f"SHA1://{HEX}",
        f"sha1:////{HEX}/",
        f"sha1:{HEX}",
        f"sha1://{KEY.base32}",
        f"sha1://{HEX}#fragment",
        f"sha1://{HEX}?unknown=1&&x",
    ],
)
def test_a_key_is_found_in_every_spelling(text: str) -> None:
    assert Link.parse(text) == Link("sha1", KEY)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "sha1://", "bytestag://?t=f", "magnet:?xt=urn:btih:", "sha1:"],
)
def test_a_link_without_a_key_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError, match="no key") as caught:
        Link.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        f"http://{HEX}",
        f"btih:{HEX}",
        f"sha1://{HEX[:-1]}",
        f"sha1://{HEX}%",
        "sha1:///name",
        f"bytestag://{HEX}?t=x",
        f"bytestag://{HEX}?b3=12",
        f"bytestag://{HEX}?b3={'g' * 64}",
        f"bytestag://{HEX}?n=12",
        f"bytestag://{HEX}/%ff",
        f"bytestag://{HEX}/name/../x",
        f"bytestag://{HEX}/name/a%2Fb",
        f"bytestag://{HEX}?net={'x' * 65}",
        f"bytestag://{HEX}?x.pe=host",
        f"bytestag://{HEX}?x.pe=host:80",
        f"bytestag://{HEX}?x.pe=host:65536",
        f"bytestag://{HEX}?x.pe=host:٤٠٠٠",
        f"bytestag://{HEX}?x.pe=::1:4000",
        f"bytestag://{HEX}?x.pe=[host]:4000",
        f"bytestag://{HEX}?x.pe=[::1%25eth0]:4000",
        f"bytestag://{HEX}?x.pe=:4000",
        f"bytestag://{HEX}?x.pe=a%20b:4000",
        f"sha1://{HEX}?chunkOf={HEX}~9~3",
        f"sha1://{HEX}?chunkOf={HEX}",
        f"md5://{HEX}",
        "magnet:?dn=x",
        f"magnet:?xt=urn:sha1:{KEY.base32}",
        f"kachery:zone:md5:{MD5}",
        "kachery:",
        "sha1://" + "a" * 70_000,
    ],
)
def test_a_malformed_link_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Link.parse(text)
    assert caught.value.hint


def test_a_link_that_cannot_be_read_cannot_be_made() -> None:
    for fields in (
        {"hints": (("host", 80),)},
        {"hints": (("host", 4000),) * 9},
        {"b3": b"short"},
        {"network": ""},
        {"kind": "x"},
        {"kind": "f", "path": ("a",)},
        {"path": ("..",)},
        {"name": "\udcff"},
    ):
        with pytest.raises(UsageError):
            Link("bytestag", KEY, **fields)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Link("gopher", KEY)
    with pytest.raises(UsageError):
        Link("sha1", b"short")


def test_at_most_three_addresses_are_printed_and_eight_read() -> None:
    addresses = tuple((f"10.0.0.{number}", 4000) for number in range(12))
    link = Link("bytestag", KEY, hints=addresses[:8])
    assert Link.parse(str(link)).hints == addresses[:3]
    text = f"bytestag://{HEX}?" + "&".join(f"x.pe={format_address(*a)}" for a in addresses)
    assert Link.parse(text).hints == addresses[:8]


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert parse_address("[2001:db8::1]:4000") == ("2001:db8::1", 4000)
    assert format_address("2001:db8::1", 4000) == "[2001:db8::1]:4000"
    assert parse_address("example.org:4000") == ("example.org", 4000)


def test_the_magnet_form_is_chosen_by_what_the_key_names() -> None:
    both = f"magnet:?xt.2=urn:bstagih:{KEY.base32}&xt.1=urn:btih:{OTHER}&dn=a+b%2Bc"
    link = Link.parse(both)
    assert (link.scheme, link.key, link.name) == ("bstagih", KEY, "a b+c")
    assert Link.parse(f"magnet:?xt.1=urn:btih:{OTHER.base32.lower()}").key == OTHER
    assert Link.parse(f"magnet:?xt=URN:BTIH:{OTHER}").scheme == "btih"


def test_chunks_and_manifests_of_kachery_are_understood() -> None:
    link = Link.parse(f"sha1://{HEX}/x.dat?chunkOf={OTHER}~20~50&manifest={OTHER}")
    assert link.chunk_of == (OTHER, 20, 50)
    assert link.manifest == OTHER
    assert Link.parse(str(link)) == link


def test_an_md5_link_is_read_but_has_no_key() -> None:
    link = Link.parse(f"md5://{MD5.upper()}/name")
    assert (link.scheme, link.digest, link.name) == ("md5", bytes.fromhex(MD5), "name")
    assert str(link) == f"md5://{MD5}/name"
    with pytest.raises(UsageError, match="local stores"):
        link.key
    assert isinstance(Link.parse(HEX).key, KeyBytes)
