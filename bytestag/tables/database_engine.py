"""Database: one SQLite file or PostgreSQL schema, one writer thread, many readers (shell).

Writes are jobs: functions of a connection, run in order by the writer thread. Jobs that wait
together share a transaction, up to 256 values and 4 MiB, so that one flush to disk serves many
callers; :meth:`Database.write` returns after the commit. If a shared transaction fails, each of its
jobs is run again alone, so a job may run twice, but only once with effect.

SQLite runs in WAL mode with ``synchronous=FULL`` (NORMAL loses acknowledged values at a power cut).
The writer alone checkpoints, readers open the file read-only and briefly: before 3.51.3 SQLite may
damage a file that two connections write and checkpoint at one moment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from bytestag.config import KIB, MIB
from bytestag.errors import NoSpace, StorageError
from bytestag.tables import database_file, schema

T = TypeVar("T")
_logger = logging.getLogger(__name__)

BATCH_VALUES_MAX = 256  # a small row dirties some 3 pages of indexes: 6 MiB of log
BATCH_BYTES_MAX = 4 * MIB
WAL_PASSIVE_BYTES = 4 * MIB  # copy pages home, without waiting for readers
WAL_TRUNCATE_BYTES = 8 * MIB  # and cut the file, waiting for them
BUSY_MILLISECONDS = 5000
PAGE_BYTES = 8 * KIB  # halves the system calls for a part, beside 4 KiB; 16 gains nothing
READERS_MAX = 8
MIGRATION_LOCK = 0x62797465  # PostgreSQL's advisory lock; "byte"

_WRITER_PRAGMAS = (
    f"PRAGMA page_size={PAGE_BYTES}",
    "PRAGMA auto_vacuum=INCREMENTAL",  # before the first table, or it has no effect
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA wal_autocheckpoint=0",
    f"PRAGMA journal_size_limit={WAL_PASSIVE_BYTES}",
)
_COMMON_PRAGMAS = (
    f"PRAGMA busy_timeout={BUSY_MILLISECONDS}",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA mmap_size=0",
)


@dataclass(slots=True)
class _Job:
    work: Callable[[sa.Connection], Any]
    future: Future[Any]
    values: int
    size: int


class Database:
    """An open database.

    ``url`` is a path (SQLite) or ``postgresql://…``. ``file_bytes_max`` bounds the SQLite file;
    beyond it writes raise NoSpace.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        file_bytes_max: int | None = None,
        migrations: Sequence[schema.Migration] = schema.MIGRATIONS,
    ) -> None:
        self.path = _sqlite_path(url)
        self.is_sqlite = self.path is not None
        self._pages_max: int | None = None
        if file_bytes_max is not None and self.is_sqlite:
            self._pages_max = max(16, file_bytes_max // PAGE_BYTES)
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._held_over: _Job | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        if self.path is not None:
            self._writer, self._readers = self._sqlite_engines(self.path)
        else:
            self._writer = sa.create_engine(
                _postgres_url(str(url)), pool_size=READERS_MAX, pool_pre_ping=True
            )
            self._readers = self._writer.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        try:
            self._migrate(migrations)
        except BaseException:
            self._dispose()
            raise
        self._thread = threading.Thread(target=self._run, name="bytestag-database", daemon=True)
        self._thread.start()

    # --- Reading and writing ---------------------------------------------------------------------

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for a few short queries that see one state; it cannot write."""
        with _translated(), self._readers.connect() as connection:
            yield connection

    def write(self, work: Callable[[sa.Connection], T], *, values: int = 1, size: int = 0) -> T:
        """Run ``work`` in the writer thread; return its result after the commit.

        Raises NoSpace or StorageError, and then nothing of it is stored.
        """
        return self.submit(work, values=values, size=size).result()

    def submit(
        self, work: Callable[[sa.Connection], T], *, values: int = 1, size: int = 0
    ) -> Future[T]:
        """Queue ``work`` like :meth:`write`, without waiting for the commit."""
        job = _Job(work, Future(), values, size)
        with self._lock:
            if self._is_closed:
                raise StorageError("the database is closed")
            self._queue.put(job)
        return job.future

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """Return an INSERT that knows ON CONFLICT, in this database's dialect."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def close(self) -> None:
        """Finish waiting writes, checkpoint and close; idempotent."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()
        self._dispose()

    # --- SQLite's file ---------------------------------------------------------------------------

    @property
    def is_at_page_limit(self) -> bool:
        """Whether the last NoSpace came from ``file_bytes_max`` and not from the disk."""
        if self._pages_max is None:
            return False
        free_bytes = BATCH_BYTES_MAX // PAGE_BYTES
        with self.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return bool(pages + free_bytes >= self._pages_max)

    def give_back(self) -> None:
        """Give the disk the free pages that a smaller ``file_bytes_max`` leaves no room for."""
        pages_max = self._pages_max
        if pages_max is not None:
            while self.write(lambda _: database_file.vacuum(self._driver_connection(), pages_max)):
                pass

    def quick_check(self) -> list[str]:
        """Return what SQLite finds wrong with its file; PostgreSQL looks after itself."""
        if not self.is_sqlite:
            return []
        try:
            with self.read() as connection:
                found = connection.exec_driver_sql("PRAGMA quick_check(100)").scalars().all()
        except StorageError as error:
            return [error.message]
        return [] if found == ["ok"] else [str(line) for line in found]

    def _sqlite_engines(self, path: Path) -> tuple[sa.Engine, sa.Engine]:
        path.parent.mkdir(parents=True, exist_ok=True)
        database_file.set_aside_if_broken(path)
        writer = sa.create_engine(
            "sqlite://", creator=_opener(path, "rwc"), poolclass=sa.StaticPool
        )
        readers = sa.create_engine(
            "sqlite://",
            creator=_opener(path, "ro"),
            poolclass=sa.QueuePool,
            pool_size=READERS_MAX,
        )
        limit = () if self._pages_max is None else (f"PRAGMA max_page_count={self._pages_max}",)
        _prepare(writer, "BEGIN IMMEDIATE", (*_COMMON_PRAGMAS, *_WRITER_PRAGMAS, *limit))
        _prepare(readers, "BEGIN", (*_COMMON_PRAGMAS, "PRAGMA query_only=ON"))
        return writer, readers

    def _migrate(self, migrations: Sequence[schema.Migration]) -> None:
        with _translated(), self._writer.begin() as connection:
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            schema.migrate(connection, migrations)

    def _checkpoint(self, *, is_idle: bool = False) -> None:
        """Bound the write-ahead log; failing only leaves it longer until the next time."""
        if self.path is None:
            return
        try:
            wal_bytes = self.path.with_name(self.path.name + "-wal").stat().st_size
            if wal_bytes < (WAL_PASSIVE_BYTES if not is_idle else 1):
                return
            mode = "TRUNCATE" if is_idle or wal_bytes >= WAL_TRUNCATE_BYTES else "PASSIVE"
            self._driver_connection().execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except (OSError, sqlite3.Error, SQLAlchemyError) as error:
            _logger.debug("! checkpoint failed: %s", error)

    def _driver_connection(self) -> sqlite3.Connection:
        pooled = self._writer.raw_connection()
        try:
            return cast(sqlite3.Connection, pooled.driver_connection)
        finally:
            pooled.close()  # returns it to the static pool, which keeps it open

    # --- The writer thread -----------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._next_batch()
            self._commit([job for job in batch if job.future.set_running_or_notify_cancel()])
            self._checkpoint(is_idle=is_last)

    def _next_batch(self) -> tuple[list[_Job], bool]:
        """Wait for a job; return it with those behind it that fit, and whether it is the end."""
        job = self._held_over or self._queue.get()
        self._held_over = None
        batch: list[_Job] = []
        values = size = 0
        while job is not None:
            values, size = values + job.values, size + job.size
            if batch and (values > BATCH_VALUES_MAX or size > BATCH_BYTES_MAX):
                self._held_over = job
                return batch, False
            batch.append(job)
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: list[_Job]) -> None:
        if not batch:
            return
        try:
            with _translated(), self._writer.begin() as connection:
                results = [job.work(connection) for job in batch]
        except BaseException as error:
            if len(batch) > 1:
                for job in batch:
                    self._commit([job])
            else:
                batch[0].future.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)

    def _dispose(self) -> None:
        self._writer.dispose()
        self._readers.dispose()


def _opener(path: Path, mode: str) -> Callable[[], sqlite3.Connection]:
    """Return a function that opens a file; the name goes through no URL of SQLAlchemy's."""
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}"
    seconds = BUSY_MILLISECONDS / 1000
    return lambda: sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=seconds)


def _prepare(engine: sa.Engine, begin: str, pragmas: Sequence[str]) -> None:
    """Take transactions out of sqlite3's hands, which would begin them late and deferred."""

    @sa.event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma).fetchall()

    @sa.event.listens_for(engine, "begin")
    def on_begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the database's errors into ours; this folder owns SQLAlchemy."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        if _is_full(cause):
            raise NoSpace(
                f"no space left for the database: {cause}",
                hint="free some disk space or lower the cache size",
            ) from error
        raise StorageError(
            f"the database failed: {cause}", hint="look at the disk and at the system log"
        ) from error


def _is_full(cause: BaseException) -> bool:
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    if isinstance(cause, OSError):
        return cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(cause, "sqlstate", None) == "53100"  # PostgreSQL's disk_full


def _sqlite_path(url: str | Path) -> Path | None:
    if isinstance(url, Path):
        return url
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///"))
    return None if "://" in url else Path(url)


def _postgres_url(url: str) -> sa.URL:
    return sa.make_url(url).set(drivername="postgresql+psycopg")
