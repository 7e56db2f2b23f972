"""Repairs the addresses of artifacts in a store that was moved or copied with them.

MLflow keeps absolute addresses. The experiment `Default`, which `store.create_database` creates, tells where the
artifacts were.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from mlxlab.tracking.mlflow.address import Address, local_path, location_of

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
_REPLACE = """
update {table} set {column} = :new || substr({column}, length(iif({column} like 'file:%', :uri, :old)) + 1)
where {rows} and (substr({column}, 1, length(:old) + 1) = :old || '/'
    or substr({column}, 1, length(:uri) + 1) = :uri || '/')
"""


def repair_locations(address: Address) -> int:
    """Rewrites the addresses below the old root, if the artifacts are at the new one; returns how many were changed.

    A store that cannot be read or written is left as it is: opening it reports that.
    """
    if address.database is None or not (address.artifacts or "").startswith("/"):
        return 0
    new = Path(address.artifacts or "")
    uri = f"file:{quote(str(address.database))}?mode=rw"
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as database,
        database,
    ):
        query = "select artifact_location from experiments order by experiment_id"
        locations = [local_path(row[0] or "") for row in database.execute(query).fetchall()]
        default = locations[0] if locations else None
        if default is None or default.name != "0" or not default.is_absolute():
            return 0  # Another program created it.
        old = default.parent
        if old == new or not _has_moved(locations, old, new, address.database):
            return 0
        return _rewrite(database, old, new)
    return 0


def _has_moved(locations: list[Path | None], old: Path, new: Path, store: Path) -> bool:
    """Whether the artifacts are at `new`: the store was moved, so that `old` is gone, or it is a copy."""
    if old.exists() and not (old.parent / store.name).is_file():
        return False
    below = [path.relative_to(old) for path in locations if path and path.is_relative_to(old)]
    return any((new / path).is_dir() for path in below)


def _rewrite(database: sqlite3.Connection, old: Path, new: Path) -> int:
    if len(old.parts) > 3 and old.parts[-2:] == new.parts[-2:]:
        old = old.parents[1]  # The project moved, with the run folders.
        new = new.parents[1]
    values = {"old": str(old), "uri": old.as_uri(), "new": location_of(str(new))}
    changed = 0
    for table, column, rows in _COLUMNS:
        query = _REPLACE.format(table=table, column=column, rows=rows)
        changed += database.execute(query, values).rowcount
    return changed
