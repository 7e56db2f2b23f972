"""The address of a store, of its artifacts and of its queue. All paths are absolute."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlxlab.errors import ConfigError, ServiceUnavailableError
from mlxlab.redact import redact
from mlxlab.tracking.records import utf8

_PACKAGES = {
    "psycopg": "'psycopg[binary]'",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
}  # of modules
_sqlite = re.compile(r"^sqlite(\+\w+)?://(?P<path>/[^?]*)?")


@dataclass(frozen=True)
class Address:
    """One store."""

    uri: str
    artifacts: str | None  # folder or URI; None where the server decides
    queue: Path  # the folder in which journals wait

    @property
    def database(self) -> Path | None:
        """The file of an SQLite store, else None."""
        return _database(self.uri)

    @property
    def shown(self) -> str:
        """The address without a password."""
        return sqlite_uri(self.database) if self.database else redact(self.uri)

    @property
    def shown_artifacts(self) -> str | None:
        """`artifacts` without a password."""
        return (
            redact(self.artifacts)
            if self.artifacts and not self.artifacts.startswith("/")
            else self.artifacts
        )

    def dump(self) -> str:
        return json.dumps(asdict(self), default=str)


def load(text: str) -> Address:
    """The inverse of `Address.dump`."""
    fields = json.loads(text)
    return Address(fields["uri"], fields["artifacts"], Path(fields["queue"]))


def resolve(uri: str | None, artifacts: str | None, project: Path) -> Address:
    """The address of the store; arguments and errors as of `Journal`. Relative paths are relative to `project`."""
    project = project.absolute()
    if utf8(project) != str(project):
        raise ConfigError(
            f"tracking: {utf8(project)}: MLflow takes no folder whose name is not UTF-8"
        )
    uri = _absolute(
        uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db", project
    )
    artifacts = artifacts or os.environ.get("MLFLOW_ARTIFACT_ROOT") or None
    queues = [
        project / "mlruns" / f".queue-{hashlib.sha256(redact(uri).encode()).hexdigest()[:12]}"
    ]
    if database := _database(uri):
        artifacts = artifacts or str(database.parent / "artifacts")
        queues.insert(0, database.parent / f".queue-{database.name}")
    if artifacts and "://" not in artifacts:
        artifacts = str(project / artifacts.removeprefix("file:"))
    return Address(uri, artifacts, next(filter(_writable, queues), queues[-1]))


def check_driver(uri: str) -> None:
    """Raises ServiceUnavailableError if SQLAlchemy cannot import the driver of a database server."""
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    from sqlalchemy.engine import make_url  # takes 0.2 s

    try:
        make_url(uri).get_dialect().import_dbapi()
    except Exception as error:  # of SQLAlchemy, or whatever a driver raises at its import
        module = getattr(error, "name", None)
        remedy = f"; pip install {_PACKAGES.get(module, module)}" if module else ""
        raise ServiceUnavailableError(
            f"tracking.uri={redact(uri)}: {' '.join(str(error).split())}{remedy}"
        ) from None


def sqlite_uri(path: Path) -> str:
    """The URI of a file; SQLAlchemy decodes it."""
    return "sqlite:///" + str(path).replace("%", "%25").replace("?", "%3F")


def local_path(location: str) -> Path | None:
    """The path of a local location, else None: `/a/b`, `a/b`, `file:///a/b`, `file:./a/b`."""
    if "\0" in unquote(location):
        return None
    if location.startswith("file:"):
        parts = urlsplit(location)
        return Path(unquote(parts.path)) if parts.netloc in ("", "localhost") else None
    return None if not location.startswith("/") and ":/" in location else Path(location)


def _absolute(uri: str, project: Path) -> str:
    if uri.startswith("sqlite"):
        match = _sqlite.match(uri)
        path = ((match and match["path"]) or "/")[1:]
        if not match or path in ("", ":memory:"):
            raise ConfigError(
                f"tracking.uri={redact(uri)}: expected sqlite:///<file>: another process writes it"
            )
        return sqlite_uri(project / unquote(path)) + uri[match.end() :]
    if uri.startswith("file:") or ("://" not in uri and not uri.startswith("databricks")):
        expected = "sqlite:///<file>, http(s)://<server>, or another address of MLflow"
        raise ConfigError(f"tracking.uri={redact(uri)}: expected {expected}")
    return uri


def _database(uri: str) -> Path | None:
    match = _sqlite.match(uri)
    return Path(unquote(match["path"][1:])) if match and match["path"] else None


def _writable(folder: Path) -> bool:
    """True if files can be created in `folder`, or in its nearest existing parent."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
