"""A database that MLflow creates, and the copies that stand for it in other tests."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mlxlab.tracking.mlflow.address import resolve
from support import new_stores

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of MLflow


def content(path: Path) -> list[list[tuple[object, ...]]]:
    queries = (
        "select type, name, tbl_name from sqlite_master order by type, name",
        "select experiment_id, name, artifact_location, lifecycle_stage from experiments",
        "select version_num from alembic_version",
        "pragma journal_mode",
    )
    with closing(sqlite3.connect(path)) as database:
        return [database.execute(query).fetchall() for query in queries]


def test_a_copied_database_is_that_which_mlflow_creates(project):
    address = resolve(None, None, project)
    new_stores.CREATE(address, project / "created.db")
    new_stores.create_database(address, project / "copied.db")
    created = content(project / "created.db")
    assert content(project / "copied.db") == created
    assert created[1] == [(0, "Default", f"{project}/mlruns/artifacts/0", "active")]
    assert created[3] == [("wal",)]
    assert sorted(path.name for path in project.iterdir()) == ["copied.db", "created.db"]
