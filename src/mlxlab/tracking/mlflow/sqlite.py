"""An SQLite file as MLflow's store: created whole or not at all, never upgraded unless the user does so.

MLflow builds a new database in 67 migrations: a process that is killed meanwhile, or another that does so at the same
time, leaves a broken file. Here the empty database is cached, once per MLflow version, and copied with one rename.
"""

import math
import os
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlxlab.files.atomic import remove_leftovers, temporary_name
from mlxlab.tracking.mlflow.address import Address, sqlite_uri
from mlxlab.tracking.mlflow.errors import StoreUnavailableError
from mlxlab.tracking.mlflow.queue import lock
from mlxlab.tracking.mlflow.relocate import repair_locations

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_DEFAULT_EXPERIMENT = """
insert into experiments(experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time)
values (0, 'Default', ?, 'active', ?, ?)
"""
BUSY_SECONDS = 20.0  # that a write waits for a locked database


def ensure_database(address: Address) -> None:
    """Creates the database unless it exists, and repairs the addresses of one that was moved.

    Raises as `version`, or StoreUnavailableError if its schema differs.
    """
    import mlflow

    path = address.database
    assert path is not None
    _set_pragmas()
    empty = empty_database(address)
    if not path.exists() or path.stat().st_size == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        temporary, now = temporary_name(path), int(time.time() * 1000)
        shutil.copyfile(empty, temporary)
        with closing(sqlite3.connect(temporary)) as database:
            database.execute(_DEFAULT_EXPERIMENT, (f"{address.artifacts}/0", now, now))
            database.commit()
            database.execute("pragma journal_mode=wal")
        os.replace(temporary, path)
    expected, actual = version(empty), version(path)
    if actual != expected:
        remedy = f"back the file up, then `mlflow db upgrade {address.shown}`"
        schema = f"{expected} of MLflow {mlflow.__version__}"
        raise StoreUnavailableError(f"{path}: expected schema {schema}, got {actual}: {remedy}")
    repair_locations(address)


def empty_database(address: Address) -> Path:
    """A database without rows, of the installed MLflow; not to be written."""
    try:
        return _cached_empty(
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlxlab"
        )
    except OSError:  # not writable
        return _cached_empty(address.queue)


def version(path: Path) -> str:
    """The schema's version. Raises StoreUnavailableError if the file cannot be read, or is not an MLflow store."""
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)
        ) as database:
            rows = database.execute("select version_num from alembic_version").fetchall()
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"{path}: {error}") from None
    if len(rows) != 1:
        raise StoreUnavailableError(f"{path}: not an MLflow store: it names no schema")
    return rows[0][0]


def installed_version() -> str:
    """The schema's version of the installed MLflow, which is not imported."""
    from alembic.script import ScriptDirectory

    spec = find_spec("mlflow")
    assert spec is not None
    [package] = spec.submodule_search_locations or []
    return str(ScriptDirectory(os.path.join(package, "store", "db_migrations")).get_current_head())


def delete_metrics_after(engine: "Engine", run_id: str, step: int) -> None:
    """Deletes a run's metric rows of later steps, and updates its latest values."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric
    from sqlalchemy import delete, insert, select

    rows, latest = SqlMetric.__table__, SqlLatestMetric.__table__
    columns = [column.name for column in latest.columns]
    with engine.begin() as database:
        late = (latest.c.run_uuid == run_id) & (latest.c.step > step)
        keys = database.execute(select(latest.c.key).where(late)).scalars().all()
        database.execute(delete(rows).where((rows.c.run_uuid == run_id) & (rows.c.step > step)))
        database.execute(delete(latest).where(late))
        for key in keys:
            order = rows.c.step.desc(), rows.c.timestamp.desc(), rows.c.value.desc()
            of_key = (rows.c.run_uuid == run_id) & (rows.c.key == key)
            last = (
                select(*(rows.c[name] for name in columns)).where(of_key).order_by(*order).limit(1)
            )
            database.execute(insert(latest).from_select(columns, last))


@cache
def _set_pragmas() -> None:
    """For all SQLite connections of MLflow: readers do not block, and a commit is on the disk when it returns."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def pragmas(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            # `full`: a power failure must not lose what the run folder records as uploaded.
            for line in (
                f"busy_timeout={int(1000 * BUSY_SECONDS)}",
                "journal_mode=wal",
                "synchronous=full",
            ):
                with suppress(sqlite3.OperationalError):  # read-only: the first write raises
                    connection.execute(f"pragma {line}")


def _cached_empty(folder: Path) -> Path:
    """An empty database of this MLflow release, cached in `folder` because the migrations take a second."""
    import mlflow
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    path = folder / f"mlflow-{mlflow.__version__}.db"
    with lock(path.with_suffix(".lock"), math.inf):
        if not path.exists():
            temporary = temporary_name(path)
            engine = create_engine(sqlite_uri(temporary))
            _initialize_tables(engine)
            engine.dispose()
            with closing(sqlite3.connect(temporary)) as database:
                database.execute(
                    "pragma journal_mode=delete"
                )  # the pragmas of `_set_pragmas` made a second file
            os.replace(temporary, path)
    return path
