"""The model registry of a store: versions of models, and which of them has an alias.

The step and the metrics of a version are those of its logged model. MLflow keeps only where an alias is now: a tag of
the registered model keeps its last move, for `rollback`.
"""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypedDict

from annotated_types import Ge

from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.metric_names import TEST, VALID, is_better
from mlxlab.tracking.mlflow.log_model import find_model, model_uri, step_of
from mlxlab.tracking.one_line import REFUSED, one_line, printable
from mlxlab.tracking.records import Registration

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

LOGGED = "models:/m-"  # source of a version that is a logged model
MOVE = "mlxlab.move."  # Tag of a registered model, with the alias.
REFUSALS = (  # of a registry, which another attempt does not cure
    *REFUSED,
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "FEATURE_DISABLED",
    "ENDPOINT_NOT_FOUND",
    "NOT_IMPLEMENTED",
)

VersionNumber = Annotated[int, Ge(1)]


class AliasMove(TypedDict):
    version: VersionNumber
    previous: VersionNumber | None  # version that had the alias


@dataclass(frozen=True)
class Version:
    """A version of a registered model. One that is no logged model has no step and no metrics."""

    number: int
    created: int  # ms since 1970
    run_id: str
    step: int | None  # of the checkpoint
    metrics: dict[str, float]  # at that step
    aliases: tuple[str, ...]


def register_model(client: "MlflowClient", run_id: str, registration: Registration) -> str:
    """Registers the model that a run has logged, once, and moves the alias if it is better; returns what was done.

    Raises DataError if the model cannot be registered, now or later.
    """
    model = find_model(client, client.get_run(run_id), registration["step"])
    if model is None or model.status != "READY":
        raise DataError(f"the checkpoint of step {registration['step']} was not logged")
    try:
        return _register(client, model, registration)
    except Exception as error:  # of MLflow, of a database or of HTTP: it has no common base
        if getattr(error, "error_code", "") in REFUSALS:
            raise DataError(one_line(error)) from error
        raise  # The record is sent again.


def register_run(
    client: "MlflowClient", run_id: str, name: str, alias: str | None, metric: str | None
) -> str:
    """Registers the newest model that a run has logged, once; arguments and result as of `register_model`."""
    experiment = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    if not models:
        raise DataError(f"run {run_id[:8]} has logged no model")
    model = max(models, key=lambda model: model.creation_timestamp)
    registration: Registration = {
        "name": name,
        "alias": alias,
        "metric": metric,
        "min_improvement": 0.0,
        "step": step_of(model),
    }
    return _register(client, model, registration)


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
    """The version of a number or an alias; ConfigError if there is none."""
    for version in versions_of(client, name):
        if label == str(version.number) or label in version.aliases:
            return version.number
    raise ConfigError(f"{name}: no version or alias {label}")


def move(client: "MlflowClient", name: str, alias: str, version: int) -> bool:
    """Gives a version the alias; False if it has it already."""
    previous = aliases_of(client, name).get(alias)
    if previous == version:
        return False
    last: AliasMove = {"version": version, "previous": previous}
    # The tag comes first: if the process dies in between, the same command again completes the move.
    client.set_registered_model_tag(name, MOVE + alias, json.dumps(last))
    client.set_registered_model_alias(name, alias, str(version))
    return True


def rollback(client: "MlflowClient", name: str, alias: str) -> tuple[int, bool]:
    """Gives the alias back to the version that had it before the last move; returns it, and whether it moved.

    A second rollback changes nothing: to go back further, promote that version.
    """
    model = client.get_registered_model(name)
    now = int(model.aliases.get(alias, 0))
    tag = model.tags.get(MOVE + alias)
    if tag is None:
        raise ConfigError(f"{name}: no move of alias {alias} is known")
    last = parse_json(tag, AliasMove, f"{name}: tag {MOVE}{alias}")
    target = last["previous"]
    if target is None:
        raise ConfigError(f"{name}: version {last['version']} is the first with alias {alias}")
    if now == target:
        return target, False
    if now != last["version"]:
        raise ConfigError(f"{name}: another program moved {alias}; choose a version by promote")
    client.set_registered_model_alias(name, alias, str(target))
    return target, True


def _register(client: "MlflowClient", model: "LoggedModel", registration: Registration) -> str:
    name = registration["name"]
    alias = registration["alias"]
    metric = registration["metric"]
    number = _find_or_create(client, model, name)
    outcome = f"registered {name} version {number}"
    if alias is None:
        return outcome
    holder = aliases_of(client, name).get(alias, number)
    moves = True
    if holder == number:
        reason = "the first with this alias"
    elif metric is None:
        reason = f"the newest, before it version {holder}"
    else:
        metrics = {version.number: version.metrics for version in versions_of(client, name)}
        new = metrics[number].get(metric, math.nan)
        old = metrics[holder].get(metric, math.nan)
        min_delta = registration["min_improvement"]
        moves = not math.isnan(old) and is_better(metric, new, old, min_delta)
        comparison = "better" if moves else "not better"
        reason = f"{metric} {new:.6g} is {comparison} than {old:.6g}"
        if min_delta:
            reason += f" by more than {min_delta:g}"
    if moves:
        move(client, name, alias, number)
        return f"{outcome}, {alias} is version {number}: {reason}"
    return f"{outcome}, {alias} stays at version {holder}: {reason}"


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
            for metric in model.metrics or []:
                if metric.key.startswith((VALID, TEST)):
                    metrics[printable(metric.key)] = metric.value
    return Version(
        number,
        created=int(item.creation_timestamp),
        run_id=item.run_id or "",
        step=step,
        metrics=metrics,
        aliases=tuple(alias for alias, version in aliases.items() if version == number),
    )
