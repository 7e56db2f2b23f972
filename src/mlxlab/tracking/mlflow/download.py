"""A model of the store on this disk: what `models:/...` or `runs:/...` names."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.client import SETTINGS
from mlxlab.tracking.mlflow.errors import one_line

SCHEMES = ("models:/", "runs:/")


def is_mlflow_uri(name: str) -> bool:
    """Does the name mean a model of the store?"""
    return name.startswith(SCHEMES)


def download_model(name: str, uri: str | None, project: Path, cache: Path) -> Path:
    """The checkpoint of a logged or registered model, with the `inference` folder of its run beside it.

    What was fetched once is kept, by the model's own id: an alias that has moved means another model.

    Args:
        name: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/best`.
        uri: the store; null as in `tracking.uri`.

    Raises:
        ServiceUnavailableError: there is no store, or it cannot be reached. InputNotFoundError: it has no such model.
        DataError: the model is none of ours.
    """
    address = resolve(uri, None, project)
    if address.database is not None and not address.database.is_file():
        raise ServiceUnavailableError(f"{name}: {address.shown}: no store there; a run with tracking=mlflow makes it")
    with _tracking_env(address):
        folder = _kept(name, address, cache / "models")
    found = sorted(path.parent for path in folder.glob("artifacts/*/model.safetensors"))
    if not found or not (folder / "artifacts" / "inference" / "config.yaml").is_file():
        raise DataError(f"{name}: is not a model that a run of mlxlab logged")
    return found[0]


def _kept(name: str, address: Address, cache: Path) -> Path:
    """The folder of the model, fetched if it was not there."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    try:
        model_id = get_model_info(name).model_uuid
        folder = cache / hashlib.sha256(f"{address.shown} {model_id}".encode()).hexdigest()[:32]
        if not folder.is_dir():
            _download(name, folder)
    except MlflowException as error:
        gone = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
        fault = InputNotFoundError if gone else ServiceUnavailableError
        raise fault(f"{name}: {address.shown}: {one_line(error)}") from None
    except OSError as error:
        raise ServiceUnavailableError(f"{name}: {address.shown}: {one_line(error)}") from None
    return folder


@contextmanager
def _tracking_env(address: Address) -> Iterator[None]:
    """Inside, MLflow's functions that take no address use this one."""
    meant = SETTINGS | {"MLFLOW_TRACKING_URI": address.uri}
    before = {name: os.environ.get(name) for name in meant}
    os.environ.update(meant)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _download(name: str, folder: Path) -> None:
    """Complete or absent."""
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        came = Path(download_artifacts(artifact_uri=name, dst_path=temporary))
        if not folder.is_dir():
            shutil.move(came, folder)
