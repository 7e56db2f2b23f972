"""Creates databases of MLflow as copies of one: its migrations take a second, once for all tests."""

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from mlxlab.files.atomic import temporary_name
from mlxlab.tracking.mlflow import store
from mlxlab.tracking.mlflow.address import Address, resolve, sqlite_uri

CREATE = store._create_database
NAME = f"mlxlab-tests-{os.getuid()}-mlflow-{version('mlflow')}.db"
TEMPLATE = Path(tempfile.gettempdir()) / NAME  # also for a test that changes the folder


def create_database(address: Address, path: Path) -> None:
    if path.exists() and path.stat().st_size:
        return
    CREATE(Address(sqlite_uri(TEMPLATE), "/nowhere"), TEMPLATE)
    path.parent.mkdir(parents=True, exist_ok=True)
    copy = temporary_name(path)
    shutil.copyfile(TEMPLATE, copy)
    with closing(sqlite3.connect(copy)) as database:
        location = store.artifact_location(address, "0")
        database.execute("update experiments set artifact_location = ?", (location,))
        database.commit()
    os.replace(copy, path)


def copy_databases() -> None:
    store._create_database = create_database


def use_database() -> None:
    """Writes a run into a database of its own, so that MLflow and SQLAlchemy have built their tables and queries."""
    from mlflow.entities import Metric, Param, RunTag

    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        client = store.open_client(resolve(None, None, Path(folder)))
        run_id = client.create_run("0").info.run_id
        client.log_batch(run_id, [Metric("x", 1.0, 1, 1)], [Param("p", "1")], [RunTag("t", "1")])
        client.search_runs(["0"])
        client.set_terminated(run_id)
    os.environ.clear()
    os.environ.update(before)
