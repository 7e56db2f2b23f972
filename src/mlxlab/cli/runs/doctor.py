"""`mlxlab runs doctor`: closes runs whose process is dead, and uploads what was not sent."""

import logging
import os
from pathlib import Path
from typing import NamedTuple

from mlxlab import terminal
from mlxlab.cli.print_json import print_json
from mlxlab.config.paths import project_root
from mlxlab.errors import InputNotFoundError, UserError
from mlxlab.experiment.past_run.lookup import open_reader
from mlxlab.files.untrusted import refuse_links
from mlxlab.markdown import markdown_table
from mlxlab.tracking.mlflow.address import Address, resolve
from mlxlab.tracking.mlflow.flush import check_store, close_runs, flush, unsent_folders
from mlxlab.tracking.records import utf8
from mlxlab.tracking.runs.filters import attribute_is
from mlxlab.tracking.runs.liveness import State, diagnose
from mlxlab.tracking.runs.reader import RunRow

log = logging.getLogger("mlxlab.cli.runs")

MAX_RUNS = 100_000
_ACTIONS = {
    "alive": "none",
    "unknown": "none",
    "unsent": "upload its journal",
    "dead": "set to KILLED",
}


def doctor(
    uri: str | None = None, dry_run: bool = False, json: bool = False, *, args: list[str]
) -> None:
    """Closes runs whose process is dead, and uploads journals that were not sent, also those below given folders.

    Args:
        uri: another store than MLFLOW_TRACKING_URI or mlruns/mlflow.db below the project folder.
        dry_run: prints what would be done.
        json: prints JSON instead of a table.
    """
    address = resolve(uri, None, project_root())
    rows = [_row(each) for each in _running(address, uri)]
    known = {row.folder for row in rows}
    for folder in _below(args, address):
        if folder not in known:
            rows.append(_Row("", utf8(folder), "unsent", "is not complete in the store", folder))
    rows = [_refuse(row, address) for row in rows]
    if json:
        print_json([row.as_dict() for row in rows])
    elif rows:
        head = ["run", "name", "state", "reason", "action"]
        cells = [list(row.as_dict().values()) for row in rows]
        terminal.show(markdown_table(head, [[line[0][:8], *line[1:]] for line in cells], "l"))
    else:
        terminal.show("no run is recorded as running")
    if not dry_run:
        _repair(address, rows)


class _Row(NamedTuple):
    """A run that is recorded as running, or a folder with a journal that was not sent."""

    run_id: str
    name: str
    state: State
    reason: str
    folder: Path | None = None  # with a journal to upload
    is_refused: bool = False

    def as_dict(self) -> dict[str, str]:
        action = "none" if self.is_refused else _ACTIONS[self.state]
        return {
            "run": self.run_id,
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "action": action,
        }


def _running(address: Address, uri: str | None) -> list[RunRow]:
    if address.database and not address.database.exists():
        return []  # its runs may be waiting for it
    reader = open_reader(uri)
    runs = reader.list_runs(limit=MAX_RUNS, where=attribute_is("status", "RUNNING"))
    reader.load_params(runs)
    return runs


def _row(run: RunRow) -> _Row:
    diagnosis = diagnose(run)
    return _Row(run.run_id, run.name, diagnosis.state, diagnosis.reason, diagnosis.folder)


def _below(roots: list[str], address: Address) -> list[Path]:
    for root in roots:
        if not os.path.isdir(root):
            raise InputNotFoundError(f"{root}: no such folder")
    return [folder for root in roots for folder in unsent_folders(Path(root).absolute(), address)]


def _refuse(row: _Row, address: Address) -> _Row:
    """The row, or one that says why the journals of its folder are not uploaded to this store."""
    if row.folder is None:
        return row
    try:
        refuse_links(row.folder)
        check_store(row.folder, address)
    except UserError as error:
        return row._replace(reason=str(error), is_refused=True)
    return row


def _repair(address: Address, rows: list[_Row]) -> None:
    dead = [row.run_id for row in rows if row.state == "dead"]
    if dead:
        close_runs(address, dead)
    folders = [row.folder for row in rows if row.folder and not row.is_refused]
    for line in flush(address, list(dict.fromkeys(folders))):
        log.info(line)
