"""Lists, shows and compares tracked runs, and uploads runs that are not in the store yet.

    mlxlab runs list [limit=20] [sort=valid/accuracy] [status=FINISHED] [experiment=mlxlab] [metrics=valid/loss]
    mlxlab runs show RUN
    mlxlab runs compare RUN RUN ...
    mlxlab runs sync [RUN_FOLDER ...] [uri=sqlite:///mlflow.db] [artifacts=FOLDER]

RUN is the beginning of a run's id, its name, or its folder. `sync` refuses a folder that was recorded for another store
unless uri= (and artifacts=, if it keeps them elsewhere) names the store to upload to.
"""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mlxlab.cli.app import Action, command
from mlxlab.config.paths import project_root
from mlxlab.config.suggest import suggestion
from mlxlab.constraints import Ge, Le
from mlxlab.errors import ConfigError

if TYPE_CHECKING:
    from mlxlab.tracking.mlflow.address import Address
    from mlxlab.tracking.runs.reader import RunReader, RunRow

log = logging.getLogger(__name__)

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class ListOptions:
    """Options of `runs list`.

    Args:
        limit: how many runs are listed.
        sort: metric to order by, the best first; the newest first if not given.
        status: only runs of this status: RUNNING, FINISHED, FAILED, KILLED.
        experiment: only runs of this experiment.
        metrics: columns, separated by commas.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """

    limit: Annotated[int, Ge(1), Le(100_000)] = 20
    sort: str | None = None
    status: str | None = None
    experiment: str | None = None
    metrics: str | None = None
    uri: str | None = None


@dataclass(frozen=True)
class StoreOptions:
    """Options of `runs show` and `runs compare`.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
    """

    uri: str | None = None


@dataclass(frozen=True)
class SyncOptions:
    """Options of `runs sync`.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
    """

    uri: str | None = None
    artifacts: str | None = None


def _list(options: ListOptions, _: list[str]) -> None:
    from mlxlab.tracking.mlflow import flush
    from mlxlab.tracking.runs.tables import format_list

    status = options.status.upper() if options.status is not None else None
    if status is not None and status not in STATUSES:
        near = suggestion(status, STATUSES)
        raise ConfigError(f"status={options.status}: expected one of {', '.join(STATUSES)}{near}")
    address = _address(options.uri)
    reader = _open(address)
    if options.sort is not None and options.sort not in (known := reader.names("metrics")):
        raise ConfigError(f"sort={options.sort}: not in the store{suggestion(options.sort, known)}")
    if options.experiment is not None and options.experiment not in (known := reader.names("experiments")):
        raise ConfigError(f"experiment={options.experiment}: not in the store{suggestion(options.experiment, known)}")
    runs = reader.list_runs(limit=options.limit, experiment=options.experiment, status=status, sort=options.sort)
    columns = options.metrics.split(",") if options.metrics is not None else None
    print(format_list(runs, columns) if runs else "no runs")
    if line := flush.pending_summary(address):
        log.info(line)


def _show(options: StoreOptions, names: list[str]) -> None:
    from mlxlab.tracking.runs.tables import format_run

    reader = _open(_address(options.uri))
    run = _find(reader, names[0])
    print(format_run(run, reader.metric_ranges(run.run_id)))


def _compare(options: StoreOptions, names: list[str]) -> None:
    from mlxlab.tracking.runs.tables import format_comparison

    reader = _open(_address(options.uri))
    print(format_comparison([_find(reader, name) for name in names]))


def _sync(options: SyncOptions, names: list[str]) -> None:
    from mlxlab.tracking.mlflow.flush import check_store, flush

    address, folders = _address(options.uri, options.artifacts), [Path(name).absolute() for name in names]
    if options.uri is None:
        for folder in folders:
            check_store(folder, address)
    for line in flush(address, folders):
        print(line, flush=True)


def _find(reader: "RunReader", query: str) -> "RunRow":
    matches = reader.find_runs(query)
    if not matches:
        raise ConfigError(f"{query}: no such run{suggestion(query, reader.names('runs'))}")
    exact = [run for run in matches if run.run_id == query]
    if len(matches) > 1 and not exact:
        ids = ", ".join(f"{run.run_id[:8]} ({run.name})" for run in matches[:5])
        raise ConfigError(f"{query}: matches {len(matches)} runs: {ids}")
    return (exact or matches)[0]


def _address(uri: str | None, artifacts: str | None = None) -> "Address":
    from mlxlab.tracking.mlflow.address import resolve

    return resolve(uri, artifacts, project_root())


def _open(address: "Address") -> "RunReader":
    """Reads an SQLite store directly, any other through MLflow's client, which is slow to import."""
    if address.database:
        from mlxlab.tracking.runs.sqlite_reader import SqliteRunReader

        return SqliteRunReader(address.database)
    from mlxlab.tracking.runs.mlflow_reader import MlflowRunReader

    return MlflowRunReader(address)


main = command(
    __doc__,
    {
        "list": Action(_list, ListOptions),
        "show": Action(_show, StoreOptions, names=(1, 1)),
        "compare": Action(_compare, StoreOptions, names=(2, 20)),
        "sync": Action(_sync, SyncOptions, names=(0, sys.maxsize)),
    },
)
