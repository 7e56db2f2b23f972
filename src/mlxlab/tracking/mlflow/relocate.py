"""Repairs the addresses of artifacts in a store that was moved or copied with them.

MLflow keeps absolute addresses. The experiment `Default`, which `sqlite.ensure_database` creates, tells where the
artifacts were.
"""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from mlxlab.tracking.mlflow.address import Address, local_path

BUSY_SECONDS = 20.0
_COLUMNS = (  # table, column, which rows
    ("experiments", "artifact_location", "true"),
    ("runs", "artifact_uri", "true"),
    ("logged_models", "artifact_location", "true"),
    ("model_versions", "source", "true"),
    ("model_versions", "storage_location", "true"),
    ("trace_tags", "value", "key = 'mlflow.artifactLocation'"),
    ("tags", "value", "key = 'mlxlab.folder'"),
)


def repair_locations(address: Address) -> int:
    """Rewrites the addresses below the old root, if the artifacts are at the new one; returns how many were changed.

    A store that cannot be read or written is left as it is: opening it reports that.
    """
    if address.database is None or not (address.artifacts or "").startswith("/"):
        return 0
    new = Path(address.artifacts or "")
    with suppress(sqlite3.Error):
        with closing(_connect(address.database, "ro")) as database:
            old = _old_root(database)
            if old is None or old == new or not _has_moved(database, old, new, address.database):
                return 0
        with closing(_connect(address.database, "rw")) as database, database:
            return _rewrite(database, old, new)
    return 0


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)


def _old_root(database: sqlite3.Connection) -> Path | None:
    """The folder of artifacts when the store was created; None if another program created it."""
    query = "select artifact_location from experiments where experiment_id = 0"
    row = database.execute(query).fetchone()
    path = row and _path(row[0])
    return Path(path).parent if path and path.endswith("/0") else None


def _has_moved(database: sqlite3.Connection, old: Path, new: Path, store: Path) -> bool:
    """Whether the artifacts are at `new`: the store was moved, so that `old` is gone, or it is a copy."""
    is_there = False
    for (location,) in database.execute("select artifact_location from experiments"):
        path = _path(location)
        if path and _is_below(path, old):
            is_there |= (new / os.path.relpath(path, old)).is_dir()
    return is_there and (not old.exists() or (old.parent / store.name).is_file())


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> int:
    roots = {old: new}
    if len(old.parts) > 3 and old.parts[-2:] == new.parts[-2:]:
        roots[old.parents[1]] = new.parents[1]  # the project folders, with the run folders

    def moved(location: str | None) -> str | None:
        path = _path(location)
        for source, target in roots.items():
            if path and _is_below(path, source):
                text = f"{target}{path.removeprefix(str(source))}"
                # As a URI if the path holds characters that MLflow would parse.
                return Path(text).as_uri() if set(text) & set("%?#") else text
        return location

    database.create_function("moved", 1, moved, deterministic=True)
    changed = 0
    for table, column, rows in _COLUMNS:
        where = f"{rows} and {column} is not moved({column})"
        changed += database.execute(
            f"update {table} set {column} = moved({column}) where {where}"
        ).rowcount
    return changed


def _path(location: str | None) -> str | None:
    """The absolute path of a local location, else None."""
    path = local_path(location) if isinstance(location, str) else None
    return str(path) if path and path.is_absolute() else None


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(f"{folder}/")
