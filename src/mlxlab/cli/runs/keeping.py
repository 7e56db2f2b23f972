"""The subcommands of `mlxlab runs` that keep a store in order: experiments, delete, restore."""

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.past_runs.lookup import find_run, open_reader
from mlxlab.terminal.markdown import markdown_table
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.store import open_existing

MAX_RUNS = 100_000


def experiments(uri: str | None = None, json: bool = False) -> None:
    """Lists the experiments with the number of their runs.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
    reader = open_reader(uri)
    counts = dict.fromkeys(reader.experiments.values(), 0)
    for run in reader.list_runs(limit=MAX_RUNS):
        counts[run.experiment] += 1
    if json:
        print_json([{"name": name, "runs": count} for name, count in counts.items()])
        return
    rows = [[name, str(count)] for name, count in counts.items()]
    terminal.show(markdown_table(["experiment", "runs"], rows))


def delete(*runs: str, uri: str | None = None, json: bool = False) -> None:
    """Marks runs as deleted; their folders stay, and `mlflow gc` removes them from the store.

    Args:
        runs: each by the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints the ids of the runs as JSON instead.
    """
    _change(runs, uri, json, deletes=True)


def restore(*runs: str, uri: str | None = None, json: bool = False) -> None:
    """Takes back runs that were deleted.

    Args:
        runs: each by the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints the ids of the runs as JSON instead.
    """
    _change(runs, uri, json, deletes=False)


def _change(runs: tuple[str, ...], uri: str | None, json: bool, *, deletes: bool) -> None:
    if not runs:
        raise ConfigError("expected runs")
    reader = open_reader(uri)
    rows = [find_run(reader, run) for run in runs]
    client = open_existing(resolve(uri, None, project_root()))
    for row in rows:
        line = f"restored {row.name}"
        if deletes:
            client.delete_run(row.run_id)
            line = f"deleted {row.name}; undo it with: mlxlab runs restore {row.short_id}"
        else:
            client.restore_run(row.run_id)
        if not json:
            print(line)
    if json:
        print_json([row.run_id for row in rows])
