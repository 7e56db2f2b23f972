"""Repairs the addresses of artifacts in a store that was moved or copied with them.

MLflow keeps absolute addresses. The experiment `Default`, which `sqlite.ensure_database` creates, tells where the
artifacts were.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from mlxlab.tracking.mlflow.address import Address, local_path

BUSY_SECONDS = 20.0
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_TAGS = (("trace_tags", "mlflow.artifactLocation"),)
_FOLDERS = (("tags", "mlxlab.folder"),)


def repair_locations(address: Address) -> int:
    """Rewrites the addresses below the old root, if the artifacts are at the new one; returns how many were changed.

    A store that cannot be read or written is left as it is: opening it reports that.
    """
    if address.database is None or not (address.artifacts or "").startswith("/"):
        return 0
    new = Path(address.artifacts or "")
    with suppress(sqlite3.Error), closing(_connect(address.database, "ro")) as database:
        old = _old_root(database)
        if old is None or old == new or not _has_moved(database, old, new, address.database):
            return 0
        with closing(_connect(address.database, "rw")) as writable:
            return _rewrite(writable, old, new)
    return 0


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _old_root(database: sqlite3.Connection) -> Path | None:
    """The folder of artifacts when the store was created; None if another program created it."""
    row = database.execute(
        "select artifact_location from experiments where experiment_id = 0"
    ).fetchone()
    path = row and _path(row[0])
    return Path(path).parent if path and path.endswith("/0") else None


def _has_moved(database: sqlite3.Connection, old: Path, new: Path, store: Path) -> bool:
    """Whether the artifacts are at `new`: the store was moved, so that `old` is gone, or it is a copy."""
    rows = database.execute("select artifact_location from experiments").fetchall()
    paths = [path for (location,) in rows if (path := _path(location))]
    names = [os.path.relpath(path, old) for path in paths if _is_below(path, old)]
    if not any((new / name).is_dir() for name in names):
        return False
    return not old.exists() or (old.parent / store.name).is_file()


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> int:
    database.create_function("moved", 1, _mover(old, new), deterministic=True)
    database.create_function(
        "moved_folder", 1, _mover(old.parents[1], new.parents[1]), deterministic=True
    )
    database.execute("begin immediate")
    changed = 0
    for table, column in _COLUMNS:
        query = (
            f"update {table} set {column} = moved({column}) where {column} is not moved({column})"
        )
        changed += database.execute(query).rowcount
    same_layout = old.parts[-2:] == new.parts[-2:]
    for call, pairs in (("moved", _TAGS), ("moved_folder", _FOLDERS if same_layout else ())):
        for table, key in pairs:
            query = f"update {table} set value = {call}(value) where key = ? and value is not {call}(value)"
            changed += database.execute(query, (key,)).rowcount
    database.execute("commit")
    return changed


def _mover(old: Path, new: Path) -> Callable[[str | None], str | None]:
    def moved(location: str | None) -> str | None:
        path = _path(location)
        if path is None or not _is_below(path, old):
            return location
        target = f"{new}{path[len(str(old)) :]}"
        # As a URI if the path holds characters that MLflow would parse.
        return Path(target).as_uri() if set(target) & set("%?#") else target

    return moved


def _path(location: str | None) -> str | None:
    """The absolute path of a local location, else None."""
    path = local_path(location) if isinstance(location, str) else None
    return str(path) if path and path.is_absolute() else None


def _is_below(path: str, folder: Path) -> bool:
    return path.startswith(f"{folder}/")
