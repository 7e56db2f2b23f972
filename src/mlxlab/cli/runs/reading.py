"""The subcommands that read runs: list, show, diff."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from mlxlab import terminal
from mlxlab.cli.print_json import print_json, print_result
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.past_runs.lookup import open_reader
from mlxlab.schema.constraints import Ge, Le
from mlxlab.tracking.mlflow.destination import mlflow_destination
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.mlflow.runs import RunRow, diff
from mlxlab.tracking.queue import Queue
from mlxlab.views.runs import difference_table, list_table, run_tables

log = logging.getLogger("mlxlab.cli.runs")

Limit = Annotated[int, Ge(1), Le(100_000)]


def list_runs(
    limit: Limit = 20,
    sort: str | None = None,
    filter: str | None = None,
    experiment: str | None = None,
    metrics: str | None = None,
    params: str | None = None,
    uri: str | None = None,
    below: Path | None = None,
    json: bool = False,
) -> None:
    """Lists runs: of the run folders in outputs/ and multirun/, or of a store if a condition or a store is given.

    On a terminal, columns that do not fit it are left out.

    Args:
        limit: how many runs are listed.
        sort: metric to order by, the best last value first; the newest run first if not given.
        filter: only runs that meet it, in MLflow's language: "metrics.`valid/accuracy` > 0.8 and params.seed = '1'".
        experiment: only runs of this experiment.
        metrics: columns of latest values, separated by commas; if not given, main metrics: in run folders of the best evaluation.
        params: columns of parameters, separated by commas.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        below: the folder whose run folders are listed, instead of outputs/ and multirun/; `in=` for short.
        json: prints JSON instead.
    """
    from mlxlab.past_runs.lookup import newest_runs

    keys = _split(metrics)
    names = _split(params)
    runs = newest_runs(_folders(below, bool(filter or experiment or sort), uri), limit)
    if not runs and below is None:
        reader = open_reader(uri)
        runs = reader.list_runs(limit=limit, where=filter or "", experiment=experiment, sort=sort)
        _warn_of_waiting_runs(uri)
    known = {key for run in runs for key in (*run.metrics, *run.params)}
    for key in (*keys, *names, *_split(sort)):
        if clean(key) not in known:
            raise ConfigError(f"{key}: no such key in the runs that are listed")
    if json:
        print_json([_as_json(run) for run in runs])
    elif runs:
        terminal.show(list_table(runs, keys or _split(sort), names, terminal.columns()))
    else:
        terminal.show("no runs")


def _folders(below: Path | None, asks_store: bool, uri: str | None) -> list[Path]:
    """The folders below which runs are listed; none if a store is asked."""
    if below is not None:
        if asks_store:
            raise ConfigError(f"below={below}: expected no condition, which only a store answers")
        return [below]
    if asks_store or uri is not None or "MLFLOW_TRACKING_URI" in os.environ:
        return []
    return [project_root() / "outputs", project_root() / "multirun"]


def _warn_of_waiting_runs(uri: str | None) -> None:
    queue = Queue(mlflow_destination(uri, None, project_root()), project_root())
    waiting = queue.entries()
    if waiting:
        log.info(f"{len(waiting)} runs are not complete in the store yet: mlxlab runs sync")


def show(run: str, uri: str | None = None, json: bool = False) -> None:
    """Shows a run.

    Args:
        run: the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    from mlxlab.past_runs.lookup import find_row

    row = find_row(run, uri)
    print_result(_as_json(row), run_tables(row), json)


def show_diff(run: str, other: str, uri: str | None = None, json: bool = False) -> None:
    """Prints what differs between two runs: config, data, code, metrics.

    Args:
        run: the beginning of its id, its name, or its folder.
        other: the run that it is compared with.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    from mlxlab.past_runs.lookup import find_row

    first = find_row(run, uri)
    second = find_row(other, uri)
    difference = diff(first, second)
    value = {"runs": [first.run_id, second.run_id], **difference}
    print_result(value, difference_table(first, second, difference), json)


def _as_json(run: RunRow) -> dict[str, object]:
    """All that was read of a run, with times in UTC."""
    values = dict(vars(run))
    for key in ("start", "end"):
        if values[key] is not None:
            time = datetime.fromtimestamp(values[key] / 1000, UTC)
            values[key] = time.isoformat(timespec="milliseconds")
    return values


def _split(text: str | None) -> list[str]:
    return [key for key in (text or "").split(",") if key]
