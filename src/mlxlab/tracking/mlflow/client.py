"""The store, through MLflow's client. Imported by the syncer and by tools, never by a training process."""

import os
from pathlib import Path
from typing import Any

from mlxlab.tracking.mlflow.address import Address
from mlxlab.tracking.mlflow.errors import JournalRejectedError, StoreReplacedError
from mlxlab.tracking.mlflow.naming import MAX_KEY, clean

UID = "mlxlab.uid"  # tag: ties an MLflow run to its journal
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens the experiment in its view for training
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # DO_NOT_TRACK does not stop it
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the stock 7 x 120 s make an outage last 20 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare(address: Address) -> None:
    """Sets what MLflow reads when it is imported. For processes that do nothing but tracking."""
    os.environ.update(SETTINGS | {key: os.environ[key] for key in SETTINGS if "HTTP" in key and key in os.environ})
    os.environ.pop("MLFLOW_RUN_ID", None)  # would hijack the runs we create
    os.environ["MLFLOW_TRACKING_URI"] = address.uri  # artifacts of a server are found through it


class MlflowStore:
    """An open store. Opening builds a fresh SQLite database if there is none.

    Raises:
        StoreUnavailableError: it cannot be reached, read or written, or has another MLflow's schema.
    """

    def __init__(self, address: Address) -> None:
        prepare(address)
        _quiet()
        from mlxlab.tracking.mlflow import sqlite

        self.address = address
        if address.database:
            sqlite.ensure_database(address)
        self._file = _identity(address.database)
        self.client = _client(address)
        self._experiments: dict[str, str] = {}

    def check(self) -> None:
        """Raises StoreReplacedError if the database is not the file that was opened."""
        if _identity(self.address.database) != self._file:
            raise StoreReplacedError(f"{self.address.database} was removed or replaced")

    def experiment(self, name: str) -> str:
        """The id of the experiment, made if need be."""
        if name not in self._experiments:
            self._experiments[name] = self._get_or_create(name)
        return self._experiments[name]

    def find(self, uid: str, experiment: str) -> Any | None:
        """The MLflow run of a journal, also a deleted one."""
        from mlflow.entities import ViewType

        found = self.client.search_runs([experiment], f"tags.`{UID}` = '{uid}'", ViewType.ALL, max_results=1)
        return found[0] if found else None

    def close(self) -> None:
        """Lets go of the database file: MLflow keeps connections per address for the life of the process."""
        engine = getattr(self.client._tracking_client.store, "engine", None)
        if engine is not None:
            engine.dispose()

    def delete_metrics_after(self, run_id: str, step: int) -> bool:
        """Deletes the metric rows above `step`. False where the store cannot: a server has no call for that."""
        engine = getattr(self.client._tracking_client.store, "engine", None)
        if engine is None:
            return False
        from mlxlab.tracking.mlflow import sqlite

        sqlite.delete_metrics_after(engine, run_id, step)
        return True

    def last_steps(self, run_id: str) -> dict[str, int]:
        """metric -> its highest step in the store."""
        keys = self.client.get_run(run_id).data.metrics
        return {key: max(row.step for row in self.client.get_metric_history(run_id, key)) for key in keys}

    def _get_or_create(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name, artifact_location=self._location(name), tags=KIND)
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            raise JournalRejectedError(
                f"experiment {name} was deleted in MLflow: restore it there, or take another name"
            )
        return found.experiment_id

    def _location(self, name: str) -> str | None:
        if self.address.artifacts is None:
            return None
        # Given outright: MLflow's default is relative to the current folder.
        location = f"{self.address.artifacts.rstrip('/')}/{clean(name).replace(':', '_')[:MAX_KEY]}"
        # As a URI, if MLflow would read something else into the path.
        return Path(location).as_uri() if location.startswith("/") and set(location) & set("%?#") else location


def _quiet() -> None:
    import logging

    import mlflow  # sets its own levels: only now can they be set for good

    # Every error reaches us as an exception: logged as well, each attempt on a locked store prints a traceback.
    for name in (mlflow.__name__, "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _client(address: Address) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
    client.search_experiments(max_results=1)  # a store that does not answer shows itself here
    return client


def _identity(database: Path | None) -> tuple[int, int] | None:
    if database is None:
        return None
    try:
        status = database.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
