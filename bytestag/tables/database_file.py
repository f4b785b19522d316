"""SQLite's file: looked at after an unclean end, made smaller for a smaller quota (shell)."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

VACUUM_PAGES = 512  # in one transaction: 4 MiB of log
_logger = logging.getLogger(__name__)


def set_aside_if_broken(path: Path) -> None:
    """Check a file that was not closed; if it is broken give it another name.

    A log that is not empty tells: closing cuts it. A file that is set aside replaces an older one.
    """
    try:
        if not path.stat().st_size or not _with_suffix(path, "-wal").stat().st_size:
            return
    except FileNotFoundError:
        return
    _logger.info("= %s was not closed: checking it", path)
    found = faults(path)
    if not found:
        return
    aside = _with_suffix(path, ".bad")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            _with_suffix(path, suffix).replace(_with_suffix(aside, suffix))
    _logger.error(
        "! %s is broken (%s): it is now %s, and a new one begins empty",
        path,
        found[0],
        aside,
    )


def vacuum(connection: sqlite3.Connection, pages_max: int) -> bool:
    """Give the disk some of the free pages beyond ``pages_max``; return whether there were any."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    surplus = min(pages - pages_max, free, VACUUM_PAGES)
    for _page in range(surplus):  # one page is what a statement without rows frees here
        connection.execute("PRAGMA incremental_vacuum(1)")
    connection.execute(f"PRAGMA max_page_count={pages_max}").fetchone()  # not below what there is
    return surplus > 0


def faults(path: Path) -> list[str]:
    """Return what SQLite finds wrong; what keeps it from looking is for who opens the file next."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            found = [str(line) for (line,) in connection.execute("PRAGMA quick_check(100)")]
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        return [str(error)] if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) else []
    return [] if found == ["ok"] else found


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
