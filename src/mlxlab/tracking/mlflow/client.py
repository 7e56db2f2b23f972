"""A store, opened through MLflow's client, and the names and values that MLflow accepts."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.tracking.mlflow.address import Address, local_path
from mlxlab.tracking.mlflow.errors import JournalRejectedError, StoreReplacedError

if TYPE_CHECKING:
    from mlflow.entities import Run
    from sqlalchemy.engine import Engine

MAX_KEY = 250
MAX_PARAM = 6000  # characters of a value
MAX_TAG = 8000
UID = "mlxlab.uid"  # tag: ties an MLflow run to its journal
KIND = {
    "mlflow.experimentKind": "custom_model_development"
}  # the UI opens the experiment in its view for training
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # DO_NOT_TRACK does not stop it
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # with the defaults, 7 x 120 s, a failing call takes 20 minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",  # A server may ask for a wait of days.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}

_index = re.compile(r"\[([^\]]*)\]")
_invalid = re.compile(r"[^A-Za-z0-9_\-. :/]")


def prepare(address: Address) -> None:
    """Sets the environment that MLflow reads at import. For processes that do nothing but tracking."""
    os.environ.update(
        SETTINGS | {key: os.environ[key] for key in SETTINGS if "HTTP" in key and key in os.environ}
    )
    os.environ.pop("MLFLOW_RUN_ID", None)  # MLflow would continue that run instead of creating ours
    os.environ["MLFLOW_TRACKING_URI"] = address.uri  # the client of a server's artifacts reads it


class MlflowStore:
    """An open store. Opening creates the SQLite database unless it exists; for its errors see `classify_error`."""

    def __init__(self, address: Address) -> None:
        prepare(address)
        import mlflow  # the import sets log levels, so ours come after it

        from mlxlab.tracking.mlflow import sqlite

        # Errors reach us as exceptions; logged too, each attempt on a locked store would print a traceback.
        for name in (mlflow.__name__, "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.address = address
        if address.database:
            sqlite.ensure_database(address)
        self._file = _identity(address.database)
        self.client = mlflow.MlflowClient(tracking_uri=address.uri, registry_uri=address.uri)
        self.client.search_experiments(max_results=1)  # raises if the store does not answer
        self.engine: Engine | None = getattr(
            self.client._tracking_client.store, "engine", None
        )  # None: a server

    def check(self) -> None:
        """Raises StoreReplacedError unless the database is still the file that was opened."""
        if _identity(self.address.database) != self._file:
            raise StoreReplacedError(f"{self.address.database} was removed or replaced")

    def experiment(self, name: str) -> str:
        """The id of the experiment, which is created unless it exists."""
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_location(self.address, name) if self.address.artifacts else None
            try:
                return str(self.client.create_experiment(name, location, tags=KIND))
            except MlflowException:
                experiment = self.client.get_experiment_by_name(name)
                if experiment is None:  # else another process created it meanwhile
                    raise
        if experiment.lifecycle_stage == "deleted":
            remedy = "restore it there, or use another name"
            raise JournalRejectedError(f"experiment {name} was deleted in MLflow: {remedy}")
        return str(experiment.experiment_id)

    def find(self, uid: str, experiment: str) -> "Run | None":
        """The MLflow run of a journal, even if deleted."""
        from mlflow.entities import ViewType

        runs = self.client.search_runs(
            [experiment], f"tags.`{UID}` = '{uid}'", ViewType.ALL, max_results=1
        )
        return runs[0] if runs else None

    def max_bytes(self) -> int | None:
        """Of an artifact: half of what is free where the store keeps them; None if that is not this machine."""
        folder = local_path(self.address.artifacts) if self.address.artifacts else None
        existing = (
            next((path for path in (folder, *folder.parents) if path.exists()), None)
            if folder
            else None
        )
        return shutil.disk_usage(existing).free // 2 if existing else None

    def close(self) -> None:
        """Closes the database: MLflow keeps connections per address for the life of the process."""
        if self.engine:
            self.engine.dispose()


def artifact_location(address: Address, experiment: str) -> str:
    """Where an experiment's artifacts are kept. Absolute: MLflow's default is relative to the current folder."""
    name = (
        clean(experiment).replace(":", "_").replace("/", "_")
    )  # not a folder within that of another experiment
    location = f"{(address.artifacts or '').rstrip('/')}/{name}"
    # As a URI if the path holds characters that MLflow would parse.
    return (
        Path(location).as_uri()
        if location.startswith("/") and set(location) & set("%?#")
        else location
    )


def _identity(database: Path | None) -> tuple[int, int] | None:
    with suppress(OSError):
        if database:
            status = database.stat()
            return status.st_dev, status.st_ino
    return None


@lru_cache(maxsize=10_000)
def clean(key: str) -> str:
    """`key` with what MLflow rejects replaced: `a[0]` -> `a.0`, `f1@5` -> `f1_5`, `../x` -> `_/x`."""
    text = _invalid.sub("_", _index.sub(r".\1", key))
    names = ["_" if name in (".", "..") else name for name in text.split("/") if name]
    text = "/".join(names) or "_"
    return (
        text
        if len(text) <= MAX_KEY
        else f"{text[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    )


def clean_params(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters within MLflow's limits; names that differ stay different."""
    result: dict[str, str] = {}
    for name, value in params.items():
        key = clean(name)
        if key in result:
            key = f"{key[: MAX_KEY - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        result[key] = truncate(value, MAX_PARAM)
    return result


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {clean(key): truncate(value, MAX_TAG) for key, value in tags.items()}


def truncate(text: str, limit: int) -> str:
    """At most `limit` characters, ending in `...` if any are missing. Without NUL, which PostgreSQL does not store."""
    text = text.replace("\0", "\ufffd")
    return text if len(text) <= limit else text[: limit - 3] + "..."
