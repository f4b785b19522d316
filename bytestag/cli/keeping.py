"""``bytestag rm``, ``pin``, ``gc``, ``verify`` and ``list``: what the store keeps (composition)."""

from __future__ import annotations

from typing import Any

import click

from bytestag.cli.library import link_of, opened
from bytestag.cli.options import STORE, command, option
from bytestag.cli.output import Output, printable
from bytestag.cli.values import Duration, Size, count, print_size
from bytestag.errors import BytestagError, Corrupt, NotFound, NotPermitted


@command(
    "Remove what LINKS name from the store; of a directory its manifest. Files that the store only "
    "links to stay, and are known no longer.",
    click.argument("links", nargs=-1, required=True),
    STORE,
)
def rm(output: Output, links: tuple[str, ...], **values: Any) -> int:
    return _each(output, links, values, lambda store, digest: store.remove(digest), "removed")


@command(
    "Keep what LINKS name, and the files of directories, whatever gc removes.",
    click.argument("links", nargs=-1, required=True),
    option("--undo", is_flag=True, help="Pin no longer."),
    STORE,
)
def pin(output: Output, links: tuple[str, ...], undo: bool, **values: Any) -> int:
    def change(store: Any, digest: bytes) -> None:
        (store.unpin if undo else store.pin)(digest)

    return _each(output, links, values, change, "unpinned" if undo else "pinned")


def _each(
    output: Output, links: tuple[str, ...], values: dict[str, Any], change: Any, done: str
) -> int:
    """Do something with the content of each link; a link that fails stops none after it."""
    failed: BytestagError | None = None
    with opened({**values, "local_only": True}) as library:
        for text in links:
            try:
                link = link_of(library, text)
                change(library.store, library.locate(link).sha1)
            except (NotFound, NotPermitted) as error:
                if len(links) == 1:
                    raise
                failed = error
                output.warn(f"{text}: {error.message}")
                continue
            if output.is_json:
                output.json({"type": "result", "link": str(link), "done": done})
            else:
                output.note(f"{done} {link}")
    if failed is not None:
        raise failed
    return 0


@command(
    "Remove what has not been used for longest, never what is pinned, until the store is small "
    "enough. Prints what was removed.",
    option("--max-size", type=Size(), help="Bytes that may stay, such as 50GiB."),
    option("--unused", type=Duration(), help="Remove what was not used for so long, such as 90d."),
    option("--dry-run", is_flag=True, help="Only say what would be removed."),
    STORE,
)
def gc(
    output: Output, max_size: int | None, unused: int | None, dry_run: bool, **values: Any
) -> int:
    with opened({**values, "local_only": True}) as library:
        gone = library.store.collect(bytes_max=max_size, unused_seconds=unused, is_dry=dry_run)
        left = library.store.used_bytes - (sum(c.size for c in gone) if dry_run else 0)
    freed = sum(content.size for content in gone)
    if output.is_json:
        removed = [{"sha1": content.sha1.hex(), "size": content.size} for content in gone]
        output.json(
            {"type": "result", "removed": removed, "bytes": freed, "left": left, "dry": dry_run}
        )
        return 0
    for content in gone:
        output.answer(f"{content.sha1.hex()} {content.size}")
    word = "would be removed" if dry_run else "removed"
    output.note(
        f"{count(len(gone), 'object')}, {print_size(freed)} {word}; {print_size(left)} left"
    )
    return 0


@command(
    "Compare what the store holds with its hashes; all of it, or what LINKS name. What is wrong is "
    "moved aside.",
    click.argument("links", nargs=-1),
    STORE,
)
def verify(output: Output, links: tuple[str, ...], **values: Any) -> int:
    with opened({**values, "local_only": True}) as library:
        digests = [library.locate(link_of(library, text)).sha1 for text in links] or None
        checked = 0

        def on_each(*_each: object) -> None:
            nonlocal checked
            checked += 1
            output.progress(f"verifying {checked:,}")

        problems = library.store.verify(digests, on_each)
    output.end_progress()
    if output.is_json:
        wrong = [
            {"sha1": problem.sha1.hex(), "path": str(problem.path), "what": problem.what}
            for problem in problems
        ]
        output.json({"type": "result", "ok": not wrong, "checked": checked, "problems": wrong})
        return Corrupt.exit_status if wrong else 0
    for problem in problems:
        output.answer(f"{problem.sha1.hex()} {problem.what}: {problem.path}")
    output.note(f"{count(checked, 'object')} verified, {count(len(problems), 'problem')}")
    return Corrupt.exit_status if problems else 0


@command(
    "List what the store holds: SHA-1, size, whether it is pinned, where it comes from, its name.",
    STORE,
)
def list(output: Output, **values: Any) -> int:
    with opened({**values, "local_only": True}) as library:
        total = number = 0
        for content in library.store.list():
            total, number = total + content.size, number + 1
            if output.is_json:
                output.json(
                    {
                        "sha1": content.sha1.hex(),
                        "size": content.size,
                        "pinned": content.is_pinned,
                        "origin": content.origin,
                        "name": content.name,
                    }
                )
                continue
            pinned = "pinned" if content.is_pinned else ""
            output.answer(
                f"{content.sha1.hex()} {content.size:>14,} {pinned:<6} {content.origin:<7} "
                f"{printable(content.name)}"
            )
    output.note(f"{count(number, 'object')}, {print_size(total)}")
    return 0
