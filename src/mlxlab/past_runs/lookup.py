"""Finds a run by what a user calls it: its folder, or its id or name in the store."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlxlab.config.paths import project_root
from mlxlab.errors import (
    ConfigError,
    DataError,
    InputNotFoundError,
    ServiceUnavailableError,
    UserError,
)
from mlxlab.files.untrusted import refuse_links
from mlxlab.record.run_file import FILE, of_sweep, read_run
from mlxlab.record.run_record import RunRecord
from mlxlab.terminal.nearest import no_such_folder
from mlxlab.tracking.mlflow.address import resolve
from mlxlab.tracking.mlflow.runs import RunReader, RunRow
from mlxlab.tracking.mlflow.store import open_existing
from mlxlab.views.numbers import moment

# When another run begins in the folder of a run, this one moves to a folder inside with this prefix.
PREFIX = "earlier-"
_id = re.compile(r"[0-9a-f]{6,32}")


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
        moved = earlier_folder(Path(run.folder), run.short_id)
        run.folder = str(moved or run.folder)
    return run


def earlier_folder(folder: Path, uid: str) -> Path | None:
    """Where the run with this id is, if another one began in its folder later."""
    moved = folder / f"{PREFIX}{uid[:8]}"
    return moved if (moved / FILE).is_file() else None


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
