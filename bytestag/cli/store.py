"""``bytestag store``: content by its hash, kept here (composition)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bytestag.cli.library import opened, report_to
from bytestag.cli.options import STORE, absolute_path, command, option
from bytestag.cli.output import Output
from bytestag.cli.values import count, print_size
from bytestag.errors import UsageError


@command(
    "Copy files and directories into the store; print a link for each, sha1://… or sha1dir://… . "
    "With --link they stay where they are, and count as long as they do not change.",
    click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path)),
    option(
        "-a",
        "--algorithm",
        type=click.Choice(["sha1", "md5"]),
        default="sha1",
        show_default=True,
        help="Which hash the link names.",
    ),
    option("--label", metavar="NAME", help="What the link calls it, instead of its name."),
    option("--link", is_flag=True, help="Do not copy: know the files where they are."),
    option("--use-hard-links", is_flag=True, help="Store by hard links where that can be."),
    option("--git-annex-mode", is_flag=True, help="Skip .git and .datalad; read annexed files."),
    STORE,
)
def store(
    output: Output,
    paths: tuple[Path, ...],
    algorithm: str,
    label: str | None,
    link: bool,
    use_hard_links: bool,
    git_annex_mode: bool,
    **values: Any,
) -> int:
    from bytestag.library.config import LibraryConfig
    from bytestag.library.telling import tell_node
    from bytestag.uri import Link

    if label is not None and len(paths) > 1:
        raise UsageError("--label is for one path", hint="store them one by one")
    with opened({**values, "local_only": True}) as library:
        for given in paths:
            path = absolute_path(given)
            name = label or path.name
            tick = _ticking(output, path)
            if path.is_dir():
                if algorithm != "sha1":
                    raise UsageError("a directory has a sha1dir:// link only")
                manifest, content = library.store.add_directory(
                    path, git_annex=git_annex_mode, is_linked=link, tick=tick
                )
                uri = Link("sha1dir", content.sha1, name, "d")
                sizes = [entry.size for _, entry in manifest.entries()]
                found = {"type": "directory", "files": len(sizes), "size": sum(sizes)}
            else:
                algorithms = ("sha1",) if algorithm == "sha1" else ("sha1", "md5")
                content = library.store.add_file(
                    path,
                    algorithms=algorithms,
                    is_linked=link,
                    use_hard_links=use_hard_links,
                    tick=tick,
                )
                uri = Link(algorithm, getattr(content, algorithm), name)
                found = {"type": "file", "files": 1, "size": content.size}
            output.end_progress()
            _say(output, str(uri), content.blake3, found)
    tell_node(LibraryConfig.from_environment().state_dir)
    return 0


def _ticking(output: Output, path: Path) -> Any:
    report, done = report_to(output, f"storing {path.name}"), 0
    total = path.stat().st_size if path.is_file() else 0

    def tick(size: int) -> None:
        nonlocal done
        done += size
        report(done, max(total, done), 0)

    return tick


def _say(output: Output, link: str, blake3: bytes, found: dict[str, Any]) -> None:
    if output.is_json:
        output.json({"type": "result", "link": link, "blake3": blake3.hex(), "stored": found})
        return
    output.answer(link)
    files = f"{count(found['files'], 'file')}, " if found["type"] == "directory" else ""
    output.note(f"stored {files}{print_size(found['size'])}")
