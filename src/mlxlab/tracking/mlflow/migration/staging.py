"""The staged copy of a store: a new database with the schema of the installed MLflow, whose rows are checked."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from mlxlab.errors import DataError
from mlxlab.tracking.mlflow.migration.database import copy_rows
from mlxlab.tracking.mlflow.migration.file_store import read_file_store
from mlxlab.tracking.mlflow.migration.sources import Source
from mlxlab.tracking.mlflow.migration.tables import TABLES, Staged

MAX_TEXT = 2**20  # characters of one value
_TYPES = {"INTEGER": "'integer'", "BIGINT": "'integer'", "FLOAT": "'real'", "BOOLEAN": "'integer'"}
_RUN_ID = "length({0}) = 32 and {0} not glob '*[^0-9a-f]*'"  # it becomes the name of a folder
_MODEL_ID = "length({0}) = 34 and {0} glob 'm-*' and substr({0}, 3) not glob '*[^0-9a-f]*'"
_IDS = {"runs": ("run_uuid", _RUN_ID), "logged_models": ("model_id", _MODEL_ID)}


def stage(source: Source, empty: Path, folder: Path) -> Staged:
    """Copies a store into a database in `folder`; `empty` is one without rows.

    Raises:
        DataError: it is damaged, is not a store, or is of a newer MLflow.
    """
    staged = Staged(source, folder / "staged.db")
    shutil.copyfile(empty, staged.database)
    try:
        with closing(sqlite3.connect(staged.database, isolation_level=None)) as database:
            database.execute("pragma synchronous = off")
            database.execute("pragma trusted_schema = off")
            (copy_rows if source.is_database else read_file_store)(database, staged, folder)
            for table in TABLES:
                _check_rows(database, table)
    except sqlite3.Error as error:
        raise DataError(f"{source.path}: cannot be read as an MLflow store ({error})") from None
    except DataError as error:
        prefix = "" if str(error).startswith(str(source.path)) else f"{source.path}: "
        raise DataError(f"{prefix}{error}") from None
    return staged


def _check_rows(database: sqlite3.Connection, table: str) -> None:
    """SQLite lets any column hold anything: raises DataError for values of a wrong type, and for ids that are none."""
    faults = []
    for _, name, kind, *_ in database.execute(f"pragma table_info({table})"):
        expected = _TYPES.get(kind.partition("(")[0], "'text'")
        faults.append(f"typeof({name}) not in ({expected}, 'null') or length({name}) > {MAX_TEXT}")
    if table in _IDS:
        name, pattern = _IDS[table]
        faults.append(f"not ({pattern.format(name)})")
    (count,) = database.execute(
        f"select count(*) from {table} where {' or '.join(faults)}"
    ).fetchone()
    if count:
        raise DataError(
            f"{count} rows of {table} hold values of another type, or ids that MLflow does not make"
        )
