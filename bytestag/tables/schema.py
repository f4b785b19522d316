"""The database's tables and the numbered migrations that make them (pure).

One file (or PostgreSQL schema) serves all of a node's tables. Rows about values never hold their
bytes: those lie in ``blobs``, once for equal ones. The version is a row in ``schema_version``; each
migration runs in one transaction, for SQLite and PostgreSQL alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from bytestag import config
from bytestag.errors import StorageError

T = TypeVar("T")

metadata = sa.MetaData()

_Whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_Seconds: sa.types.TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
_Bytes = sa.LargeBinary
_Identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column(name: str, type_: sa.types.TypeEngine[T]) -> sa.Column[T]:
    return sa.Column(name, type_, nullable=False)


def _id() -> sa.Column[int]:
    return sa.Column("id", _Identity, primary_key=True, autoincrement=True)


schema_version = sa.Table(
    "schema_version", metadata, _column("version", _Whole), sqlite_strict=True
)

# --- Values held, for others and our own ---------------------------------------------------------

records = sa.Table(
    "records",
    metadata,
    _id(),  # grows: the oldest row first
    _column("key", _Bytes()),
    _column("sha1", _Bytes()),
    _column("blake3", _Bytes()),
    _column("size", _Whole),
    _column("timestamp", _Whole),
    _column("time_to_live", _Whole),
    _column("expires", _Whole),
    _column("last_update", _Whole),
    _column("standing", _Whole),
    _column("distance", _Whole),  # leading 63 bits of key XOR node key
    _column("deposit", _Bytes()),
    _column("depositor", _Bytes()),
    _column("address_group", sa.Text()),
    sa.Index("records_key", "key"),  # (key, sha1, blake3) is unique: writers take turns and look
    sa.Index("records_expires", "expires"),
    sa.Index("records_eviction", "standing", "distance"),
    sqlite_strict=True,
)
blobs = sa.Table(
    "blobs",
    metadata,
    _id(),
    sa.Column("blake3", _Bytes(), nullable=False, unique=True),
    _column("uses", _Whole),  # rows of ``records`` with these bytes
    _column("value", _Bytes()),
    sqlite_strict=True,
)
totals = sa.Table(  # of ``records``: by standing, by depositor and by address group
    "totals",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    _column("rows", _Whole),
    _column("cost", _Whole),
    sqlite_strict=True,
)

# --- What a node remembers -----------------------------------------------------------------------

due = sa.Table(
    "due",
    metadata,
    sa.Column("queue", sa.Text(), primary_key=True),
    sa.Column("key", _Bytes(), primary_key=True),
    sa.Column("sha1", _Bytes(), primary_key=True),
    sa.Column("blake3", _Bytes(), primary_key=True),
    _column("due_time", _Seconds),
    sa.Index("due_time_order", "queue", "due_time", "key", "sha1", "blake3"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
state = sa.Table(
    "state",
    metadata,
    sa.Column("name", sa.Text(), primary_key=True),
    _column("value", _Bytes()),
    sqlite_strict=True,
)
contacts = sa.Table(
    "contacts",
    metadata,
    sa.Column("node_id", _Bytes(), primary_key=True),
    _column("host", sa.Text()),
    _column("port", _Whole),
    _column("last_seen", _Seconds),
    _column("card", _Bytes()),
    sa.Index("contacts_last_seen", "last_seen"),
    sqlite_strict=True,
)
providers = sa.Table(
    "providers",
    metadata,
    _id(),
    _column("provider", _Bytes()),
    _column("prefix", _Bytes()),
    _column("seq", _Whole),
    _column("expires", _Whole),
    _column("addresses", _Bytes()),
    _column("record", _Bytes()),
    sa.UniqueConstraint("provider", "prefix"),
    sa.Index("providers_expires", "expires"),
    sqlite_strict=True,
)
provider_keys = sa.Table(
    "provider_keys",
    metadata,
    sa.Column("key", _Bytes(), primary_key=True),
    sa.Column("provider_row", _Whole, primary_key=True),
    sa.Index("provider_keys_row", "provider_row"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)

# --- Files shared in place -----------------------------------------------------------------------

shared_paths = sa.Table(
    "shared_paths",
    metadata,
    _id(),
    sa.Column("path", _Bytes(), nullable=False, unique=True),
    _column("manifest_size", _Whole),  # of a directory's manifest; 0 before the first scan
    _column("manifest_sha1", _Bytes()),
    _column("manifest_blake3", _Bytes()),
    _column("info_blake3", _Bytes()),  # of the manifest's FileInfo, where it is itself in parts
    # Digest of the empty directories in the manifest; empty if files have changed since.
    _column("described", _Bytes()),
    sqlite_strict=True,
)
shared_files = sa.Table(
    "shared_files",
    metadata,
    _id(),
    _column("share", _Whole),
    _column("path", _Bytes()),  # relative to the share; empty where the share is a file
    _column("size", _Whole),
    _column("mtime_ns", _Whole),
    _column("ctime_ns", _Whole),  # -1 unless the file once changed and its other time did not
    _column("inode", _Whole),
    _column("sha1", _Bytes()),
    _column("blake3", _Bytes()),
    _column("info_sha1", _Bytes()),
    _column("info_blake3", _Bytes()),
    _column("is_dirty", _Whole),  # 1: hash again, serve nothing; 2: for there were wrong bytes
    _column("timestamp", _Whole),
    sa.UniqueConstraint("share", "path"),
    sqlite_strict=True,
)
shared_parts = sa.Table(
    "shared_parts",
    metadata,
    sa.Column("file", _Whole, primary_key=True),
    sa.Column("number", _Whole, primary_key=True),
    _column("sha1", _Bytes()),
    _column("blake3", _Bytes()),
    _column("size", _Whole),
    sa.Index("shared_parts_sha1", "sha1", "blake3"),
    sqlite_strict=True,
    sqlite_with_rowid=False,
)
shared_values = sa.Table(  # infos, list values, manifests and their parts, each with its keys
    "shared_values",
    metadata,
    _id(),
    _column("share", _Whole),
    _column("file", _Whole),  # 0: belongs to the share itself
    _column("key", _Bytes()),
    _column("sha1", _Bytes()),
    _column("blake3", _Bytes()),
    _column("size", _Whole),
    _column("timestamp", _Whole),
    sa.Index("shared_values_key", "key", "sha1", "blake3"),
    sa.Index("shared_values_owner", "share", "file"),
    sa.Index("shared_values_blake3", "blake3"),
    sqlite_strict=True,
)
shared_blobs = sa.Table(
    "shared_blobs",
    metadata,
    sa.Column("blake3", _Bytes(), primary_key=True),
    _column("value", _Bytes()),
    sqlite_strict=True,
)


# --- Migrations ----------------------------------------------------------------------------------

Migration = Callable[[sa.Connection], None]


def _create_all(connection: sa.Connection) -> None:
    metadata.create_all(connection)
    connection.execute(
        sa.insert(totals),
        [{"name": f"standing/{standing}", "rows": 0, "cost": 0} for standing in range(4)],
    )


def _sum_replicas_by_group(connection: sa.Connection) -> None:
    name = sa.literal("replicas/") + records.c.address_group
    cost = sa.cast(sa.func.sum(records.c.size + config.RECORD_OVERHEAD_BYTES), sa.BigInteger())
    is_replica = records.c.standing == 1, records.c.address_group != ""
    sums = sa.select(name, sa.literal(0), cost).where(*is_replica)
    connection.execute(
        sa.insert(totals).from_select(
            ["name", "rows", "cost"], sums.group_by(records.c.address_group)
        )
    )


def _mark_described_shares(connection: sa.Connection) -> None:
    nothing = "x''" if connection.dialect.name == "sqlite" else "''"
    _add_column(connection, shared_paths.c.described, nothing)


def _keep_inode_times(connection: sa.Connection) -> None:
    _add_column(connection, shared_files.c.ctime_ns, "-1")


def _add_column(connection: sa.Connection, column: sa.Column[Any], default: str) -> None:
    """Add a column, unless the first migration made the table with it."""
    table = column.table.description
    if column.name not in {found["name"] for found in sa.inspect(connection).get_columns(table)}:
        kind = column.type.compile(connection.dialect)
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ADD COLUMN {column.name} {kind} NOT NULL DEFAULT {default}"
        )


MIGRATIONS: tuple[Migration, ...] = (
    _create_all,
    _sum_replicas_by_group,
    _mark_described_shares,
    _keep_inode_times,
)
"""Number n takes a database from version n to n + 1. Never change one; add one."""


def version(connection: sa.Connection) -> int:
    """Return the schema version of a database; 0 for an empty one."""
    if not sa.inspect(connection).has_table(schema_version.name):
        return 0
    return connection.execute(sa.select(sa.func.max(schema_version.c.version))).scalar() or 0


def migrate(connection: sa.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring a database to the newest schema; the caller's transaction holds all of it.

    Raises StorageError if the database was written by a newer bytestag.
    """
    found = version(connection)
    if found > len(migrations):
        raise StorageError(
            f"the database has schema {found}; this bytestag knows up to {len(migrations)}",
            hint="update bytestag, or start it with another state directory",
        )
    for number, migration in enumerate(migrations[found:], found + 1):
        migration(connection)
        schema_version.create(connection, checkfirst=True)
        connection.execute(sa.delete(schema_version))
        connection.execute(sa.insert(schema_version).values(version=number))
