"""Reads a registered model of a file store: its versions, tags and aliases."""

import sqlite3
from pathlib import Path

from mlxlab.errors import DataError
from mlxlab.tracking.mlflow.migration.entries import values
from mlxlab.tracking.mlflow.migration.meta import read_meta
from mlxlab.tracking.mlflow.migration.rows import insert


def read_registry(database: sqlite3.Connection, folder: Path) -> None:
    """Adds the model in `folder` (below `models/`) to the staged database; raises DataError and sqlite3.Error."""
    meta = read_meta(folder / "meta.yaml")
    name = meta.text("name") or folder.name
    insert(
        database,
        "registered_models",
        name=name,
        creation_time=meta.integer("creation_timestamp"),
        last_updated_time=meta.integer("last_updated_timestamp"),
        description=meta.text("description"),
    )
    for key, value in values(folder / "tags").items():
        insert(database, "registered_model_tags", name=name, key=key, value=value)
    for version in sorted(folder.glob("version-*")):
        _version(database, version, name)
    for alias, number in values(folder / "aliases").items():
        if not number.strip().isdecimal():
            raise DataError(f"{folder / 'aliases' / alias}: expected the number of a version")
        insert(database, "registered_model_aliases", name=name, alias=alias, version=int(number))


def _version(database: sqlite3.Connection, folder: Path, name: str) -> None:
    meta = read_meta(folder / "meta.yaml")
    number = meta.integer("version")
    texts = (
        "description",
        "user_id",
        "source",
        "run_id",
        "status_message",
        "run_link",
        "storage_location",
    )
    insert(
        database,
        "model_versions",
        name=name,
        version=number,
        creation_time=meta.integer("creation_timestamp"),
        last_updated_time=meta.integer("last_updated_timestamp"),
        current_stage=meta.text("current_stage") or "None",
        status=meta.text("status") or "READY",
        **{key: meta.text(key) for key in texts},
    )
    for key, value in values(folder / "tags").items():
        insert(database, "model_version_tags", name=name, version=number, key=key, value=value)
