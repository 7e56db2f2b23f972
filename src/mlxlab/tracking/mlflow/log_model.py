"""Logs a checkpoint as a model that `mlflow.pyfunc.load_model` loads.

The model's code, packages and requirements are those of the installed mlxlab, never anything a journal names: MLflow
runs that code.
"""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import DataError
from mlxlab.tracking import provenance
from mlxlab.tracking.mlflow.artifacts import copy_artifact
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.mlflow.naming import clean_model_name
from mlxlab.tracking.records import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient

PACKAGE = Path(__file__).resolve().parents[2]
CODE = PACKAGE / "inference" / "pyfunc_model.py"
_KEY = "mlxlab.key"  # tag: `<name>@<step>`, so that no model is made twice


def log_model(client: "MlflowClient", experiment_id: str, run_id: str, folder: Path, model: Model) -> str:
    """Logs the model of a journal; returns its URI. Raises DataError if its files are not those of a model."""
    with tempfile.TemporaryDirectory() as temporary:
        files: dict[str, Path] = {}
        for name, artifact in model["files"].items():
            copy = Path(temporary) / "files" / str(len(files))
            copy.mkdir(parents=True)
            if reason := copy_artifact(folder, artifact, copy):
                raise DataError(reason)
            [files[name]] = copy.iterdir()
        model_id = _find_or_create(client, experiment_id, run_id, model)
        path = Path(temporary) / "model"
        try:
            with warnings.catch_warnings(action="ignore"):  # advice for authors of models
                _save(path, model, files, run_id, model_id)
        except Exception as error:  # MLflow runs the model's code here: anything may be wrong with a checkpoint
            client.finalize_logged_model(model_id, "FAILED")
            raise DataError(one_line(error)) from error
        client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    _link_model(client, run_id, model_id, model["step"] or 0)
    return f"models:/{model_id}"


def _find_or_create(client: "MlflowClient", experiment_id: str, run_id: str, model: Model) -> str:
    key = f"{model['name']}@{model['step']}"
    for logged in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
        if logged.tags.get(_KEY) == key:
            return str(logged.model_id)
    created = client.create_logged_model(
        experiment_id,
        name=clean_model_name(model["name"]),
        source_run_id=run_id,
        tags={_KEY: key},
        model_type="checkpoint",
    )
    return str(created.model_id)


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
        mlflow_model=MlflowModel(
            artifact_path=clean_model_name(model["name"]), run_id=run_id, model_uuid=model_id, model_id=model_id
        ),
    )


def _link_model(client: "MlflowClient", run_id: str, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    if not any(output.model_id == model_id for output in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
