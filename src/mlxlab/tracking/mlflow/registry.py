"""Registers the logged models of runs in the model registry of a store."""

import math
from typing import TYPE_CHECKING

from mlxlab.errors import DataError
from mlxlab.schema.metric_names import is_better
from mlxlab.tracking.mlflow.log_model import models_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel


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
