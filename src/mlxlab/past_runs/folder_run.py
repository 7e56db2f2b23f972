"""A run as its folder describes it, in the form in which stores are read: one with `tracking=none` is in no store.

Anyone may have written the folder: every file passes the checks of `files/untrusted.py`.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.past_runs.lookup import find_run, local_folder, open_reader, run_folders
from mlxlab.past_runs.stored_config import read_run_config
from mlxlab.record.attempts import read_now
from mlxlab.record.run_file import FILE
from mlxlab.record.run_record import RunRecord
from mlxlab.schema.metric_names import VALID
from mlxlab.tracking.journal import flatten
from mlxlab.tracking.mlflow.names import MAX_PARAM, clean, clean_values
from mlxlab.tracking.mlflow.runs import MAIN, RunRow
from mlxlab.tracking.tracker import OBJECTIVE, OVERRIDES

_STATUSES = {  # status in a record -> status in a store
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
}
_DIRTY = {True: "true", False: "false", None: "unknown"}


def find_row(name: str, uri: str | None) -> RunRow:
    """The run of a folder as this describes it, or else that of an id or a name as the store has it.

    Raises:
        ConfigError, ServiceUnavailableError: as `find_run`.
        InputNotFoundError, DataError, NotAllowedError: as `read_run_folder`.
    """
    folder = local_folder(name)
    if folder is not None:
        return read_run_folder(folder)
    return find_run(open_reader(uri), name)


def read_run_folder(folder: Path) -> RunRow:
    """The run in a folder. `experiment_id` is "": it was not read from a store.

    Raises:
        InputNotFoundError: it is no run folder.
        DataError, NotAllowedError: one of its files is damaged, or its config is not valid.
    """
    record = read_now(folder)
    params: dict[str, Any] = {}
    with suppress(InputNotFoundError):  # The run ended before its config was stored.
        params = read_run_config(folder) | {"choices": record.command.choices}
    end = record.attempts[-1].end
    return RunRow(
        run_id=record.id,
        name=record.name,
        experiment="",
        experiment_id="",
        status=_STATUSES.get(record.status, "KILLED"),
        start=int(1000 * record.attempts[0].start),
        end=None if end is None else int(1000 * end),
        seconds=record.training.seconds or None,
        uid=None,
        parent=None,
        folder=str(folder),
        metrics=_metrics(record),
        params=clean_values({key: str(value) for key, value in flatten(params).items()}, MAX_PARAM),
        tags=_tags(record),
        best=_best(record),
        datasets=_datasets(record, params),
    )


def newest_runs(roots: Iterable[Path], limit: int) -> list[RunRow]:
    """The newest runs of the run folders below some folders, without those that cannot be read."""
    folders: list[Path] = []
    for root in roots:
        folders += run_folders(root)
    folders.sort(key=lambda folder: (folder / FILE).stat().st_mtime, reverse=True)
    rows: list[RunRow] = []
    for folder in folders:
        if len(rows) == limit:
            break
        with suppress(UserError):
            rows.append(read_run_folder(folder))
    return sorted(rows, key=lambda run: run.start or 0, reverse=True)


def _datasets(record: RunRecord, config: dict[str, Any]) -> dict[str, str]:
    """Name -> fingerprint of the data set, as it is tracked."""
    digest = record.data.fingerprint
    node = config.get("data")
    if not digest or not isinstance(node, dict):
        return {}
    return {str(node["_target_"]).rpartition(".")[2]: digest}


def _best(record: RunRecord) -> dict[str, float]:
    """The main metrics of the best evaluation; of a run that was not evaluated only the objective."""
    best = {record.training.objective: record.training.best}
    metrics = record.evaluation.keyed_metrics("valid")
    best |= {key: value for key, value in metrics.items() if key.removeprefix(VALID) in MAIN}
    return {clean(key): value for key, value in best.items() if value is not None}


def _metrics(record: RunRecord) -> dict[str, float]:
    """Metrics of the last evaluation and of the test rows; NaN where a value is not finite."""
    metrics = record.training.final | record.evaluation.keyed_metrics("test")
    return {clean(key): float("nan") if value is None else value for key, value in metrics.items()}


def _tags(record: RunRecord) -> dict[str, str]:
    """Objective, command line, commit, versions."""
    tags = {OVERRIDES: " ".join(record.command.overrides)}
    tags |= {f"version.{name}": text for name, text in record.code.versions.items()}
    if record.training.objective:
        tags[OBJECTIVE] = record.training.objective
    if record.code.commit:
        tags["mlflow.source.git.commit"] = record.code.commit
        tags["mlflow.source.git.dirty"] = _DIRTY[record.code.dirty]
    return tags
