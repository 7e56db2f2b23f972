"""Lists, shows and compares tracked runs, and uploads runs that are not in the store yet.

    mlxlab runs list [in=FOLDER] [limit=20] [sort=valid/accuracy] [filter='...'] [metrics=valid/loss] [params=seed]
    mlxlab runs show RUN
    mlxlab runs diff RUN RUN
    mlxlab runs experiments
    mlxlab runs delete RUN ...
    mlxlab runs restore RUN ...
    mlxlab runs clean [RUN_FOLDER ...] [dry_run=true] [gone=true]
    mlxlab runs sync [RUN_FOLDER ...] [uri=sqlite:///mlflow.db] [artifacts=FOLDER]
    mlxlab runs sync RUN_FOLDER ... to=wandb [project=mlxlab]

RUN is the beginning of a run's id, its name, or its folder; show and diff also take the folder of a run that is in
no store (tracking=none). diff prints what differs: settings, data, code, metrics; `mlxlab compare` tests which method
is better over seeds and folds. `sync` refuses a folder
that was recorded for another store unless uri= (and artifacts=, if it keeps them elsewhere) names the store to upload
to.

All print JSON with --json.

A filter is in MLflow's language (https://mlflow.org/docs/latest/search-runs): conditions on metrics.`KEY`,
params.`KEY`, tags.`KEY` and attributes, joined by `and`.
"""

import logging
import os
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from mlxlab import terminal
from mlxlab.checkpoint.manifest import CorruptCheckpointError, read_manifest
from mlxlab.checkpoint.names import FOLDER
from mlxlab.cli.app import print_json, print_result
from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import conf_dir, project_root
from mlxlab.errors import ConfigError, NotAllowedError, UserError
from mlxlab.files.untrusted import refuse_links
from mlxlab.past_runs.lookup import find_row, find_run, newest_runs, open_reader, run_folders
from mlxlab.record.attempts import read_now
from mlxlab.schema.constraints import Ge, Le
from mlxlab.terminal.program import display_path
from mlxlab.terminal.tables import markdown_table
from mlxlab.tracking import upload
from mlxlab.tracking.destination import Destination
from mlxlab.tracking.mlflow import names as mlflow_names
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.destination import mlflow_destination
from mlxlab.tracking.mlflow.runs import RunRow, diff
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.tracking.queue import Queue
from mlxlab.tracking.records import JOURNALS, read_first
from mlxlab.views.runs import difference_table, list_table, run_tables

ACTIONS = {
    "list": "list_runs",
    "show": "show",
    "diff": "show_diff",
    "experiments": "experiments",
    "delete": "delete",
    "restore": "restore",
    "clean": "clean",
    "sync": "sync",
}
ALIASES = {"in": "below"}
MAX_RUNS = 100_000
Limit = Annotated[int, Ge(1), Le(100_000)]
log = logging.getLogger(__name__)


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
    keys = _split(metrics)
    names = _split(params)
    runs = newest_runs(_folders(below, bool(filter or experiment or sort), uri), limit)
    if not runs and below is None:
        reader = open_reader(uri)
        runs = reader.list_runs(limit=limit, where=filter or "", experiment=experiment, sort=sort)
        waiting = Queue(mlflow_destination(uri, None, project_root()), project_root()).entries()
        if waiting:
            log.info(f"{len(waiting)} runs are not complete in the store yet: mlxlab runs sync")
    known = {key for run in runs for key in (*run.metrics, *run.params)}
    for key in (*keys, *names, *_split(sort)):
        if mlflow_names.clean(key) not in known:
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


def show(run: str, uri: str | None = None, json: bool = False) -> None:
    """Shows a run.

    Args:
        run: the beginning of its id, its name, or its folder.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead.
    """
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
    first = find_row(run, uri)
    second = find_row(other, uri)
    difference = diff(first, second)
    print_result(
        {"runs": [first.run_id, second.run_id], **difference},
        difference_table(first, second, difference),
        json,
    )


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


class Usage(NamedTuple):
    """The disk of a run in bytes, and what is freed of it."""

    folder: str
    used: int
    freed: int


def clean(
    *folders: str,
    dry_run: bool = False,
    gone: bool = False,
    uri: str | None = None,
    json: bool = False,
) -> None:
    """Deletes all but the best and the newest checkpoint of finished runs; prints the disk that each run uses.

    Args:
        folders: whose run folders are cleaned; none takes outputs/ and multirun/.
        dry_run: only prints what would be freed.
        gone: instead, marks runs of the store as deleted whose folder is not on this machine.
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        json: prints JSON instead of a table, with sizes in bytes.
    """
    if gone:
        runs = open_reader(uri).list_runs(limit=MAX_RUNS)
        ids = [run.run_id for run in runs if run.folder and not Path(run.folder).exists()]
        if ids and not dry_run:
            delete(*ids, uri=uri, json=json)
        else:
            print_result(ids, "\n".join(ids) or "no run whose folder is gone", json)
        return
    roots = [Path(folder).absolute() for folder in folders]
    usages = []
    for root in roots or [project_root() / "outputs", project_root() / "multirun"]:
        for folder in run_folders(root):
            surplus = _surplus_checkpoints(folder)
            freed = sum(map(_size, surplus))
            usages.append(Usage(display_path(folder), _size(folder), freed))
            if not dry_run:
                for path in surplus:
                    shutil.rmtree(path)
    total = Usage("all", sum(each.used for each in usages), sum(each.freed for each in usages))
    rows = [
        [each.folder, f"{each.used / 1e6:.1f}", f"{each.freed / 1e6:.1f}"]
        for each in [*usages, total]
    ]
    table = markdown_table(["folder", "MB used", "MB freed"], rows)
    print_result([each._asdict() for each in usages], table, json)


def _surplus_checkpoints(folder: Path) -> list[Path]:
    from mlxlab.checkpoint.store import CheckpointStore

    with suppress(UserError, CorruptCheckpointError):
        refuse_links(folder)
        store = CheckpointStore(folder / FOLDER, keep=1)
        newest = store.paths()[:1]
        if newest and read_now(folder).status == "finished":
            return store.surplus(read_manifest(newest[0])["best_step"])
    return []


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def sync(
    *folders: str,
    uri: str | None = None,
    artifacts: str | None = None,
    to: Literal["mlflow", "wandb", "trackio"] = "mlflow",
    project: str = "mlxlab",
    space: str | None = None,
    json: bool = False,
) -> None:
    """Uploads runs.

    Args:
        uri: the store to upload to, instead of MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        artifacts: where the store keeps artifacts, instead of MLFLOW_ARTIFACT_ROOT.
        to: another service that the runs were recorded for, or that they are to be copied to.
        project: of that service.
        space: of Hugging Face, for Trackio; null records on this machine.
        json: prints JSON instead: a list of the lines.
    """
    paths = [Path(folder).absolute() for folder in folders]
    for path in paths:
        refuse_links(path)
    destination: Destination
    if to == "mlflow":
        destination = mlflow = mlflow_destination(uri, artifacts, project_root())
        if uri is None:
            for path in paths:
                check_store(path, mlflow)
    else:
        destination = _service(to, {"project": project, "space": space})
        if not paths:
            raise ConfigError(f"to={to}: expected run folders")
    lines = upload.sync(Queue(destination, project_root()), paths)
    if json:
        print_json(list(lines))
        return
    for line in lines:
        print(line, flush=True)


def check_store(folder: Path, address: Address) -> None:
    """Raises NotAllowedError if a run in `folder` was recorded for another store.

    A run folder may come from a stranger: the store it names is not used unless the user names it too.
    """
    for journal in sorted(folder.glob(JOURNALS)):
        try:
            start, _ = read_first(journal)
        except UserError:
            continue  # The upload reports it.
        if start["store"] is None:
            raise NotAllowedError(
                f"{journal}: not recorded for MLflow; name the service to upload it to: to=wandb or to=trackio"
            )
        if start["store"] != address.shown:
            raise NotAllowedError(
                f"{journal}: recorded for uri={start['store']}, got {address.shown}: name the store to upload it to: uri=...,"
                " and artifacts=... if it has a folder of its own"
            )


def _service(name: str, options: dict[str, str | bool | None]) -> Destination:
    from mlxlab.files.yaml_file import read_yaml  # slow to import

    node: Any = read_yaml(conf_dir() / "tracking" / f"{name}.yaml").values[name]
    known = {key: value for key, value in options.items() if key in node}
    service: Destination = instantiate(node | known)
    service.check()
    return service
