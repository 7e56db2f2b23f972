"""The model registry of a store: versions of models, and which of them has an alias.

The step and the metrics of a version are those of its logged model.
"""

import math
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from mlxlab.errors import DataError
from mlxlab.metric_names import TEST, VALID, is_better
from mlxlab.tracking.mlflow.log_model import model_uri, models_of, step_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

LOGGED = "models:/m-"  # source of a version that is a logged model


class Version(NamedTuple):
    """A version of a registered model, with the step of its checkpoint and the metrics of that step.

    A version that is no logged model has no step and no metrics.
    """

    number: int
    aliases: list[str]
    created: int  # ms since 1970
    run_id: str
    step: int | None
    metrics: dict[str, float]


def register_model(
    client: "MlflowClient",
    run_id: str,
    name: str,
    alias: str | None,
    metric: str | None,
    min_improvement: float = 0.0,
    step: int | None = None,
) -> str:
    """Registers a model that a run has logged, once, and moves the alias if it is better; returns what was done.

    Args:
        step: of the model; None takes the newest one.

    Raises:
        DataError: the run has no such model.
    """
    models = models_of(client, client.get_run(run_id), step)
    if not models or models[-1].status != "READY":
        raise DataError(f"run {run_id[:8]} has logged no such model")
    number = _find_or_create(client, models[-1], name)
    outcome = f"registered {name} version {number}"
    if alias is None:
        return outcome
    holder = aliases_of(client, name).get(alias)
    if holder not in (None, number) and metric is not None:
        metrics = {version.number: version.metrics for version in versions_of(client, name)}
        new = metrics[number].get(metric, math.nan)
        old = metrics[holder].get(metric, math.nan)
        if math.isnan(old) or not is_better(metric, new, old, min_improvement):
            reason = f"{metric} {new:.6g} is not better than {old:.6g}"
            return f"{outcome}, {alias} stays at version {holder}: {reason}"
        outcome += f" with {metric} {new:.6g} instead of {old:.6g}"
    move(client, name, alias, number)
    return f"{outcome}, {alias} is version {number}"


def names(client: "MlflowClient") -> list[str]:
    return [model.name for model in client.search_registered_models(max_results=1000)]


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    aliases = client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in sorted(aliases.items())}


def versions_of(client: "MlflowClient", name: str) -> list[Version]:
    """Newest first."""
    aliases = aliases_of(client, name)
    found = client.search_model_versions(f"name='{name}'")
    versions = [_version(client, each, aliases) for each in found]
    return sorted(versions, key=lambda version: -version.number)


def find_version(client: "MlflowClient", name: str, label: str) -> int:
    """The version of a number or an alias."""
    aliases = aliases_of(client, name)
    if label in aliases:
        return aliases[label]
    return int(client.get_model_version(name, label).version)


def move(client: "MlflowClient", name: str, alias: str, version: int) -> bool:
    """Gives a version the alias; False if it has it already."""
    if aliases_of(client, name).get(alias) == version:
        return False
    client.set_registered_model_alias(name, alias, str(version))
    return True


def _find_or_create(client: "MlflowClient", model: "LoggedModel", name: str) -> int:
    """The version of a model."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    uri = model_uri(model)
    for version in client.search_model_versions(f"name='{name}'"):
        if version.source == uri:
            return int(version.version)
    run_id = model.source_run_id
    created = client.create_model_version(name, uri, run_id, model_id=model.model_id)
    return int(created.version)


def _version(client: "MlflowClient", item: "ModelVersion", aliases: dict[str, int]) -> Version:
    from mlflow.exceptions import MlflowException

    number = int(item.version)
    step = None
    metrics = {}
    if (item.source or "").startswith(LOGGED):
        with suppress(MlflowException):  # The model was deleted.
            model = client.get_logged_model(item.source.removeprefix("models:/"))
            step = step_of(model)
            metrics = {each.key: each.value for each in model.metrics or []}
    return Version(
        number,
        [alias for alias, version in aliases.items() if version == number],
        int(item.creation_timestamp),
        item.run_id or "",
        step,
        {key: metrics[key] for key in metrics if key.startswith((VALID, TEST))},
    )
