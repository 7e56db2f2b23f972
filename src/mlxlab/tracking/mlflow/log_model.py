"""Logs models of a run folder to MLflow, and registers them. The folder may come from anyone.

A model loads with `mlflow.pyfunc.load_model`, by the code of the installed mlxlab, never by anything that a journal
names. It has the parameters of its run and the metrics of its step.
"""

import math
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import DataError
from mlxlab.schema.metric_names import is_better
from mlxlab.tracking.copy_artifact import copy_artifact
from mlxlab.tracking.one_line import one_line
from mlxlab.tracking.records import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run


NAME = "best"
LOADER = (
    "mlxlab.inference.pyfunc_model"  # has `_load_pyfunc(folder)`, the loader that MLflow documents
)
FOLDER = "artifacts"  # within the data of the model
# Prefixes of the parameters that a model shares with its run.
PARAMS = ("model.", "data.", "trainer.", "seed", "choices.")
_KEY = "mlxlab.key"  # tag: `<name>@<step>`, so that no model is made twice


def log_model(client: "MlflowClient", run_id: str, folder: Path, model: Model) -> None:
    """Logs the model of a journal. Raises UserError if its files are not those of a model."""
    from mlflow.entities import LoggedModelOutput

    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / FOLDER
        data.mkdir()
        for name in model["files"].values():
            copy_artifact(folder, name, data)
        models = models_of(client, run, model["step"]) or [_create(client, run, model["step"])]
        logged = models[-1]
        path = Path(temporary) / "model"
        try:
            # Warnings are advice to authors; MLflow resets "ignore" alone.
            with warnings.catch_warnings(action="ignore", record=True):
                _save(path, data, model, run_id, logged.model_id)
        except Exception as error:  # MLflow raises anything: a signature may be anything.
            client.finalize_logged_model(logged.model_id, "FAILED")
            raise DataError(one_line(error)) from error
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs else []
    if logged.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, model["step"])])
    _log_metrics(client, run, model["step"], logged.model_id)


def models_of(client: "MlflowClient", run: "Run", step: int | None = None) -> list["LoggedModel"]:
    """The models that a run has logged, at a step or at any, the newest last."""
    condition = f"source_run_id = '{run.info.run_id}'"
    models = client.search_logged_models([run.info.experiment_id], condition)
    ordered = sorted(models, key=lambda model: model.creation_timestamp)
    return [model for model in ordered if step is None or model.tags.get(_KEY) == f"{NAME}@{step}"]


def _create(client: "MlflowClient", run: "Run", step: int) -> "LoggedModel":
    params = {key: value for key, value in run.data.params.items() if key.startswith(PARAMS)}
    return client.create_logged_model(
        run.info.experiment_id,
        NAME,
        run.info.run_id,
        {_KEY: f"{NAME}@{step}"},
        params,
        model_type="checkpoint",
    )


def _save(path: Path, data: Path, model: Model, run_id: str, model_id: str) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model as MlflowModel
    from mlflow.models import ModelSignature

    signature = model["signature"]
    mlflow.pyfunc.save_model(
        path,
        loader_module=LOADER,
        data_path=str(data),
        pip_requirements=[f"mlxlab=={metadata.version('mlxlab')}"],
        signature=ModelSignature.from_dict(signature) if signature else None,
        mlflow_model=MlflowModel(
            artifact_path=NAME, run_id=run_id, model_uuid=model_id, model_id=model_id
        ),
    )


def _log_metrics(client: "MlflowClient", run: "Run", step: int, model_id: str) -> None:
    """The metrics of the run at the model's step.

    MLflow adds them to the run too, where they are equal to the rows that it has: the times are those of these rows.
    """
    from mlflow.entities import Metric

    run_id = run.info.run_id
    metrics = []
    for key in run.data.metrics:
        for row in client.get_metric_history(run_id, key):
            if row.step == step:
                metric = Metric(key, row.value, row.timestamp, step, model_id, run_id=run_id)
                metrics.append(metric)
    client.log_batch(run_id, metrics=metrics)


def register_model(
    client: "MlflowClient",
    run_id: str,
    name: str,
    alias: str | None,
    metric: str | None,
    min_improvement: float = 0.0,
) -> str:
    """Registers the newest model of a run, once, and moves the alias if it is better; returns what was done.

    Raises:
        DataError: the run has logged no model.
    """
    models = models_of(client, client.get_run(run_id))
    if not models or models[-1].status != "READY":
        raise DataError(f"run {run_id[:8]} has logged no model")
    version = _find_or_create(client, models[-1], name)
    outcome = f"registered {name} version {version}"
    if alias is None:
        return outcome
    holder = client.get_registered_model(name).aliases.get(alias)
    if metric is not None and str(holder or version) != version:
        new = _metric_of(client, name, version, metric)
        old = _metric_of(client, name, str(holder), metric)
        if math.isnan(old) or not is_better(metric, new, old, min_improvement):
            reason = f"{metric} {new:.6g} is not better than {old:.6g}"
            return f"{outcome}, {alias} stays at version {holder}: {reason}"
        outcome += f" with {metric} {new:.6g} instead of {old:.6g}"
    client.set_registered_model_alias(name, alias, version)
    return f"{outcome}, {alias} is version {version}"


def _find_or_create(client: "MlflowClient", model: "LoggedModel", name: str) -> str:
    """The version of a model."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    uri = f"models:/{model.model_id}"
    for version in client.search_model_versions(f"name='{name}'"):
        if version.source == uri:
            return str(version.version)
    run_id = model.source_run_id
    created = client.create_model_version(name, uri, run_id, model_id=model.model_id)
    return str(created.version)


def _metric_of(client: "MlflowClient", name: str, version: str, metric: str) -> float:
    """A metric of the logged model of a version; NaN if it has none."""
    source = client.get_model_version(name, version).source or ""
    if not source.startswith("models:/m-"):
        return math.nan
    model = client.get_logged_model(source.removeprefix("models:/"))
    return next((each.value for each in model.metrics or [] if each.key == metric), math.nan)
