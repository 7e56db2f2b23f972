"""Copies artifacts and models out of a run folder that anyone may have written, and logs models to MLflow.

A model loads with `mlflow.pyfunc.load_model`. Its code, packages and requirements are those of the installed mlxlab,
never anything a journal names: MLflow runs that code.
"""

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking import provenance
from mlxlab.tracking.mlflow.client import truncate
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.records import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGE = Path(__file__).resolve().parents[2]
CODE = PACKAGE / "inference" / "pyfunc_model.py"
NAME = "best"
_KEY = "mlxlab.key"  # tag: `<name>@<step>`, so that no model is made twice


def log_model(client: "MlflowClient", experiment_id: str, run_id: str, folder: Path, model: Model) -> str:
    """Logs the model of a journal; returns its URI. Raises UserError if its files are not those of a model."""
    from mlflow.entities import LoggedModelOutput

    with tempfile.TemporaryDirectory() as temporary:
        paths = enumerate(model["files"].items())
        files = {name: copy_artifact(folder, path, Path(temporary, str(number))) for number, (name, path) in paths}
        key, of_run = f"{NAME}@{model['step']}", f"source_run_id = '{run_id}'"
        models = [item for item in client.search_logged_models([experiment_id], of_run) if item.tags.get(_KEY) == key]
        if not models:
            models = [client.create_logged_model(experiment_id, NAME, run_id, {_KEY: key}, model_type="checkpoint")]
        model_id = str(models[0].model_id)
        path = Path(temporary) / "model"
        try:
            with warnings.catch_warnings(action="ignore", record=True):  # advice to authors; MLflow resets "ignore"
                _save(path, model, files, run_id, model_id)
        except Exception as error:  # MLflow runs the model's code here: anything may be wrong with a checkpoint
            client.finalize_logged_model(model_id, "FAILED")
            raise DataError(one_line(error)) from error
        client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if not any(output.model_id == model_id for output in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, model["step"])])
    return f"models:/{model_id}"


def copy_artifact(folder: Path, name: str, target: Path) -> Path:
    """Copies the file or folder `name` of the run folder into the folder `target`; returns the copy.

    Only regular files inside the run folder are read: no path leads out of it, be it absolute, through `..` or through
    a symbolic link, and no pipe, socket or device is opened. Raises UserError if there is nothing to read, and OSError
    if `target` cannot be written.
    """
    root = Path(os.path.realpath(folder))
    source = _resolve(root, root / name)
    copy = target / source.name
    target.mkdir(exist_ok=True)
    if not source.is_dir():
        _copy(source, copy)
        return copy
    for parent, folders, files in os.walk(source, onerror=_fail):
        to = copy / Path(parent).relative_to(source)
        to.mkdir()
        inside = {entry: _resolve(root, Path(parent) / entry) for entry in (*folders, *files)}
        for entry in files:
            _copy(inside[entry], to / entry)
    return copy


def _resolve(root: Path, path: Path) -> Path:
    name = truncate(os.path.relpath(path, root), 200)
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"{name}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if real == root or not real.is_relative_to(root):
        raise DataError(f"{name}: leads out of the run folder")
    return real


def _copy(source: Path, target: Path) -> None:
    with open_regular(source) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")


def _save(path: Path, model: Model, files: dict[str, Path], run_id: str, model_id: str) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model as MlflowModel
    from mlflow.models import ModelSignature

    conf = PACKAGE.parents[1] / "conf"  # next to src/ in a checkout, inside the package in a wheel
    signature = model["signature"]
    mlflow.pyfunc.save_model(
        path,
        python_model=str(CODE),
        artifacts={name: str(file) for name, file in files.items()},
        code_paths=[str(PACKAGE), *([str(conf)] if conf.is_dir() else [])],
        pip_requirements=provenance.requirements(),
        signature=ModelSignature.from_dict(signature) if signature else None,
        mlflow_model=MlflowModel(artifact_path=NAME, run_id=run_id, model_uuid=model_id, model_id=model_id),
    )
