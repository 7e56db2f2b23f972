"""A checkpoint as a model in the store, which `mlflow.pyfunc.load_model` loads. The model is code, not a pickle."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from mlxlab.tracking.mlflow.errors import one_line


def log_model(
    client: Any, run: dict[str, Any], folder: Path, model: dict[str, Any], known: dict[str, str]
) -> str | None:
    """Logs the model of a journal line; returns why it was left out, or None.

    Args:
        run: its `run_id` and `experiment_id`.
        known: model name -> id of those already begun, kept by the caller: none is made twice.
    """
    files = {name: folder / path for name, path in model["files"].items()}
    lost = next((path for path in [*files.values(), Path(model["code"])] if not path.exists()), None)
    if lost:
        return f"{lost} is not there"
    key = f"{model['name']}@{model['step']}"
    if key not in known:
        known[key] = _find(client, run, key) or _begin(client, run, model, key)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model"
        try:
            with warnings.catch_warnings(action="ignore"):  # advice for authors of models
                _save(path, model, files, run["run_id"], known[key])
        except Exception as error:
            client.finalize_logged_model(known[key], "FAILED")
            return one_line(error)
        client.log_model_artifacts(known[key], str(path))
    client.finalize_logged_model(known[key], "READY")
    _link_model(client, run["run_id"], known[key], model["step"] or 0)
    return None


def _begin(client: Any, run: dict[str, Any], model: dict[str, Any], key: str) -> str:
    begun = client.create_logged_model(
        run["experiment_id"],
        name=model["name"],
        source_run_id=run["run_id"],
        tags={"mlxlab.key": key},
        model_type="checkpoint",
    )
    return begun.model_id


def _find(client: Any, run: dict[str, Any], key: str) -> str | None:
    for found in client.search_logged_models([run["experiment_id"]], f"source_run_id = '{run['run_id']}'"):
        if found.tags.get("mlxlab.key") == key:
            return found.model_id
    return None


def _save(path: Path, model: dict[str, Any], files: dict[str, Path], run_id: str, model_id: str) -> None:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import Model, ModelSignature

    signature, example = model["signature"], model["example"]
    mlflow.pyfunc.save_model(
        path,
        python_model=model["code"],
        artifacts={name: str(file) for name, file in files.items()},
        code_paths=model["packages"],
        pip_requirements=model["requirements"],
        signature=ModelSignature.from_dict(signature) if signature else None,
        input_example=pd.DataFrame(example) if example else None,
        mlflow_model=Model(artifact_path=model["name"], run_id=run_id, model_uuid=model_id, model_id=model_id),
    )


def _link_model(client: Any, run_id: str, model_id: str, step: int) -> None:
    from mlflow.entities import LoggedModelOutput

    outputs = client.get_run(run_id).outputs
    if not any(output.model_id == model_id for output in (outputs.model_outputs if outputs else [])):
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
