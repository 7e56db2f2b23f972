"""The subcommands that read runs: list, show, diff."""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Annotated

from mlxlab import terminal
from mlxlab.cli.print_json import print_json, print_result
from mlxlab.config.paths import project_root
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError
from mlxlab.experiment.past_run.lookup import find_run, open_reader
from mlxlab.experiment.past_run.past_runs import PastRuns, folder_run
from mlxlab.metric_names import TEST, VALID
from mlxlab.tracking.mlflow.destination import mlflow_destination
from mlxlab.tracking.mlflow.names import clean
from mlxlab.tracking.queue import Queue
from mlxlab.tracking.runs.diff import diff
from mlxlab.tracking.runs.listing import FACTS, Columns, format_list
from mlxlab.tracking.runs.reader import RunReader, RunRow
from mlxlab.tracking.runs.tables import format_diff, format_run

log = logging.getLogger("mlxlab.cli.runs")

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
Limit = Annotated[int, Ge(1), Le(100_000)]


def list_runs(
    limit: Limit = 20,
    sort: str | None = None,
    filter: str | None = None,
    status: str | None = None,
    experiment: str | None = None,
    sweep: str | None = None,
    columns: str | None = None,
    metrics: str | None = None,
    params: str | None = None,
    best: str | None = None,
    uri: str | None = None,
    below: Path | None = None,
    json: bool = False,
) -> None:
    """Lists runs: of the run folders in outputs/ and multirun/, or of a store if a condition or a store is given.

    On a terminal, columns that do not fit it are left out unless they were requested.

    Args:
        limit: how many runs are listed.
        sort: metric to order by, the best last value first; the newest run first if not given.
        filter: only runs that meet it, in MLflow's language: "metrics.`valid/accuracy` > 0.8 and params.seed = '1'".
        status: only runs of this status: RUNNING, SCHEDULED, FINISHED, FAILED, KILLED.
        experiment: only runs of this experiment.
        sweep: only jobs of this sweep, named as RUN.
        columns: facts, separated by commas: run, name, data, status, started, took, experiment, parent, folder; or all.
        metrics: columns of latest values, separated by commas.
        params: columns of parameters, separated by commas.
        best: columns of the best values of metrics in each run, separated by commas.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        below: the folder whose run folders are listed, instead of outputs/ and multirun/; `in=` for short.
        json: prints JSON instead.
    """
    facts = _facts(columns)
    if status is not None and status.upper() not in STATUSES:
        raise ConfigError(f"status={status}: expected one of {', '.join(STATUSES)}")
    shown = Columns(facts, None if metrics is None else _split(metrics), _split(params), sort=sort)
    asks_store = filter or status or experiment or sweep or sort or best
    runs = folder_run().newest_runs(_folders(below, bool(asks_store), uri), limit)
    if runs or below is not None:
        _print(runs, shown, json)
        return
    reader = open_reader(uri)
    where = _conditions(reader, filter, status, sweep)
    runs = reader.list_runs(limit=limit, where=where, experiment=experiment, sort=sort)
    known: set[str] = set()
    for run in runs:
        known |= {*run.metrics, *run.params}
    for option, text in {"sort": sort, "metrics": metrics, "best": best, "params": params}.items():
        for key in _split(text):
            if clean(key) not in known and (runs or option == "sort"):
                raise ConfigError(f"{option}={key}: no such key in the runs that are listed")
    if metrics is None:
        reader.load_best(runs)
    bests = {key: reader.best_values(runs, key) for key in _split(best)}
    _print(runs, shown._replace(best=bests), json)
    queue = Queue(mlflow_destination(uri, None, project_root()), project_root())
    waiting = queue.entries()
    if waiting:
        log.info(f"{len(waiting)} runs are not complete in the store yet: mlxlab runs sync")


def _folders(below: Path | None, asks_store: bool, uri: str | None) -> list[Path]:
    """The folders below which runs are listed; none if a store is asked."""
    if below is not None:
        if asks_store:
            raise ConfigError(f"below={below}: expected no condition, which only a store answers")
        return [below]
    if asks_store or uri is not None or "MLFLOW_TRACKING_URI" in os.environ:
        return []
    return [project_root() / "outputs", project_root() / "multirun"]


def _conditions(
    reader: RunReader, filter: str | None, status: str | None, sweep: str | None
) -> str:
    """All that a run has to meet, in MLflow's language."""
    conditions = [filter] if filter else []
    if status is not None:
        conditions.append(f"attributes.status = '{status.upper()}'")
    if sweep is not None:
        conditions.append(f"tags.`mlflow.parentRunId` = '{find_run(reader, sweep).run_id}'")
    return " and ".join(conditions)


def show(run: str, uri: str | None = None, json: bool = False) -> None:
    """Shows a run.

    Args:
        run: the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    row = PastRuns(uri).find(run)
    print_result(_as_json(row, {}), format_run(row), json)


def show_diff(run: str, other: str, uri: str | None = None, json: bool = False) -> None:
    """Prints what differs between two runs: config, data, code, metrics.

    Args:
        run: the beginning of its id, its name, or its folder.
        other: the run that it is compared with.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    past_runs = PastRuns(uri)
    first = past_runs.find(run)
    second = past_runs.find(other)
    difference = diff(first, second)
    if not json:
        _name_evaluation([first, second])
    value = {"runs": [first.run_id, second.run_id], **difference}
    print_result(value, format_diff(first, second, difference), json)


def _print(runs: list[RunRow], columns: Columns, json: bool) -> None:
    if json:
        print_json([_as_json(run, columns.best) for run in runs])
    elif not runs:
        terminal.show("no runs")
    else:
        width = terminal.columns()
        listing = format_list(runs, columns, width)
        _name_evaluation(runs)
        terminal.show(listing.table)
        if listing.left_out:
            log.info(f"left out at {width} columns: {', '.join(listing.left_out)} (columns=all)")


def _as_json(run: RunRow, best: Mapping[str, Mapping[str, float]]) -> dict[str, object]:
    """All that was read of a run, with times in UTC; `best` adds the best values of metrics to that of the objective."""
    values = {key: values.get(run.run_id) for key, values in best.items()}
    result = {**vars(run), "best": {**run.best, **values}}
    for key in ("start", "end"):
        if result[key] is not None:
            time = datetime.fromtimestamp(result[key] / 1000, UTC)
            result[key] = time.isoformat(timespec="milliseconds")
    return result


def _name_evaluation(runs: Sequence[RunRow]) -> None:
    """Says which evaluation the metrics in the table below are of."""
    metrics = chain.from_iterable(run.metrics for run in runs)
    if any(key.startswith(VALID) for key in metrics):
        log.info(
            f"{VALID} metrics are of the last evaluation, (best) of the best one; {TEST} metrics of the best weights"
        )


def _facts(columns: str | None) -> Sequence[str] | None:
    """The columns that are neither metrics nor parameters; None chooses them by the width of the terminal."""
    if columns is None:
        return None
    if columns == "all":
        return FACTS
    names = _split(columns)
    for name in names or [""]:
        if name not in FACTS:
            raise ConfigError(f"columns={name}: expected all, or some of {','.join(FACTS)}")
    return names


def _split(text: str | None) -> list[str]:
    return [key for key in (text or "").split(",") if key]
