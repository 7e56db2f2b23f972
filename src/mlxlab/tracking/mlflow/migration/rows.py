"""Writes rows of the staged database."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.tracking.mlflow.migration.tables import Staged


def insert(database: sqlite3.Connection, table: str, **values: str | int | float | None) -> None:
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    database.execute(f"insert into {table} ({names}) values ({marks})", tuple(values.values()))


def insert_values(
    database: sqlite3.Connection, table: str, pairs: Mapping[str, str], **ids: str | int
) -> None:
    """A row with `key` and `value` for each pair."""
    for key, value in pairs.items():
        insert(database, table, key=key, value=value, **ids)


@contextmanager
def savepoint(database: sqlite3.Connection, staged: Staged, path: Path) -> Iterator[None]:
    """Takes back what the block wrote if `path` cannot be read, and reports that: the rest is moved."""
    database.execute("savepoint entry")
    try:
        yield
    except (DataError, InputNotFoundError, sqlite3.Error, ValueError, OSError) as error:
        database.execute("rollback to entry")
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        staged.skipped.append(f"{where}{' '.join(str(error).split())[:200]}")
    finally:
        database.execute("release entry")
