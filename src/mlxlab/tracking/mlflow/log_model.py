"""Logs models of a run folder to MLflow. The folder may come from anyone.

A model loads with `mlflow.pyfunc.load_model`. Its code, packages and requirements are those of the installed mlxlab,
never anything a journal names: MLflow runs that code.
"""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import DataError
from mlxlab.tracking import provenance
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.mlflow.errors import one_line
from mlxlab.tracking.records import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

PACKAGE = Path(__file__).resolve().parents[2]
CODE = PACKAGE / "inference" / "pyfunc_model.py"
NAME = "best"
_KEY = "mlxlab.key"  # tag: `<name>@<step>`, so that no model is made twice


def log_model(
    client: "MlflowClient",
    experiment_id: str,
    run_id: str,
    folder: Path,
    model: Model,
    max_bytes: int | None = None,
) -> str:
    """Logs the model of a journal; returns its URI. Raises UserError if its files are not those of a model."""
    from mlflow.entities import LoggedModelOutput

    with tempfile.TemporaryDirectory() as temporary:
        paths = enumerate(model["files"].items())
        files = {
            name: copy_artifact(folder, path, Path(temporary, str(number)), max_bytes)
            for number, (name, path) in paths
        }
        logged = find_model(client, experiment_id, run_id, model["step"])
        if logged is None:
            tags = {_KEY: _key(model["step"])}
            logged = client.create_logged_model(
                experiment_id, NAME, run_id, tags, model_type="checkpoint"
            )
        model_id = str(logged.model_id)
        path = Path(temporary) / "model"
        try:
            with warnings.catch_warnings(
                action="ignore", record=True
            ):  # advice to authors; MLflow resets "ignore"
                _save(path, model, files, run_id, model_id)
        except (
            Exception
        ) as error:  # MLflow runs the model's code here: anything may be wrong with a checkpoint
            client.finalize_logged_model(model_id, "FAILED")
            raise DataError(one_line(error)) from error
        client.log_model_artifacts(model_id, str(path))
    client.finalize_logged_model(model_id, "READY")
    outputs = client.get_run(run_id).outputs
    if not any(
        output.model_id == model_id for output in (outputs.model_outputs if outputs else [])
    ):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, model["step"])])
    return model_uri(logged)


def find_model(
    client: "MlflowClient", experiment_id: str, run_id: str, step: int
) -> "LoggedModel | None":
    """The model that a run logged at a step."""
    models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    return next((model for model in models if model.tags.get(_KEY) == _key(step)), None)


def model_uri(model: "LoggedModel") -> str:
    return f"models:/{model.model_id}"


def _key(step: int) -> str:
    return f"{NAME}@{step}"


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
            artifact_path=NAME, run_id=run_id, model_uuid=model_id, model_id=model_id
        ),
    )
