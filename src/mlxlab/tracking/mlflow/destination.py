"""A store of MLflow as a destination of journals."""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.terminal.redact import redact
from mlxlab.tracking.mlflow.address import Address, resolve

if TYPE_CHECKING:
    from mlxlab.tracking.mlflow.store import MlflowStore


@dataclass(frozen=True)
class MlflowDestination(Address):
    """A store that journals are uploaded to; see `destination.Destination`."""

    def check(self) -> None:
        """Nothing is needed but MLflow, which is installed."""

    def queue_folder(self, project: Path) -> Path:
        """Next to a database, so that one process at a time creates it; else in the project folder."""
        digest = hashlib.sha256(redact(self.uri).encode()).hexdigest()[:12]
        database = self.database
        if database and _is_writable(database.parent):
            return database.parent / f".queue-{database.name}"
        return project / "mlruns" / f".queue-{digest}"

    def connect(self) -> "MlflowStore":
        from mlxlab.tracking.mlflow.store import MlflowStore

        return MlflowStore(self)

    def describe(self) -> str:
        return self.shown

    def options(self, project: Path) -> list[str]:
        if self == mlflow_destination(None, None, project):
            return []
        values = {"uri": self.shown, "artifacts": self.shown_artifacts}
        return [f"{key}={shlex.quote(value)}" for key, value in values.items() if value]


def mlflow_destination(uri: str | None, artifacts: str | None, project: Path) -> MlflowDestination:
    """Arguments and errors as of `resolve`."""
    address = resolve(uri, artifacts, project)
    return MlflowDestination(address.uri, address.artifacts)


def _is_writable(folder: Path) -> bool:
    """True if files can be created in `folder`, or in its nearest existing parent."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
