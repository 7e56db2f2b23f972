"""`mlxlab runs doctor`: closes runs whose process is dead, and uploads what was not sent."""

import logging
import os
from pathlib import Path

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
from mlxlab.tracking.runs.liveness import Diagnosis, diagnose

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
    diagnoses = _running(address, uri)
    folders: dict[Path, str] = {}  # with a journal to upload -> why it stays, or ""
    for folder in [*(each.folder for each in diagnoses if each.folder), *_below(args, address)]:
        folders[folder] = _refusal(folder, address)
    rows = [_row(each, folders.get(each.folder, "") if each.folder else "") for each in diagnoses]
    known = {each.folder for each in diagnoses}
    rows += [
        {
            "run": "",
            "name": utf8(folder),
            "state": "unsent",
            "reason": reason or "is not complete in the store",
        }
        | {"action": "none" if reason else _ACTIONS["unsent"]}
        for folder, reason in folders.items()
        if folder not in known
    ]
    if json:
        print_json(rows)
    else:
        head = ["run", "name", "state", "reason", "action"]
        table = [[row["run"][:8], *(row[key] for key in head[1:])] for row in rows]
        terminal.show(markdown_table(head, table, "l") if rows else "no run is recorded as running")
    if not dry_run:
        _repair(address, diagnoses, [folder for folder, reason in folders.items() if not reason])


def _running(address: Address, uri: str | None) -> list[Diagnosis]:
    if address.database and not address.database.exists():
        return []  # its runs may be waiting for it
    reader = open_reader(uri)
    runs = reader.list_runs(limit=MAX_RUNS, where=attribute_is("status", "RUNNING"))
    reader.load_params(runs)
    return [diagnose(run) for run in runs]


def _below(roots: list[str], address: Address) -> list[Path]:
    for root in roots:
        if not os.path.isdir(root):
            raise InputNotFoundError(f"{root}: no such folder")
    return [folder for root in roots for folder in unsent_folders(Path(root).absolute(), address)]


def _refusal(folder: Path, address: Address) -> str:
    """Why the journals of a folder are not uploaded to this store, or ""."""
    try:
        refuse_links(folder)
        check_store(folder, address)
    except UserError as error:
        return str(error)
    return ""


def _row(each: Diagnosis, refusal: str) -> dict[str, str]:
    action = "none" if refusal else _ACTIONS[each.state]
    facts = {"run": each.run.run_id, "name": each.run.name, "state": each.state}
    return {**facts, "reason": refusal or each.reason, "action": action}


def _repair(address: Address, diagnoses: list[Diagnosis], folders: list[Path]) -> None:
    dead = [each.run.run_id for each in diagnoses if each.state == "dead"]
    if dead:
        close_runs(address, dead)
    for line in flush(address, folders):
        log.info(line)
