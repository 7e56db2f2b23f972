"""A store of MLflow, opened through its client, and repaired if it was moved or copied with its artifacts.

MLflow keeps absolute addresses. The experiment `Default` tells where the artifacts were.
"""

import logging
import os
import sqlite3
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mlxlab.errors import DataError, ServiceUnavailableError
from mlxlab.files.atomic import temporary_name
from mlxlab.tracking.destination import Entry
from mlxlab.tracking.mlflow.address import Address, local_path, location_of, sqlite_uri
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.mlflow.run import FOLDER, UID, MlflowRun
from mlxlab.tracking.one_line import mlflow_errors, printable
from mlxlab.tracking.records import RunStart, locate, read_uid, utf8

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

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

BUSY_SECONDS = 20  # A call waits so long for a locked database.
KIND = {"mlflow.experimentKind": "custom_model_development"}  # The UI shows a view for training.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # DO_NOT_TRACK does not stop it
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # The defaults, 7 x 120 s, make a failing call take 20 minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # A server may ask for a wait of days.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SQLALCHEMYSTORE_POOLCLASS": "NullPool",  # A pool would go on writing to a deleted file.
    "GIT_PYTHON_REFRESH": "quiet",
}
# Errors of MLflow that another attempt does not cure.
_FAULTS_OF_JOURNAL = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")
_FAULTS_OF_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def open_client(address: Address) -> "MlflowClient":
    """MLflow's client of a store, which is created unless it exists; raises whatever the client raises."""
    for key, value in SETTINGS.items():
        os.environ.setdefault(key, value)
    os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would continue that run instead of creating ours
    uri = address.uri
    if address.database and "?" not in uri:
        uri += f"?timeout={BUSY_SECONDS}"
    os.environ["MLFLOW_TRACKING_URI"] = uri  # read by clients of artifacts and of `models:/`
    with warnings.catch_warnings(record=True, action="ignore"):  # MLflow resets "ignore" alone.
        import mlflow  # the import sets log levels, so ours come after it

        # Errors reach us as exceptions; logged too, each attempt on a locked store would print a traceback.
        for name in (mlflow.__name__, "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if address.database:
            _create_database(address, address.database)
            with closing(sqlite3.connect(address.database, timeout=BUSY_SECONDS)) as database:
                # MLflow would try to read a damaged file for minutes.
                database.execute("select version_num from alembic_version")
            repair_locations(address)
        client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # raises if the store does not answer
    return client


def open_existing(address: Address) -> "MlflowClient":
    """MLflow's client of a store that exists; raises ServiceUnavailableError."""
    check_exists(address)
    with mlflow_errors(address.shown):
        return open_client(address)


def check_exists(address: Address) -> None:
    """Raises ServiceUnavailableError if there is no database."""
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(
            f"{address.shown}: no store found; a run with tracking=mlflow creates it"
        )


class MlflowStore:
    """An open store; see `destination.Store`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.client = open_client(address)

    def open_run(self, entry: Entry, start: RunStart, t: int) -> MlflowRun:
        experiment = self._experiment(start["experiment"])
        run = self._find(entry.uid, experiment)
        if run is None and entry.run_id:
            run = self.client.get_run(entry.run_id)
        elif run is None:
            run = self._create(experiment, entry, start, t)
        else:
            _check_owner(run, entry, t)
        return MlflowRun(self.client, run, entry)

    def is_fault_of_journal(self, error: Exception) -> bool:
        if isinstance(error, OSError):  # Errors of requests have no number.
            return error.errno is not None
        if isinstance(error, _FAULTS_OF_VALUES):
            return True
        return getattr(error, "error_code", "") in _FAULTS_OF_JOURNAL

    def _experiment(self, name: str) -> str:
        """The id of the experiment, which is created unless it exists."""
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return str(
                self.client.create_experiment(name, artifact_location(self.address, name), KIND)
            )
        if experiment.lifecycle_stage == "deleted":
            remedy = "restore it there, or use another name"
            raise DataError(f"experiment {name} was deleted in MLflow: {remedy}")
        return str(experiment.experiment_id)

    def _find(self, uid: str, experiment: str) -> "Run | None":
        """The MLflow run of a journal, even if deleted."""
        from mlflow.entities import ViewType

        runs = self.client.search_runs(
            [experiment], f"tags.`{UID}` = '{uid}'", ViewType.ALL, max_results=1
        )
        return next(iter(runs), None)

    def _create(self, experiment: str, entry: Entry, start: RunStart, t: int) -> "Run":
        tags = {UID: entry.uid, FOLDER: utf8(entry.folder)}
        parent = self._find(start["parent"], experiment) if start["parent"] else None
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.info.run_id
        name = printable(start["name"])
        return self.client.create_run(experiment, start_time=t, tags=tags, run_name=name)


def artifact_location(address: Address, experiment: str) -> str | None:
    """Where an experiment's artifacts are kept. Absolute: MLflow's default is relative to the current folder."""
    if address.artifacts is None:
        return None
    name = clean(experiment).replace(":", "_").replace("/", "_")
    return location_of(f"{address.artifacts.rstrip('/')}/{name}")


def _create_database(address: Address, path: Path) -> None:
    """Lets MLflow create a database under another name: one that is killed meanwhile leaves no broken file."""
    if path.exists() and path.stat().st_size:
        return
    import mlflow

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    mlflow.MlflowClient(sqlite_uri(temporary)).search_experiments(max_results=1)
    with closing(sqlite3.connect(temporary)) as database:
        location = artifact_location(address, "0")
        database.execute(
            "update experiments set artifact_location = ? where experiment_id = 0", (location,)
        )
        database.commit()
        database.execute("pragma journal_mode = wal")  # Readers do not block.
    os.replace(temporary, path)


def _check_owner(run: "Run", entry: Entry, t: int) -> None:
    """Raises DataError unless a run of the store began with the journal: a stranger may have written its id."""
    if run.info.start_time != t and entry.run_id is None:
        raise DataError(f"another run in the store has the id {entry.uid}")
    recorded = Path(run.data.tags.get(FOLDER, entry.folder))
    if read_uid(locate(recorded, entry.uid)) != entry.uid:
        return  # It was moved.
    if not os.path.samefile(recorded, entry.folder):
        raise DataError(
            f"the run {entry.uid} of the store is that of {recorded}; this is a copy of it"
        )


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
        default = next(iter(locations), None)
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
