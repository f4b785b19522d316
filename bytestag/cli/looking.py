"""``bytestag ls``, ``info`` and ``why``: what a link names, and where it is (composition)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.library import READING, link_of, opened
from bytestag.cli.options import command, option
from bytestag.cli.output import Output, printable
from bytestag.cli.values import count, print_size
from bytestag.errors import BytestagError, UsageError

if TYPE_CHECKING:
    from bytestag.library.library import Library
    from bytestag.uri import Link


@command(
    "List the directory that LINK names, one level: directories with a slash, then files. Nothing "
    "but its manifest is fetched.",
    click.argument("link"),
    option("-l", "--long", is_flag=True, help="With sizes and hashes."),
    option("-r", "--recursive", is_flag=True, help="All levels, as paths."),
    *READING,
)
def ls(output: Output, link: str, long: bool, recursive: bool, **values: Any) -> int:
    with opened(values) as library:
        parsed = link_of(library, link)
        manifest = library.manifest(parsed)
    if recursive:
        files = [("/".join(path), entry) for path, entry in manifest.entries()]
        directories = ["/".join(path) for path in manifest.empty_directories()]
    else:
        files = [(name, manifest.files[name]) for name in sorted(manifest.files)]
        directories = sorted(manifest.dirs)
    if output.is_json:
        listed: list[dict[str, Any]]
        listed = [{"name": name, "type": "directory"} for name in directories]
        listed += [
            {"name": name, "type": "file", "size": e.size, "sha1": e.sha1.hex()}
            for name, e in files
        ]
        output.json({"type": "result", "link": str(parsed), "entries": listed})
        return 0
    for name in directories:
        output.answer(f"{printable(name)}/")
    for name, entry in files:
        details = f"{entry.sha1.hex()} {entry.size:>14,} " if long else ""
        output.answer(f"{details}{printable(name)}")
    return 0


@command(
    "Say what LINK names, or what a file is: type, size, hashes, where it is. Prints JSON.",
    click.argument("name"),
    *READING,
)
def info(output: Output, name: str, **values: Any) -> int:
    from bytestag.uri import Link

    with opened(values) as library:
        found = library.named(name)
        if isinstance(found, Link):
            described = {"link": str(found), **library.describe(found)}
        else:
            described = _of_path(found)
    if output.is_json:
        output.json(described)
    else:
        output.answer(json.dumps(described, indent=4))
    return 0


def _of_path(path: Path) -> dict[str, Any]:
    from bytestag.library.describing import describe_path
    from bytestag.uri import Link

    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a directory", hint="bytestag store DIR gives its link")
    described = describe_path(path)
    link = Link("sha1", bytes.fromhex(described["sha1"]), path.name)
    return {"link": str(link), **described}


@command(
    "Say why LINK can be read or cannot: what is here, whether a node runs, who was asked, who "
    "answered, and what to do.",
    click.argument("link"),
    *READING,
)
def why(output: Output, link: str, **values: Any) -> int:
    lines: list[dict[str, Any]] = []

    def check(name: str, is_good: bool, text: str, fix: str = "") -> None:
        lines.append({"check": name, "ok": is_good, "text": text, "fix": fix})

    with opened(values) as library, opened({**values, "local_only": True}) as here:
        parsed = link_of(library, link)
        missing = _look_here(here, link_of(here, link), check)
        status = 0 if missing is None else _look_elsewhere(library, missing, check)
    is_readable = status == 0
    if output.is_json:
        output.json({"type": "result", "link": str(parsed), "ok": is_readable, "checks": lines})
        return status
    for line in lines:
        output.answer(f"[{'ok' if line['ok'] else '--'}] {line['check']:<12} {line['text']}")
        if line["fix"]:
            output.answer(f"     fix: {line['fix']}")
    output.answer("it can be read" if is_readable else "it cannot be read")
    return status


def _look_here(library: Library, link: Link, check: Callable[..., None]) -> Link | None:
    """Say what of a link is here; return the link of what is not, the first of many."""
    try:
        found = library.describe(link)
        if found["type"] == "file":
            if "path" not in found:
                check("here", False, "its directory is here, the file is not")
                return _file_link(link, found["sha1"])
            where = {"object": "the store", "link": "a file that the store links to"}
            place = where.get(found["origin"], f"a {found['origin']} store, read only")
            check("here", True, f"{print_size(found['size'])} in {place}: {found['path']}")
            return None
        entries = [entry for _, entry in library.manifest(link).entries()]
    except BytestagError as error:
        check("here", False, error.message)
        return link
    missing = [entry for entry in entries if entry.sha1 not in library.store]
    held = f"{len(entries) - len(missing):,} of {count(len(entries), 'file')}"
    check("here", not missing, f"the directory's list, and {held} of it")
    return _file_link(link, missing[0].sha1.hex()) if missing else None


def _file_link(link: Link, digest: str) -> Link:
    from bytestag.uri import Link

    return Link("sha1", bytes.fromhex(digest), hints=link.hints, network=link.network)


def _look_elsewhere(library: Library, link: Link, check: Callable[..., None]) -> int:
    """Say who is asked for a link and what they say; return the exit code of reading it."""
    kind = type(library.elsewhere).__name__
    asked = {"ThroughDoor": "the running node", "Nowhere": "nobody"}
    check("asks", kind != "Nowhere", asked.get(kind, "a client of its own"))
    try:
        found = library.find(link)
        holders, publishers = len(found["holders"]), len(found["providers"])
        check(
            "holders",
            True,
            f"{count(holders, 'holder')}, {count(publishers, 'publisher')}; asked "
            f"{found['asked']}, {found['answered']} answered",
        )
        described = library.describe(link)
        check("description", True, f"{described['type']}, {print_size(described['size'])}")
    except BytestagError as error:
        check("holders", False, error.message, error.hint or "")
        return error.exit_status
    return 0
