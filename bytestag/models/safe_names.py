"""Which names from a manifest may become files here (pure).

A manifest is written by a stranger. A name in it must be one name on every system: it must not
leave the directory, hide, change what a terminal shows, open a device, or be the same file as its
neighbour where case or Unicode form does not count.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from bytestag.errors import FormatError

INCOMPLETE_SUFFIX = ".bytestag-incomplete"
"""Ends the names of files that are being fetched."""
NAME_BYTES_MAX = 255  # of Linux, macOS and Windows alike
DEPTH_MAX = 32

# C0 and C1 controls and DEL; then what reorders text on screen (Unicode, annex 9).
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:[ .:]|\Z)", re.IGNORECASE
)
_PLAIN = re.compile(
    r"(?!con|prn|aux|nul|com|lpt)\w(?:[\w.-]{0,200}\w)?(?<!-incomplete)",
    re.IGNORECASE | re.ASCII,
)
"""Nearly all names there are, of which nothing more needs to be asked."""


def check_component(name: str) -> None:
    """Raise FormatError unless ``name`` is safe as the name of one file or directory."""
    problem = None if _PLAIN.fullmatch(name) else _problem(name)
    if problem is not None:
        raise FormatError(f"the name {name[:80]!a} {problem}")


def check_path(path: Sequence[str]) -> None:
    """Raise FormatError unless each component is safe and the path is not too deep."""
    if not 0 < len(path) <= DEPTH_MAX:
        raise FormatError(f"a path has 1 to {DEPTH_MAX} components, not {len(path)}")
    for name in path:
        check_component(name)


def check_tree(paths: Iterable[Sequence[str]], directories: Iterable[Sequence[str]] = ()) -> None:
    """Raise FormatError unless all these files, and empty directories, can exist together.

    Refused beside unsafe names: a path twice, a file where a directory must be, and two names that
    differ only in case or Unicode form.
    """
    known_directories: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}
    folded_of: dict[tuple[str, ...], tuple[str, ...]] = {(): ()}
    files: dict[tuple[str, ...], tuple[str, ...]] = {}

    def directory(path: tuple[str, ...]) -> tuple[str, ...]:
        """Check a directory with its parents, once; return its folded path."""
        if path not in folded_of:
            check_path(path)
            folded = (*directory(path[:-1]), fold(path[-1]))
            other = known_directories.setdefault(folded, path)
            if other != path:
                raise _clash(path, other)
            folded_of[path] = folded
        return folded_of[path]

    for path in map(tuple, paths):
        if not 0 < len(path) <= DEPTH_MAX:
            check_path(path)
        parent = directory(path[:-1])
        check_component(path[-1])
        folded = (*parent, fold(path[-1]))
        if folded in files:
            raise _clash(path, files[folded])
        files[folded] = path
    for path in map(tuple, directories):
        directory(path)
    for folded in files.keys() & known_directories.keys():
        raise _clash(files[folded], known_directories[folded])


def fold(name: str) -> str:
    """Return the form in which names are equal where neither case nor Unicode form counts."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: str) -> str | None:
    if name in ("", ".", ".."):
        return "is not a name"
    if "/" in name or "\\" in name:
        return "has a path separator in it"
    if _CONTROLS.search(name):
        return "has a control character in it"
    if fold(name).endswith(INCOMPLETE_SUFFIX):
        return "is kept for files that are not whole"
    if name[-1] in " .":
        return "ends in a dot or space"
    if _DEVICE.match(name):
        return "is a device on Windows"
    if name.isascii():
        return None if len(name) <= NAME_BYTES_MAX else f"has more than {NAME_BYTES_MAX} bytes"
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not Unicode"
    if length > NAME_BYTES_MAX:
        return f"has more than {NAME_BYTES_MAX} bytes"
    if not unicodedata.is_normalized("NFC", name):
        return "is not in Unicode form NFC"
    return None


def _clash(path: Sequence[str], other: Sequence[str]) -> FormatError:
    return FormatError(
        f"{ascii('/'.join(path))[:200]} and {ascii('/'.join(other))[:200]} cannot both exist"
    )
