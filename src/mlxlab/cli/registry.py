"""Registered models: their versions, and which of them has an alias.

    mlxlab registry register RUN NAME [alias=champion] [metric=valid/loss] [min_improvement=0.01]
    mlxlab registry list [NAME]
    mlxlab registry promote NAME VERSION [alias=champion]

A VERSION is a number or an alias. promote gives an alias to a version; twice is the same as once. --json prints JSON.

Example
    mlxlab predict run=models:/NAME@champion input=FILE output=predictions.csv
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from mlxlab.cli.print_json import print_result
from mlxlab.config.paths import project_root
from mlxlab.constraints import NonNegative
from mlxlab.experiment.past_run.lookup import find_run, open_reader
from mlxlab.tracking.mlflow import registry
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.registry import Version
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.tracking.one_line import mlflow_errors
from mlxlab.views.numbers import moment
from mlxlab.views.runs import ordered, table

ACTIONS = {
    "register": "register",
    "list": "list_models",
    "promote": "promote",
}
MAX_METRICS = 4  # columns of a list


def list_models(name: str | None = None, json: bool = False, uri: str | None = None) -> None:
    """Lists the registered models, or the versions of one.

    Args:
        name: of a model.
        json: prints JSON instead of a table.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    with _open(uri) as client:
        if name is not None:
            _print_versions(registry.versions_of(client, name), json)
            return
        models = {each: registry.aliases_of(client, each) for each in registry.names(client)}
    rows = []
    for each, aliases in models.items():
        rows.append([each, ", ".join(f"{alias}={version}" for alias, version in aliases.items())])
    text = table(["model", "aliases"], rows) if rows else "no registered models"
    print_result([{"name": each, "aliases": models[each]} for each in models], text, json)


def register(
    run: str,
    name: str,
    alias: str | None = None,
    metric: str | None = None,
    min_improvement: NonNegative = 0.0,
    uri: str | None = None,
    json: bool = False,
) -> None:
    """Registers the logged model of a run as a new version.

    Args:
        run: the beginning of its id, its name, or its folder.
        name: of the registered model, which is created unless it exists.
        alias: moved to the new version, if it is better than the version that has it.
        metric: by which the two are compared; null always moves the alias.
        min_improvement: the alias is moved only if the metric is better by more than this.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    row = find_run(open_reader(uri), run)
    with _open(uri) as client:
        outcome = registry.register_model(client, row.run_id, name, alias, metric, min_improvement)
    print_result({"model": name, "run": row.run_id, "outcome": outcome}, outcome, json)


def promote(
    name: str, version: str, alias: str = "champion", uri: str | None = None, json: bool = False
) -> None:
    """Gives an alias to a version.

    Args:
        name: of a model.
        version: its number, or an alias that it has.
        alias: the one to move.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    with _open(uri) as client:
        number = registry.find_version(client, name, version)
        moved = registry.move(client, name, alias, number)
    verb = "is" if moved else "was already"
    value = {"model": name, "alias": alias, "version": number, "moved": moved}
    print_result(value, f"{name}: {alias} {verb} version {number}", json)


@contextmanager
def _open(uri: str | None) -> Iterator[Any]:
    address = resolve(uri, None, project_root())
    with mlflow_errors(address.shown):
        yield open_existing(address)


def _print_versions(versions: list[Version], json: bool) -> None:
    metrics = set(chain.from_iterable(version.metrics for version in versions))
    keys = ordered(metrics, [])[:MAX_METRICS]
    rows = []
    for version in versions:
        cells = [version.number, ", ".join(version.aliases), moment(version.created / 1000)]
        cells += [version.run_id[:8], version.step]
        rows.append([*cells, *map(version.metrics.get, keys)])
    text = table(["version", "aliases", "registered", "run", "step", *keys], rows)
    print_result([version._asdict() for version in versions], text, json)
