"""Registers the logged model of a run, with an alias for the best version.

    mlxlab registry register RUN NAME [alias=champion] [metric=valid/loss] [min_improvement=0.01]

MLflow lists versions and moves aliases by hand: `mlxlab ui`, or its client. --json prints JSON.

Example
    mlxlab predict run=models:/NAME@champion input=FILE output=predictions.csv
"""

from mlxlab.cli.app import print_result
from mlxlab.config.paths import project_root
from mlxlab.past_runs.lookup import find_run, open_reader
from mlxlab.schema.constraints import NonNegative
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.log_model import register_model
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.tracking.one_line import mlflow_errors

ACTIONS = {"register": "register"}


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
    address = resolve(uri, None, project_root())
    client = open_existing(address)
    with mlflow_errors(address.shown):
        outcome = register_model(client, row.run_id, name, alias, metric, min_improvement)
    print_result({"model": name, "run": row.run_id, "outcome": outcome}, outcome, json)
