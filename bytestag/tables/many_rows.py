"""Many rows with one statement, in either dialect (shell around SQL).

For the rows of a scan, which come by the hundred thousand: SQLAlchemy looks at each value of each
row, and the driver runs a statement for each row and takes Python's lock as often. Names come from
:mod:`bytestag.tables.schema`, values go beside the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import sqlalchemy as sa

T = TypeVar("T")
ROWS_PER_STATEMENT = 256  # of 11 values: SQLite takes 32,766, PostgreSQL twice as many


def insert_many(
    connection: sa.Connection,
    columns: Sequence[sa.Column[Any]],
    rows: Iterable[tuple[Any, ...]],
    ending: str = "",
) -> list[tuple[Any, ...]]:
    """Insert rows with the values of ``columns``; return what a RETURNING in ``ending`` gives."""
    table = columns[0].table
    names = ", ".join(column.name for column in columns)
    row_marks = marks(connection, len(columns))
    returned: list[tuple[Any, ...]] = []
    for chunk in chunks(rows, ROWS_PER_STATEMENT):
        all_marks = ", ".join([row_marks] * len(chunk))
        statement = f"INSERT INTO {table} ({names}) VALUES {all_marks}{ending}"  # noqa: S608
        done = connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk)))
        if done.returns_rows:
            returned += map(tuple, done)
    return returned


def marks(connection: sa.Connection, count: int) -> str:
    """Return what stands for a tuple of so many values in a statement for the driver."""
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    return f"({', '.join([mark] * count)})"


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` items."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
