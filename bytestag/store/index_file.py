"""The index's file: one SQLite connection that threads share and forks do not (shell).

A torn file is moved aside and begun anew. Where the directory cannot be written to, the rows live
in memory; what only the user knows is refused then. A connection must not be carried into another
process, not even unused, so it is closed before a fork, and both open the file again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from bytestag.errors import NoSpace, StorageError

VERSION = 1
BUSY_SECONDS = 30.0
HINT = "give the store another place with BYTESTAG_STORE_DIR"
_TORN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_UNWRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)

_T = TypeVar("_T")


class IndexFile:
    """The connection, opened when it is first needed."""

    def __init__(self, path: Path, make: Callable[[sqlite3.Connection], None]) -> None:
        """``make`` makes the tables, within a transaction."""
        self._path = path
        self._make_tables = make
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._is_memory = False
        _files.add(self)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction that writes: no other process writes meanwhile."""
        with self._lock:
            connection = self._retried(_begin)
            try:
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                _roll_back(connection)
                raise _translated(error, self._path) from error
            except BaseException:
                _roll_back(connection)
                raise

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something with the connection, alone among the threads."""
        with self._lock:
            return self._retried(work)

    def _retried(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do something with the connection.

        If the file is torn, it is begun anew; if it cannot be written to, it goes on in memory.
        """
        try:
            return work(self._connected())
        except sqlite3.DatabaseError as error:
            if _primary(error) in _TORN:
                self._begin_anew()
            elif _primary(error) in _UNWRITABLE and not self._is_memory:
                self._go_to_memory()
            else:
                raise _translated(error, self._path) from error
        try:
            return work(self._connected())
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            with suppress(OSError):  # where it cannot be made, memory has to do
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = self._open(os.fspath(self._path))
        return self._connection

    def _open(self, name: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            name, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            version = _version(connection)
            if version > VERSION:
                raise StorageError(f"{name!r} was written by a later version of bytestag")
            if version < VERSION:
                self._make(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self, connection: sqlite3.Connection) -> None:
        with suppress(sqlite3.OperationalError):  # another process does it just now
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) < VERSION:
            self._make_tables(connection)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _begin_anew(self) -> None:
        """Move a torn file aside, unless another process did so meanwhile."""
        self.close()
        name = os.fspath(self._path)
        with suppress(ImportError, OSError), open(name + ".lock", "ab") as lock:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_whole(name):
                for suffix in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        os.replace(name + suffix, f"{name}.torn{suffix}")

    def _go_to_memory(self) -> None:
        connection, self._connection = self._connection, None
        memory = self._open(":memory:")
        if connection is not None:
            with closing(connection), suppress(sqlite3.Error):
                connection.backup(memory)
        self._connection, self._is_memory = memory, True

    def check_lasts(self) -> None:
        """Raise StorageError if what is written now would be lost with this process."""
        with self._lock:
            self._retried(_version)
            if not self._is_memory:
                with self.writing():
                    pass
            if self._is_memory:
                raise StorageError(
                    f"cannot write to the store {str(self._path.parent)!r}", hint=HINT
                )

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            connection, self._connection, self._is_memory = self._connection, None, False
            if connection is not None:
                connection.close()

    def before_fork(self) -> None:
        """Hold the lock, so that no other thread is at work, and close the file."""
        self._lock.acquire()
        if self._connection is not None and not self._connection.in_transaction:
            self.close()

    def after_fork(self) -> None:
        """Let the others go on."""
        self._lock.release()


_files: weakref.WeakSet[IndexFile] = weakref.WeakSet()
_forking: list[IndexFile] = []


def _before_fork() -> None:
    for file in list(_files):
        file.before_fork()
        _forking.append(file)


def _after_fork() -> None:
    while _forking:
        _forking.pop().after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )


def _begin(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("BEGIN IMMEDIATE")
    return connection


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _primary(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _is_whole(name: str) -> bool:
    try:
        with closing(sqlite3.connect(name, timeout=BUSY_SECONDS)) as connection:
            answer = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError:
        return False
    return bool(answer == ("ok",))


def _translated(error: sqlite3.Error, path: Path) -> StorageError:
    if _primary(error) == sqlite3.SQLITE_FULL:
        return NoSpace(f"no space left for {str(path)!r}", hint="free some space, run it again")
    return StorageError(f"the index {str(path)!r} failed: {error}")
