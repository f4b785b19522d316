"""``bytestag load``, ``load-dir`` and ``cat``: content by its link, from here or elsewhere
(composition).
"""

from __future__ import annotations

import fnmatch
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bytestag.cli.library import READING, link_of, opened, report_to
from bytestag.cli.options import absolute_path, command, option
from bytestag.cli.output import Output, write_bytes
from bytestag.cli.values import print_size
from bytestag.errors import Corrupt, NotFound, UsageError

if TYPE_CHECKING:
    from bytestag.library.library import Library
    from bytestag.models.directory import FileEntry
    from bytestag.uri import Link

CAT_BYTES = 4 * 1024 * 1024
WILDCARDS = set("*?[")


@command(
    "Have what LINK names, and print its path: a file in the store or, with --dest, there; a "
    "directory needs --dest. The path inside a directory may be a pattern: "
    "'sha1dir://H.name/*.csv' with --dest DIR.",
    click.argument("link"),
    option("--dest", type=click.Path(path_type=Path), help="The file or directory to make."),
    option("--dry-run", is_flag=True, help="Say what would be loaded and how large it is."),
    *READING,
)
def load(output: Output, link: str, dest: Path | None, dry_run: bool, **values: Any) -> int:
    target = absolute_path(dest) if dest is not None else None
    with opened(values) as library:
        parsed = link_of(library, link)
        report = report_to(output, f"loading {parsed.name or parsed.digest.hex()[:12]}")
        if parsed.path and WILDCARDS & set("/".join(parsed.path)):
            return _load_matching(output, library, parsed, dest, dry_run)
        found = library.describe(parsed)
        if dry_run:
            return _say_size(output, str(parsed), found)
        if found["type"] == "directory":
            if target is None:
                raise UsageError("it is a directory", hint="say where to: --dest DIR")
            path = library.load_directory(parsed, target, report)
        else:
            path = library.load(parsed, target, report)
    output.end_progress()
    path = dest or path  # as it was written
    if output.is_json:
        output.json({"type": "result", "link": str(parsed), "path": str(path), **_brief(found)})
    else:
        output.answer(str(path))
    return 0


def _load_matching(
    output: Output, library: Library, link: Link, dest: Path | None, is_dry: bool
) -> int:
    """Load the files of a directory whose path fits a pattern."""
    from dataclasses import replace

    from bytestag.models.safe_names import check_tree

    matching = list(_matching(library, link))
    if not matching:
        raise NotFound(f"no file fits {'/'.join(link.path)!r}", hint="bytestag ls LINK lists them")
    check_tree((path for path, _ in matching), ())
    total = sum(entry.size for _, entry in matching)
    if is_dry:
        found = {"type": "directory", "files": len(matching), "size": total}
        return _say_size(output, str(link), found)
    if dest is None:
        raise UsageError("a pattern may fit many files", hint="say where to: --dest DIR")
    report, done = report_to(output, f"loading {len(matching)} files"), 0
    for path, entry in matching:
        place = dest.joinpath(*path)
        target = absolute_path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        library.load(replace(link, path=path), target)
        done += entry.size
        report(done, total, 0)
        output.end_progress()
        if output.is_json:
            output.json({"type": "result", "path": str(place), "size": entry.size})
        else:
            output.answer(str(place))
    return 0


def _matching(library: Library, link: Link) -> list[tuple[tuple[str, ...], FileEntry]]:
    from dataclasses import replace

    pattern = "/".join(link.path)
    manifest = library.manifest(replace(link, path=()))
    return [
        (path, entry)
        for path, entry in manifest.entries()
        if len(path) == len(link.path) and fnmatch.fnmatchcase("/".join(path), pattern)
    ]


def _brief(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("size", "sha1", "files") if name in found}


def _say_size(output: Output, link: str, found: dict[str, Any]) -> int:
    if output.is_json:
        output.json({"type": "dry_run", "link": link, **_brief(found)})
    else:
        files = f"{found['files']:,} files, " if "files" in found else ""
        output.answer(f"{files}{print_size(found['size'])} ({found['size']:,} bytes)")
    return 0


@command(
    "Write the bytes of the file that LINK names to standard output.",
    click.argument("link"),
    option("--start", type=click.IntRange(0), default=0, help="First byte."),
    option("--end", type=click.IntRange(0), help="The byte after the last."),
    *READING,
)
def cat(output: Output, link: str, start: int, end: int | None, **values: Any) -> int:
    from bytestag.hashing import sha1_hasher

    if end is not None and end < start:
        raise UsageError(f"{start} to {end} is no range of bytes")
    if output.is_json:
        raise UsageError("the answer of cat is bytes", hint="leave out --json; see `bytestag info`")
    with opened(values) as library:
        found = library.named(link)
        if isinstance(found, Path):
            raise UsageError(f"{link!r} is a path, not a link", hint="cat(1) prints files")
        described = library.describe(found)
        size = described["size"]
        stop = size if end is None else min(end, size)
        is_whole, hasher = start == 0 and stop == size, sha1_hasher()
        while start < stop:
            piece = library.read(found, start, min(start + CAT_BYTES, stop))
            write_bytes(sys.stdout.buffer, piece)
            start += len(piece)
            if is_whole and "path" not in described:  # what is here was believed already
                hasher.update(piece)
                if start == size and hasher.digest().hex() != described["sha1"]:
                    raise Corrupt(f"what came is not {described['sha1']}")
    return 0
