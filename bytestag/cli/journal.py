"""Which directories were made by which fetch, so that one run again goes on with them (shell).

A file of lines ``key path``, begun anew when it is large; losing it costs only that convenience.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from bytestag import basedir
from bytestag.errors import BytestagError
from bytestag.keys import KeyBytes

JOURNAL_BYTES_MAX = 256 * 1024
_logger = logging.getLogger(__name__)


class Journal:
    """The journal of a state directory's fetches."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def has(self, key: KeyBytes, dest: Path) -> bool:
        """Return whether a fetch of a key made this directory."""
        try:
            return _line(key, dest) in self._path.read_bytes().split(b"\0")
        except OSError:
            return False

    def note(self, key: KeyBytes, dest: Path) -> None:
        """Remember that a fetch of a key makes this directory."""
        if self.has(key, dest):
            return
        try:
            basedir.ensure(self._path.parent)
            is_large = self._path.exists() and self._path.stat().st_size > JOURNAL_BYTES_MAX
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if is_large else os.O_APPEND)
            fd = os.open(self._path, flags, 0o600)
            try:
                os.write(fd, _line(key, dest) + b"\0")
            finally:
                os.close(fd)
        except (OSError, BytestagError) as error:
            _logger.debug("! the journal of fetches: %s", error)


def _line(key: KeyBytes, dest: Path) -> bytes:
    return f"{key.base16} ".encode() + os.fsencode(dest)
