"""Lists, shows and compares tracked runs, and uploads runs that are not in the store yet.

    mlxlab runs list [limit=20] [sort=valid/accuracy] [status=FINISHED] [experiment=mlxlab] [metrics=valid/loss]
    mlxlab runs show run=RUN
    mlxlab runs compare RUN RUN ...
    mlxlab runs sync [RUN_FOLDER ...] [uri=sqlite:///mlflow.db] [artifacts=FOLDER]

RUN is the beginning of a run's id, its name, or its folder. `sync` refuses a folder that was recorded for another store
unless uri= (and artifacts=, if it keeps them elsewhere) names the store to upload to.
"""

import logging
import sys
from pathlib import Path
from typing import Annotated

from mlxlab.cli.app import Subcommand, build_main
from mlxlab.config.paths import project_root
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.flush import check_store, flush, pending_summary
from mlxlab.tracking.runs.reader import RunReader, RunRow, SqliteRunReader
from mlxlab.tracking.runs.tables import format_comparison, format_list, format_run

log = logging.getLogger(__name__)

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


def _list(
    limit: Annotated[int, Ge(1), Le(100_000)] = 20,
    sort: str | None = None,
    status: str | None = None,
    experiment: str | None = None,
    metrics: str | None = None,
    uri: str | None = None,
) -> None:
    """Lists runs.

    Args:
        limit: how many runs are listed.
        sort: metric to order by, the best first; the newest first if not given.
        status: only runs of this status: RUNNING, FINISHED, FAILED, KILLED.
        experiment: only runs of this experiment.
        metrics: columns, separated by commas.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    status = status and status.upper()
    if status is not None and status not in STATUSES:
        expected = f"expected one of {', '.join(STATUSES)}{suggestion(status, STATUSES)}"
        raise ConfigError(f"status={status}: {expected}")
    reader = _open(uri)
    if sort is not None and sort not in (known := reader.names("metrics")):
        raise ConfigError(f"sort={sort}: not in the store{suggestion(sort, known)}")
    if experiment is not None and experiment not in (known := reader.names("experiments")):
        raise ConfigError(f"experiment={experiment}: not in the store{suggestion(experiment, known)}")
    runs = reader.list_runs(limit=limit, experiment=experiment, status=status, sort=sort)
    print(format_list(runs, metrics.split(",") if metrics is not None else None) if runs else "no runs")
    if line := pending_summary(resolve(uri, None, project_root())):
        log.info(line)


def _show(run: str, uri: str | None = None) -> None:
    """Shows a run.

    Args:
        run: the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    reader = _open(uri)
    row = _find(reader, run)
    print(format_run(row, reader.metric_ranges(row.run_id)))


def _compare(uri: str | None = None, *, args: list[str]) -> None:
    """Compares runs.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """
    reader = _open(uri)
    print(format_comparison([_find(reader, name) for name in args]))


def _sync(uri: str | None = None, artifacts: str | None = None, *, args: list[str]) -> None:
    """Uploads runs.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
    """
    address, folders = resolve(uri, artifacts, project_root()), [Path(arg).absolute() for arg in args]
    for folder in folders if uri is None else ():
        check_store(folder, address)
    for line in flush(address, folders):
        print(line, flush=True)


def _find(reader: RunReader, query: str) -> RunRow:
    matches = reader.find_runs(query)
    matches = [run for run in matches if run.run_id == query] or matches
    if not matches:
        raise ConfigError(f"{query}: no such run{suggestion(query, reader.names('runs'))}")
    if len(matches) > 1:
        ids = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in matches[:5])
        raise ConfigError(f"{query}: matches {len(matches)} runs: {ids}")
    return matches[0]


def _open(uri: str | None) -> RunReader:
    """Reads an SQLite store directly, any other through MLflow's client, which is slow to import."""
    address = resolve(uri, None, project_root())
    if address.database:
        return SqliteRunReader(address.database)
    from mlxlab.tracking.runs.mlflow_reader import MlflowRunReader

    return MlflowRunReader(address)


main = build_main(
    __doc__,
    {
        "list": Subcommand(_list),
        "show": Subcommand(_show),
        "compare": Subcommand(_compare, num_positional=(2, 20)),
        "sync": Subcommand(_sync, num_positional=(0, sys.maxsize)),
    },
)
