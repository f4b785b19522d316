"""Names of content: links of every form, ``.prv`` files, paths (shell: it looks at the disk)."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bytestag.errors import NotFound
from bytestag.uri import Link

PRV_BYTES_MAX = 1024 * 1024
_LINK = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|magnet:|kachery:", re.IGNORECASE)
_BARE = re.compile(r"[0-9a-fA-F]{40}")


def read_name(name: str | os.PathLike[str]) -> Link | Path:
    """Return the link or the path that a name is; a ``.prv`` file stands for its link.

    Raises:
        UsageError: it is a link, but malformed.
        NotFound: it is no link, and nothing has that path.
        FormatError: a ``.prv`` file that is none.
    """
    text = os.fspath(name)
    if isinstance(name, str) and _LINK.match(text.strip()):
        return Link.parse(text)
    path = Path(os.path.expanduser(text))
    if os.path.exists(path):  # Path.exists would raise for some
        return _from_prv(path) if path.suffix == ".prv" and path.is_file() else path
    if _BARE.fullmatch(text.strip()):
        return Link.parse(text)
    raise NotFound(
        f"no such file, and no link: {text[:200]!r}",
        hint="a link looks like sha1://2fd4e1c6…/name",
    )


def _from_prv(path: Path) -> Link:
    from bytestag.models.prv import PrvFile

    with path.open("rb") as file:
        return PrvFile.from_bytes(file.read(PRV_BYTES_MAX + 1)).link(path.stem)
