"""An SQLite file as MLflow's store: made without races, never upgraded behind the user's back.

MLflow builds a new database in 67 migrations; processes that do so at the same time break the file. Here the finished
schema is kept as text, once per MLflow version, and becomes a database in one rename.
"""

import fcntl
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.errors import StoreUnavailableError

_SET = (
    "insert into experiments(experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time)"
)
BUSY_SECONDS = 20.0  # that a write waits for a locked database
_connected = False


def ensure_database(address: Address) -> None:
    """Makes the database if it is not there; checks its schema if it is.

    Raises:
        StoreUnavailableError: not readable, no MLflow store, or of another version.
    """
    import mlflow

    path = address.database
    assert path is not None
    _listen()
    schema = _schema(address, mlflow.__version__)
    if not path.exists() or path.stat().st_size == 0:
        _build(path, schema, address)
    expected, found = _version_in(schema), version(path)
    if found != expected:
        raise StoreUnavailableError(
            f"{path} has schema {found}, MLflow {mlflow.__version__} writes {expected} and would change the file: "
            f"back it up, then `mlflow db upgrade {address.shown}`"
        )


def version(path: Path) -> str:
    """The schema's version.

    Raises:
        StoreUnavailableError: the file cannot be read, or is no MLflow store.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as database:
            rows = database.execute("select version_num from alembic_version").fetchall()
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"{path}: {error}") from None
    if len(rows) != 1:
        raise StoreUnavailableError(f"{path} is no MLflow store: it names no schema")
    return rows[0][0]


def delete_metrics_after(engine: Any, run_id: str, step: int) -> None:
    """Deletes a run's metric rows above `step`, and sets the latest values anew."""
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
            mine = (rows.c.run_uuid == run_id) & (rows.c.key == key)
            query = select(*(rows.c[name] for name in columns)).where(mine).order_by(*order).limit(1)
            for row in database.execute(query).mappings():
                database.execute(insert(latest).values(**row))


def _listen() -> None:
    """Every SQLite connection of MLflow: readers do not block, and a commit is on the disk when it returns."""
    global _connected
    if _connected:
        return
    _connected = True
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "connect")
    def pragmas(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            # `full`: what is acknowledged in the run folder must not vanish here with the power.
            for line in (f"busy_timeout={int(1000 * BUSY_SECONDS)}", "journal_mode=wal", "synchronous=full"):
                with suppress(sqlite3.OperationalError):  # read-only: the first write will say so
                    connection.execute(f"pragma {line}")


def _build(path: Path, schema: str, address: Address) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    now = int(time.time() * 1000)
    with closing(sqlite3.connect(temporary)) as database:
        database.executescript(schema)
        location = f"{address.artifacts}/0"
        database.execute(f"{_SET} values (0, 'Default', ?, 'active', ?, ?)", (location, now, now))
        database.commit()
        database.execute("pragma journal_mode=wal")
    with _flock(path.with_name(f".{path.name}.lock")):
        if not path.exists() or path.stat().st_size == 0:  # nobody was faster
            os.replace(temporary, path)
    temporary.unlink(missing_ok=True)


def _schema(address: Address, release: str) -> str:
    """The empty schema of this MLflow as SQL, from the cache or made now (a second)."""
    assert address.spool is not None
    for folder in (_cache(), address.spool):
        path = folder / f"mlflow-{release}.sql"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _flock(path.with_suffix(".lock")):
                if not path.exists():
                    text = _migrate()
                    temporary = path.with_suffix(f".{os.getpid()}")
                    temporary.write_text(text)
                    os.replace(temporary, path)
                return path.read_text()
        except OSError:
            continue  # not writable
    return _migrate()


def _migrate() -> str:
    """Runs MLflow's own migrations on an empty database; what they leave, as SQL."""
    from mlflow.store.db.utils import _initialize_tables
    from sqlalchemy import create_engine

    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/empty.db")
        _initialize_tables(engine)
        engine.dispose()
        with closing(sqlite3.connect(f"{folder}/empty.db")) as database:
            return "\n".join(database.iterdump())


def _version_in(schema: str) -> str:
    _, _, rest = schema.partition('INSERT INTO "alembic_version" VALUES(\'')
    return rest.partition("'")[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlxlab"


@contextmanager
def _flock(path: Path) -> Iterator[None]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
