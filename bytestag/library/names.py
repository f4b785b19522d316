"""Names of content: links of every form, paths, and ``.prv`` and ``.prvdir`` files, which stand for
what they describe (shell: it looks at the disk).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bytestag.errors import NotFound, StorageError, UsageError
from bytestag.uri import Link

if TYPE_CHECKING:
    from bytestag.models.prv import PrvDirectory, PrvFile

POINTER_SUFFIXES = (".prv", ".prvdir")
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|magnet:|kachery:", re.IGNORECASE)
_BARE = re.compile(r"[0-9a-fA-F]{40}")


def read_name(name: str | os.PathLike[str]) -> Link | Path:
    """Return the link or the path that a name is.

    Raises:
        UsageError: it is a link, but malformed.
        NotFound: it is no link, and nothing has that path.
    """
    text = os.fspath(name)
    if isinstance(name, str) and _LINK.match(text.strip()):
        return Link.parse(text)
    path = Path(os.path.expanduser(text))
    if os.path.exists(path):  # Path.exists would raise for some
        return path
    if _BARE.fullmatch(text.strip()):
        return Link.parse(text)
    raise NotFound(
        f"no such file, and no link: {text[:200]!r}",
        hint="a link looks like sha1://2fd4e1c6…/name",
    )


def is_pointer(path: Path) -> bool:
    """Return whether a path is that of a ``.prv`` or ``.prvdir`` file, by its name."""
    return path.name.lower().endswith(POINTER_SUFFIXES) and not path.is_dir()


def read_pointer(path: Path) -> PrvFile | PrvDirectory:
    """Read a ``.prv`` or ``.prvdir`` file. Raises UsageError, StorageError, FormatError."""
    from bytestag.models.directory import MANIFEST_BYTES_MAX
    from bytestag.models.prv import read_prv

    try:
        with open(path, "rb") as file:
            return read_prv(file.read(MANIFEST_BYTES_MAX + 1))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(
            f"there is no file {str(path)!r}", hint="make one with `bytestag prv PATH OUT`"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read {str(path)!r}: {error.strerror}") from error


def pointer_link(path: Path, pointer: PrvFile | PrvDirectory) -> Link:
    """Return the link for what is meant: its name is that of the file without its suffix."""
    from bytestag.models.prv import PrvDirectory

    if not isinstance(pointer, PrvDirectory):
        return pointer.link(path.stem)
    return Link("sha1", pointer.manifest().hash, path.stem, "d", hints=pointer.all_hints())
