"""Finds a run by what a user calls it: its folder, or its id or name in the store; reads a folder as stores are read.

A run with `tracking=none` is in no store. Anyone may have written a folder: every file passes `files/untrusted.py`.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlxlab.checkpoint.names import holds_rounds
from mlxlab.config.check import check_stored_config, read_stored_config
from mlxlab.config.paths import project_root
from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    ServiceUnavailableError,
    UserError,
)
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.attempts import read_now
from mlxlab.record.run_file import EARLIER, FILE, of_sweep, read_run
from mlxlab.record.run_record import RunRecord
from mlxlab.schema.metric_names import VALID
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.tracking.journal import flatten
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.names import MAX_PARAM, clean, clean_values
from mlxlab.tracking.mlflow.runs import MAIN, RunReader, RunRow
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.tracking.tracker import OBJECTIVE, OVERRIDES
from mlxlab.views.numbers import moment

_id = re.compile(r"[0-9a-f]{6,32}")
_STATUSES = {  # status in a record -> status in a store
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
}
_DIRTY = {True: "true", False: "false", None: "unknown"}


def open_reader(uri: str | None) -> RunReader:
    """Reads a store through MLflow's client, whose import takes seconds."""
    address = resolve(uri, None, project_root())
    return RunReader(open_existing(address), address.shown)


def find_run(reader: RunReader, query: str) -> RunRow:
    """The only run that `query` names; raises ConfigError if there is none, or if there are several.

    A folder names the run that it holds now; a whole id or a name wins over the beginning of an id.
    """
    matches = reader.find_runs(query)
    if len(matches) > 1:
        record = _record_in(Path(query))
        if record is not None:
            matches = [run for run in matches if run.uid == record.id] or matches
    matches = [run for run in matches if query in (run.run_id, run.name)] or matches
    if not matches:
        raise ConfigError(f"{query}: no such run")
    if len(matches) > 1:
        ids = ", ".join(
            f"{run.short_id} ({run.name} {moment((run.start or 0) / 1000)})" for run in matches[:5]
        )
        raise ConfigError(f"{query}: matches {len(matches)} runs, expected the id of one: {ids}")
    [run] = matches
    if run.folder:
        moved = Path(run.folder) / f"{EARLIER}{run.short_id[:8]}"
        if (moved / FILE).is_file():
            run.folder = str(moved)  # Another run began in its folder later.
    return run


def local_folder(name: str) -> Path | None:
    """The absolute folder of a run, by its path or the beginning of its id; None if only a store may know it.

    Raises InputNotFoundError for a path that is no run folder, NotAllowedError for a folder with links.
    """
    path = Path(os.path.expanduser(name))
    if not path.is_dir() and "/" not in name:
        return next(_folders_of(name), None)
    expected = "a run folder, or the id of a run"
    if not path.is_dir():
        raise InputNotFoundError(no_such_folder(path, expected))
    if not (path / FILE).is_file():
        raise InputNotFoundError(f"{path}: no {FILE}; expected {expected}{of_sweep(path)}")
    refuse_links(path)
    return path.absolute()


def find_run_folder(name: str, uri: str | None = None) -> Path:
    """The absolute folder of a run, by its path or by what `find_run` takes.

    Raises:
        InputNotFoundError: it is not a run folder, or that of the run is missing.
        ConfigError: as `find_run`.
        ServiceUnavailableError: the store cannot be read.
    """
    folder = local_folder(name)
    if folder is not None:
        return folder
    try:
        run = find_run(open_reader(uri), name)
    except ServiceUnavailableError as error:
        raise ServiceUnavailableError(
            f"{name}: not a folder, and no id of a run: {error}"
        ) from None
    if run.folder is None or not (Path(run.folder) / FILE).is_file():
        raise InputNotFoundError(
            f"{name}: the run folder {run.folder or 'of this run'} was not found"
        )
    return Path(run.folder).absolute()


def _folders_of(name: str) -> Iterator[Path]:
    """The run folders in outputs/ and multirun/ whose run has an id that begins with `name`."""
    if not _id.fullmatch(name):
        return
    for root in ("outputs", "multirun"):
        for folder in run_folders(project_root() / root):
            record = _record_in(folder)
            if record is not None and record.id.startswith(name):
                with suppress(UserError):
                    refuse_links(folder)
                    yield folder.absolute()


def run_folders(root: Path) -> Iterator[Path]:
    """The run folders below a folder. The rounds of a run are no runs of their own."""
    for folder, names, files in os.walk(root):
        names.sort()
        if FILE in files:
            names.clear()
            yield Path(folder)


def _record_in(folder: Path) -> RunRecord | None:
    """The record of the run in a folder; None if there is no run, or its record is damaged."""
    with suppress(InputNotFoundError, DataError):
        return read_run(folder)
    return None


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
    params = {}
    with suppress(InputNotFoundError):  # The run ended before its config was stored.
        params = read_run_config(folder) | {"choices": record.command.choices}
    end = record.attempts[-1].end
    datasets = {}
    if record.data.fingerprint and params:
        name = params["data"]["_target_"].rpartition(".")[2]  # It is tracked under this name.
        datasets[name] = record.data.fingerprint
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
        datasets=datasets,
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


def read_run_config(folder: Path) -> dict[str, Any]:
    """Reads a run folder, which anyone may have written.

    Raises:
        InputNotFoundError: the run ended before its config was stored, or it is no run folder.
        DataError, NotAllowedError: the file is damaged, or its config is not valid.
    """
    if holds_rounds(folder):
        return check_stored_config(read_run(folder).config, str(folder / FILE))
    return read_stored_config(folder / "inference" / "config.yaml")
