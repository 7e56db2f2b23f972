"""The address of a store of MLflow and of its artifacts. All paths are absolute."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlxlab.errors import ConfigError
from mlxlab.terminal.redact import redact
from mlxlab.tracking.records import utf8

_STORES = ("http", "https", "postgresql", "mysql", "mssql", "databricks")
_sqlite = re.compile(r"^sqlite(\+\w+)?://(?P<path>/[^?]*)?")


@dataclass(frozen=True)
class Address:
    """One store."""

    uri: str
    artifacts: str | None  # folder or URI; None where the server decides

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store, else None."""
        match = _sqlite.match(self.uri)
        if match and match["path"]:
            return Path(unquote(match["path"][1:]))
        return None

    @property
    def shown(self) -> str:
        """The address without a password."""
        if self.database:
            return sqlite_uri(self.database)
        return redact(self.uri)

    @property
    def shown_artifacts(self) -> str | None:
        """`artifacts` without a password."""
        if self.artifacts is None or self.artifacts.startswith("/"):
            return self.artifacts
        return redact(self.artifacts)


def resolve(uri: str | None, artifacts: str | None, project: Path) -> Address:
    """The address of the store; arguments and errors as of `Journal`. Relative paths are relative to `project`."""
    project = project.absolute()
    if utf8(project) != str(project):
        raise ConfigError(
            f"tracking: {utf8(project)}: MLflow takes no folder whose name is not UTF-8"
        )
    if uri is None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    artifacts = artifacts or os.environ.get("MLFLOW_ARTIFACT_ROOT") or None
    address = Address(_absolute(uri, project), artifacts)
    if address.database and not artifacts:
        artifacts = str(address.database.parent / "artifacts")
    if artifacts and "://" not in artifacts:
        artifacts = str(project / artifacts.removeprefix("file:"))
    return Address(address.uri, artifacts)


def sqlite_uri(path: Path) -> str:
    """The URI of a file; SQLAlchemy decodes it."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def location_of(path: str) -> str:
    """The address of a folder; as a URI if it is a path with characters that MLflow would parse."""
    if path.startswith("/") and set(path) & set("%?#"):
        return Path(path).as_uri()
    return path


def local_path(location: str) -> Path | None:
    """The path of a local location, else None: `/a/b`, `a/b`, `file:///a/b`, `file:./a/b`."""
    if "\0" in unquote(location):
        return None
    if location.startswith("file:"):
        parts = urlsplit(location)
        if parts.netloc in ("", "localhost"):
            return Path(unquote(parts.path))
        return None
    if ":/" in location and not location.startswith("/"):
        return None
    return Path(location)


def _absolute(uri: str, project: Path) -> str:
    match = _sqlite.match(uri)
    if match:
        path = (match["path"] or "/")[1:]
        if path in ("", ":memory:"):
            raise ConfigError(
                f"tracking.uri={redact(uri)}: expected sqlite:///<file>: another process writes it"
            )
        return sqlite_uri(project / unquote(path)) + uri[match.end() :]
    dialect = uri.partition(":")[0].partition("+")[0]  # SQLAlchemy: dialect+driver
    if dialect not in _STORES:
        expected = "sqlite:///<file>, http(s)://<server>, or another address of MLflow"
        raise ConfigError(f"tracking.uri={redact(uri)}: expected {expected}")
    return uri
