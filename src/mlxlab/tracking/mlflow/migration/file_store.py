"""Reads a file store (`mlruns/`): experiments, runs, data sets and logged models. Unreadable ones are skipped."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.mlflow.migration.entries import files, folders, paths, values
from mlxlab.tracking.mlflow.migration.meta import Meta, read_meta
from mlxlab.tracking.mlflow.migration.registry_files import read_registry
from mlxlab.tracking.mlflow.migration.rows import insert, insert_values, savepoint
from mlxlab.tracking.mlflow.migration.tables import Staged

_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_RESERVED = ("tags", "datasets", "traces", "models", ".trash")
_LARGEST = 1.7976931348623157e308  # what MLflow stores for an infinity
_NOT_MOVED = ("traces",)


def read_file_store(database: sqlite3.Connection, staged: Staged, _: Path) -> None:
    """Fills the staged database with the store. What cannot be read is skipped, with a line in `staged.skipped`."""
    root = staged.source.path
    for parent in (root, root / ".trash"):
        for folder in folders(parent):
            if folder.name.isdecimal():
                with savepoint(database, staged, folder):
                    _experiment(database, staged, folder, is_deleted=parent.name == ".trash")
    for folder in folders(root / "models"):
        with savepoint(database, staged, folder):
            read_registry(database, folder)


def _experiment(
    database: sqlite3.Connection, staged: Staged, folder: Path, *, is_deleted: bool
) -> None:
    meta, number = read_meta(folder / "meta.yaml"), int(folder.name)
    insert(
        database,
        "experiments",
        experiment_id=number,
        name=meta.text("name") or folder.name,
        artifact_location=meta.text("artifact_location"),
        lifecycle_stage="deleted" if is_deleted else _lifecycle(meta),
        creation_time=meta.integer("creation_time"),
        last_update_time=meta.integer("last_update_time"),
    )
    insert_values(database, "experiment_tags", values(folder / "tags"), experiment_id=number)
    for data in folders(folder / "datasets"):
        with savepoint(database, staged, data):
            _dataset(database, data, number)
    for run in folders(folder):
        if run.name not in _RESERVED and (run / "meta.yaml").exists():
            with savepoint(database, staged, run):
                _run(database, staged, run, number)
    for model in folders(folder / "models"):
        with savepoint(database, staged, model):
            _logged_model(database, model, number)
    for table in _NOT_MOVED:
        if count := sum(1 for _ in folders(folder / table)):
            staged.left_out[table] = staged.left_out.get(table, 0) + count


def _run(database: sqlite3.Connection, staged: Staged, folder: Path, experiment: int) -> None:
    meta, run_id = read_meta(folder / "meta.yaml"), folder.name
    insert(
        database,
        "runs",
        run_uuid=run_id,
        name=meta.text("run_name") or meta.text("name"),
        source_type="LOCAL",
        source_name=meta.text("source_name") or "",
        entry_point_name=meta.text("entry_point_name") or "",
        user_id=meta.text("user_id"),
        status=_STATUS.get(meta.integer("status") or 1, "RUNNING"),
        start_time=meta.integer("start_time"),
        end_time=meta.integer("end_time"),
        deleted_time=meta.integer("deleted_time"),
        source_version=meta.text("source_version") or "",
        lifecycle_stage=_lifecycle(meta),
        artifact_uri=str(folder / "artifacts"),
        experiment_id=experiment,
    )
    insert_values(database, "params", values(folder / "params"), run_uuid=run_id)
    insert_values(database, "tags", values(folder / "tags"), run_uuid=run_id)
    rows = ((*point, run_id) for point in _points(folder / "metrics", staged))
    order = "key, timestamp, value, is_nan, step, run_uuid"
    database.executemany(f"insert or ignore into metrics ({order}) values (?, ?, ?, ?, ?, ?)", rows)
    for link in (*folders(folder / "inputs"), *folders(folder / "outputs")):
        _link(database, read_meta(link / "meta.yaml"), run_id, link)


def _link(database: sqlite3.Connection, meta: Meta, run_id: str, folder: Path) -> None:
    """An input or output of a run. The database names both sides of a model the other way round than the files."""
    kind, source = meta.text("source_type"), meta.text("source_id") or ""
    sides = {
        "DATASET": ("DATASET", source, "RUN", run_id),
        "MODEL": ("RUN_INPUT", run_id, "MODEL_INPUT", source),
        "RUN_OUTPUT": (
            "RUN_OUTPUT",
            run_id,
            "MODEL_OUTPUT",
            meta.text("destination_id") or folder.name,
        ),
    }
    if kind not in sides:
        return
    names = ("source_type", "source_id", "destination_type", "destination_id")
    number = f"{run_id[:16]}{folder.name[:16]}"  # the files name none; the same at each reading
    ends: dict[str, str] = dict(zip(names, sides[kind], strict=True))
    insert(database, "inputs", input_uuid=number, step=meta.integer("step") or 0, **ends)
    for name, value in meta.mapping("tags").items():
        insert(database, "input_tags", input_uuid=number, name=name, value=value)


def _dataset(database: sqlite3.Connection, folder: Path, experiment: int) -> None:
    meta = read_meta(folder / "meta.yaml")
    insert(
        database,
        "datasets",
        dataset_uuid=folder.name,
        experiment_id=experiment,
        name=meta.text("name") or "",
        digest=meta.text("digest") or "",
        dataset_source_type=meta.text("source_type") or "",
        dataset_source=meta.text("source") or "",
        dataset_schema=meta.text("schema"),
        dataset_profile=meta.text("profile"),
    )


def _logged_model(database: sqlite3.Connection, folder: Path, experiment: int) -> None:
    meta = read_meta(folder / "meta.yaml")
    ids: Mapping[str, str | int] = {"model_id": folder.name, "experiment_id": experiment}
    insert(
        database,
        "logged_models",
        **ids,
        name=meta.text("name") or "",
        artifact_location=str(folder / "artifacts"),
        creation_timestamp_ms=meta.integer("creation_timestamp") or 0,
        last_updated_timestamp_ms=meta.integer("last_updated_timestamp") or 0,
        status=meta.integer("status") or 0,
        lifecycle_stage=_lifecycle(meta),
        model_type=meta.text("model_type"),
        source_run_id=meta.text("source_run_id"),
        status_message=meta.text("status_message"),
    )
    for table, name in (("params", "param"), ("tags", "tag")):
        for key, value in values(folder / table).items():
            insert(
                database,
                f"logged_model_{table}",
                **ids,
                **{f"{name}_key": key, f"{name}_value": value},
            )
    _model_metrics(database, folder / "metrics", ids)


def _model_metrics(
    database: sqlite3.Connection, folder: Path, ids: Mapping[str, str | int]
) -> None:
    """Lines of `time value step run [dataset digest]`."""
    for key, lines in files(folder):
        for line in lines.splitlines():
            time, value, step, run_id, *dataset = line.split(" ")
            names: dict[str, str] = dict(
                zip(("dataset_name", "dataset_digest"), dataset, strict=False)
            )
            own: dict[str, str | int] = {
                "metric_name": key,
                "metric_timestamp_ms": int(time),
                "metric_step": int(step),
                "run_id": run_id,
            }
            insert(
                database, "logged_model_metrics", **ids, **own, **names, metric_value=float(value)
            )


def _points(folder: Path, staged: Staged) -> Iterator[tuple[str, int, float, bool, int]]:
    """(key, time, value, is NaN, step) of each line of each metric."""
    for path, key in paths(folder):
        with open_regular(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    time, value, *step = line.split()
                    x = float(value)
                    clipped = 0.0 if x != x else max(-_LARGEST, min(_LARGEST, x))
                    yield key, int(time), clipped, x != x, int(step[0]) if step else 0
                except ValueError:  # a torn last line, for example
                    staged.skipped.append(f"{path}:{number}: expected `time value step`")


def _lifecycle(meta: Meta) -> str:
    return "deleted" if meta.text("lifecycle_stage") == "deleted" else "active"
