"""Downloads models of a store, named by `models:/...` or `runs:/...`."""

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
        raise ServiceUnavailableError(f"{name}: {address.shown}: no store found; a run with tracking=mlflow creates it")
    with _tracking_env(address):
        folder = _cached(name, address, cache / "models")
    checkpoints = sorted(path.parent for path in folder.glob("artifacts/*/model.safetensors"))
    if not checkpoints or not (folder / "artifacts" / "inference" / "config.yaml").is_file():
        raise DataError(f"{name}: expected a model that mlxlab logged")
    return checkpoints[0]


def _cached(name: str, address: Address, cache: Path) -> Path:
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    try:
        model_id = get_model_info(name).model_uuid
        folder = cache / hashlib.sha256(f"{address.shown} {model_id}".encode()).hexdigest()[:32]
        if folder.is_dir():
            return folder
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:  # the whole model or nothing
            downloaded = Path(download_artifacts(artifact_uri=name, dst_path=temporary))
            if not folder.is_dir():
                shutil.move(downloaded, folder)
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
