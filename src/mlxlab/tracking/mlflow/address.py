"""The address of a store, of its artifacts and of its queue. All paths are absolute."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote

from mlxlab.errors import ConfigError
from mlxlab.redact import redact
from mlxlab.tracking.records import utf8

_sqlite = re.compile(r"^sqlite(\+\w+)?://(?P<path>/[^?]*)?")


@dataclass(frozen=True)
class Address:
    """One store.

    `artifacts` is None where the server decides. `spool` is the folder in which journals wait; None if no folder can be
    written, then they wait in their run folders until `mlxlab runs sync FOLDER`.
    """

    uri: str
    artifacts: str | None
    spool: Path | None

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store, else None."""
        return _database(self.uri)

    @property
    def shown(self) -> str:
        """The address without a password."""
        return _sqlite_uri(self.database) if self.database else redact(self.uri)

    @property
    def shown_artifacts(self) -> str | None:
        """`artifacts` without a password."""
        return redact(self.artifacts) if self.artifacts and not self.artifacts.startswith("/") else self.artifacts

    def dump(self) -> str:
        return json.dumps(asdict(self), default=str)


def load(text: str) -> Address:
    """The inverse of `Address.dump`."""
    fields = json.loads(text)
    return Address(fields["uri"], fields["artifacts"], Path(fields["spool"]))


def resolve(uri: str | None, artifacts: str | None, project: Path) -> Address:
    """The address of the store.

    Args:
        uri: as MLflow writes it; null takes MLFLOW_TRACKING_URI if set, else `mlruns/mlflow.db` in the project.
        artifacts: folder or URI; null takes MLFLOW_ARTIFACT_ROOT if set, else `artifacts` next to an SQLite file.
        project: relative paths are relative to this folder.

    Raises:
        ConfigError: an address that MLflow 3 has no store for.
    """
    project = project.absolute()
    if utf8(project) != str(project):
        raise ConfigError(f"tracking: {utf8(project)}: MLflow takes no folder whose name is not UTF-8")
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(project / "mlruns" / "mlflow.db")
    artifacts = artifacts or os.environ.get("MLFLOW_ARTIFACT_ROOT") or None
    uri = _absolute(uri, project)
    database = _database(uri)
    if artifacts is None and database:
        artifacts = str(database.parent / "artifacts")
    if artifacts and "://" not in artifacts:
        artifacts = str(project / artifacts.removeprefix("file:"))
    return Address(uri, artifacts, _spool(uri, project))


def _sqlite_uri(path: Path) -> str:
    """The URI of a file; SQLAlchemy decodes it."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def _absolute(uri: str, project: Path) -> str:
    if not uri.startswith("sqlite"):
        if "://" in uri or uri.startswith("databricks"):
            if uri.startswith("file:"):
                raise ConfigError(f"tracking.uri={redact(uri)}: MLflow 3 has no file stores; use sqlite:///<file>")
            return uri
        raise ConfigError(
            f"tracking.uri={redact(uri)}: expected sqlite:///<file>, http(s)://<server> or another MLflow address"
        )
    match = _sqlite.match(uri)
    path = ((match and match["path"]) or "/")[1:]
    if not match or path in ("", ":memory:"):
        raise ConfigError(f"tracking.uri={redact(uri)}: expected sqlite:///<file>: another process writes it")
    return _sqlite_uri(project / unquote(path)) + uri[match.end() :]


def _database(uri: str) -> Path | None:
    match = _sqlite.match(uri)
    return Path(unquote(match["path"][1:])) if match and match["path"] else None


def _spool(uri: str, project: Path) -> Path | None:
    database = _database(uri)
    name = ".spool-" + hashlib.sha256(redact(uri).encode()).hexdigest()[:12]
    folders = [project / "mlruns" / name]
    if database:
        folders.insert(0, database.parent / f".spool-{database.name}")
    return next((folder for folder in folders if _writable(folder)), None)


def _writable(folder: Path) -> bool:
    """Whether files can be created in `folder`, or in its nearest existing parent."""
    while not folder.exists():
        if folder == folder.parent:
            return False
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
