"""The subcommands that read runs: list, find, show, compare, diff."""

import logging
from collections.abc import Sequence
from typing import Annotated

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.cli.runs.as_json import run_as_json
from mlxlab.cli.runs.select import check_keys, read_filter, select
from mlxlab.config.paths import project_root
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError
from mlxlab.experiment.past_run.lookup import open_reader
from mlxlab.experiment.past_run.past_runs import PastRuns
from mlxlab.metric_names import TEST, VALID
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.flush import pending_summary
from mlxlab.tracking.runs.diff import diff
from mlxlab.tracking.runs.listing import FACTS, Columns, default_metrics, format_list
from mlxlab.tracking.runs.objectives import load_best
from mlxlab.tracking.runs.reader import RunReader, RunRow
from mlxlab.tracking.runs.tables import format_comparison, format_diff, format_run

log = logging.getLogger("mlxlab.cli.runs")

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
    json: bool = False,
) -> None:
    """Lists runs. On a terminal, columns that do not fit it are left out unless they were requested.

    Args:
        limit: how many runs are listed.
        sort: metric to order by, the best last value first; the newest run first if not given.
        filter: only runs that meet it, 'metrics.valid/accuracy > 0.8 and params.seed = 1' for example.
        status: only runs of this status: RUNNING, SCHEDULED, FINISHED, FAILED, KILLED; or all.
        experiment: only runs of this experiment.
        sweep: only jobs of this sweep, named as RUN.
        columns: facts, separated by commas: run, name, data, status, started, took, experiment, parent, folder; or all.
        metrics: columns of latest values, separated by commas.
        params: columns of parameters, separated by commas.
        best: columns of the best values of metrics in each run, separated by commas.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    facts = _facts(columns)
    reader = open_reader(uri)
    names = {"sort": sort, "metrics": metrics, "best": best}
    for option, text in names.items():
        check_keys(reader, f"{option}=", _split(text), "metrics")
    check_keys(reader, "params=", _split(params), "params")
    runs = reader.list_runs(
        limit=limit, where=select(reader, filter, status, experiment, sweep), sort=sort
    )
    bests = {key: reader.best_values(runs, key) for key in _split(best)}
    shown = Columns(
        facts, None if metrics is None else _split(metrics), _split(params), bests, sort
    )
    _print(reader, runs, shown, json)
    if line := pending_summary(resolve(uri, None, project_root())):
        log.info(line)


def find(
    limit: Limit = 1000,
    sort: str | None = None,
    uri: str | None = None,
    json: bool = False,
    *,
    args: list[str],
) -> None:
    """Finds runs by a filter; prints their folders and the values that the filter is on.

    Args:
        limit: how many runs are printed.
        sort: metric to order by, the best first; the newest first if not given.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    if not args:
        raise ConfigError("find: expected a filter such as 'metrics.valid/accuracy > 0.8'")
    reader = open_reader(uri)
    sorted_by = [("metrics", sort)] if sort else []
    check_keys(reader, "sort=", _split(sort), "metrics")
    where = read_filter(reader, " ".join(args))
    runs = reader.list_runs(limit=limit, where=where, sort=sort)
    keys = dict.fromkeys(where.keys)
    params = [key for group, key in keys if group == "params"]
    metrics = [key for group, key in dict.fromkeys([*sorted_by, *keys]) if group == "metrics"]
    facts = [name for name in FACTS if name != "data"]  # it would load the parameters of all runs
    _print(reader, runs, Columns(facts, metrics, params), json)


def show(run: str, uri: str | None = None, json: bool = False) -> None:
    """Shows a run.

    Args:
        run: the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    past_runs = PastRuns(uri)
    row = past_runs.find(run)
    ranges, datasets = past_runs.ranges(row), past_runs.datasets(row)
    if json:
        histories = {key: each._asdict() for key, each in ranges.items()}
        print_json(run_as_json(row, datasets=datasets, histories=histories))
    else:
        terminal.show(format_run(row, ranges, datasets))


def compare(uri: str | None = None, json: bool = False, *, args: list[str]) -> None:
    """Puts metrics and settings of single runs side by side; `mlxlab compare` tests which method is better.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    runs = PastRuns(uri).find_all(args)
    if json:
        print_json([run_as_json(run) for run in runs])
    else:
        _name_evaluation(runs)
        terminal.show(format_comparison(runs))


def show_diff(uri: str | None = None, json: bool = False, *, args: list[str]) -> None:
    """Prints what differs between two runs: config, data, code, metrics.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    past_runs = PastRuns(uri)
    first, second = past_runs.find_all(args)
    difference = diff(first, second, past_runs.datasets(first), past_runs.datasets(second))
    if json:
        print_json({"runs": [first.run_id, second.run_id], **difference})
        return
    _name_evaluation([first, second])
    terminal.show(format_diff(first, second, difference))


def _print(reader: RunReader, runs: list[RunRow], columns: Columns, json: bool) -> None:
    if json or columns.params or columns.facts is None or "data" in columns.facts:
        reader.load_params(runs)
    elif columns.metrics is None:
        reader.load_tags(runs)  # for the objectives, which come first
    if columns.metrics is None:
        load_best(reader, runs, default_metrics(runs, columns.sort))
    if json:
        records = []
        for run in runs:
            best = {key: values.get(run.run_id) for key, values in columns.best.items()}
            records.append(run_as_json(run, best=best))
        print_json(records)
    elif not runs:
        terminal.show("no runs")
    else:
        width = terminal.columns()
        listing = format_list(runs, columns, width)
        if columns.metrics is None or columns.metrics:
            _name_evaluation(runs)
        terminal.show(listing.table)
        if listing.left_out:
            log.info(f"left out at {width} columns: {', '.join(listing.left_out)} (columns=all)")


def _name_evaluation(runs: Sequence[RunRow]) -> None:
    """Says which evaluation the metrics in the table below are of."""
    if any(key.startswith(VALID) for run in runs for key in run.metrics):
        log.info(
            f"{VALID} metrics are of the last evaluation, (best) of the best one; {TEST} metrics of the best weights"
        )


def _facts(columns: str | None) -> list[str] | None:
    """The columns that are neither metrics nor parameters; None chooses them by the width of the terminal."""
    if columns in (None, "all"):
        return [*FACTS] if columns else None
    names = _split(columns)
    for name in names or [""]:
        if name not in FACTS:
            raise ConfigError(f"columns={name}: expected all, or some of {','.join(FACTS)}")
    return names


def _split(text: str | None) -> list[str]:
    return [key for key in (text or "").split(",") if key]
