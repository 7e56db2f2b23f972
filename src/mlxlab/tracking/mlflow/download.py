"""Downloads models of a store, named by `models:/...` or `runs:/...`."""

import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError, UserError
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.mlflow.address import Address, local_path, resolve
from mlxlab.tracking.mlflow.client import SETTINGS
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.mlflow.relocate import repair_locations

SCHEMES = ("models:/", "runs:/")

_uri = re.compile(
    r"models:/(?P<id>m-[0-9a-f]{32})"
    r"|models:/(?P<name>[^/@%]+)(?:/(?P<version>[0-9]{1,18})|@(?P<alias>[^/@%]+))"
    r"|runs:/(?P<run>[0-9a-f]{32})/(?P<model>[^/%]+)"
)
# The source of a registered version is the address of its logged model, `models:/m-...`.
_MODEL = """
select model_id, artifact_location from logged_models
where status = 2 and lifecycle_stage = 'active' and (
    model_id = :id
    or source_run_id = :run and name = :model
    or 'models:/' || model_id = (
        select source from model_versions
        where name = :name and workspace = 'default' and current_stage is not 'Deleted_Internal'
        and version = coalesce(:version, (
            select version from registered_model_aliases
            where name = :name and workspace = 'default' and alias = :alias
        ))
    )
)
order by creation_timestamp_ms desc limit 1
"""


def is_mlflow_uri(name: str) -> bool:
    return name.startswith(SCHEMES)


def download_model(name: str, uri: str | None, project: Path, cache: Path) -> Path:
    """The checkpoint folder of a logged or registered model; the `inference` folder of its run has the same parent.

    Downloads are cached by model id, so that an alias that is reassigned gives the new model.

    Its name is `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/best`.

    Raises:
        ServiceUnavailableError: there is no store, or it cannot be reached.
        InputNotFoundError: it has no such model.
        DataError: the model was not logged by mlxlab.
    """
    address = resolve(uri, None, project)
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(
            f"{name}: {address.shown}: no store found; a run with tracking=mlflow creates it"
        )
    repair_locations(address)
    folder = _copied(name, address, cache / "models")
    if folder is None:
        with _tracking_env(address):
            folder = _downloaded(name, address, cache / "models")
    checkpoints = sorted(path.parent for path in folder.glob("artifacts/*/model.safetensors"))
    if not checkpoints or not (folder / "artifacts" / "inference" / "config.yaml").is_file():
        raise DataError(f"{name}: expected a model that mlxlab logged")
    return checkpoints[0]


def _copied(name: str, address: Address, cache: Path) -> Path | None:
    """The folder of a model whose files are on this machine, without MLflow; None if only MLflow can find it."""
    model_id, location = _find_locally(name, address.database)
    if location is None:
        return None
    folder = _folder(cache, address, model_id)

    def fetch(temporary: Path) -> Path:
        if model_id not in location.parts:  # a store may come from anyone
            raise DataError(f"{location}: not named by the id of the model")
        return copy_artifact(location, "artifacts", temporary / "model").parent

    if not folder.is_dir():
        try:
            _place(folder, fetch)
        except UserError as error:
            raise DataError(f"{name}: expected a model that mlxlab logged ({error})") from None
        except OSError as error:
            raise ServiceUnavailableError(f"{name}: {address.shown}: {one_line(error)}") from None
    return folder


def _find_locally(name: str, path: Path | None) -> tuple[str, Path | None]:
    """The id of a model of an SQLite store, and its files on this machine: importing MLflow takes seconds."""
    match = _uri.fullmatch(name)
    if path is None or match is None:
        return "", None
    try:
        uri = f"file:{quote(str(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
            row = database.execute(_MODEL, match.groupdict()).fetchone()
    except sqlite3.Error as error:
        raise ServiceUnavailableError(
            f"{path}: cannot be read as an MLflow store ({error})"
        ) from None
    return (row[0], local_path(row[1])) if row else ("", None)


def _folder(cache: Path, address: Address, model_id: str) -> Path:
    return cache / hashlib.sha256(f"{address.shown} {model_id}".encode()).hexdigest()[:32]


def _place(folder: Path, fetch: Callable[[Path], Path]) -> None:
    """Makes `folder` of what `fetch` writes below another one and returns: the whole model, or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        fetched = fetch(Path(temporary))
        if not folder.is_dir():
            shutil.move(fetched, folder)


def _downloaded(name: str, address: Address, cache: Path) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    try:
        folder = _folder(cache, address, get_model_info(name).model_uuid)
        if not folder.is_dir():
            _place(
                folder,
                lambda temporary: Path(
                    download_artifacts(artifact_uri=name, dst_path=str(temporary))
                ),
            )
    except (MlflowException, OSError) as error:
        code = error.error_code if isinstance(error, MlflowException) else ""
        missing = code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
        kind = InputNotFoundError if missing else ServiceUnavailableError
        raise kind(f"{name}: {address.shown}: {one_line(error)}") from None
    return folder


@contextmanager
def _tracking_env(address: Address) -> Iterator[None]:
    """Sets the address for functions of MLflow that take none; restores the environment at the end."""
    variables = SETTINGS | {"MLFLOW_TRACKING_URI": address.uri}
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
        os.environ.update(before)
