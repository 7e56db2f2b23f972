"""A model of the store on this disk: what `models:/...` or `runs:/...` names."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import DataFault, InputMissing, ServiceMissing
from mlxlab.tracking.address import Address, resolve

SCHEMES = ("models:/", "runs:/")


def is_stored(name: str) -> bool:
    """Does the name mean a model of the store?"""
    return name.startswith(SCHEMES)


def fetch(name: str, uri: str | None, project: Path, cache: Path) -> Path:
    """The checkpoint of a logged or registered model, with the `restore` folder of its run beside it.

    What was fetched once is kept, by the model's own id: an alias that has moved means another model.

    Args:
        name: `models:/<name>/<version>`, `models:/<name>@<alias>`, `models:/<model id>` or `runs:/<run id>/best`.
        uri: the store; null as in `tracking.uri`.

    Raises:
        ServiceMissing: there is no store, or it cannot be reached. InputMissing: it has no such model.
        DataFault: the model is none of ours.
    """
    address = resolve(uri, None, project)
    if address.database is not None and not address.database.is_file():
        raise ServiceMissing(f"{name}: {address.shown}: no store there; a run with tracking=mlflow makes it")
    from mlflow.exceptions import MlflowException
    from mlflow.models import get_model_info

    try:
        with _meant(address):
            model_id = get_model_info(name).model_uuid
            key = hashlib.sha256(f"{address.shown} {model_id}".encode()).hexdigest()[:32]
            folder = cache / "models" / key
            if not folder.is_dir():
                _download(name, folder)
    except MlflowException as error:
        gone = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")
        fault = InputMissing if gone else ServiceMissing
        raise fault(f"{name}: {address.shown}: {' '.join(str(error).split())[:200]}") from None
    except OSError as error:
        raise ServiceMissing(f"{name}: {address.shown}: {error}") from None
    found = sorted(path.parent for path in folder.glob("artifacts/*/model.safetensors"))
    if not found or not (folder / "artifacts" / "restore" / "config.yaml").is_file():
        raise DataFault(f"{name}: is not a model that a run of mlxlab logged")
    return found[0]


@contextmanager
def _meant(address: Address) -> Iterator[None]:
    """Inside, MLflow's functions that take no address use this one."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = address.uri
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_TRACKING_URI")
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _download(name: str, folder: Path) -> None:
    """Complete or absent."""
    from mlflow.artifacts import download_artifacts

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        came = Path(download_artifacts(artifact_uri=name, dst_path=temporary))
        if not folder.is_dir():
            shutil.move(came, folder)
