"""`mlxlab runs clean`: the disk that runs use, and what of it can be freed."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlxlab.checkpoint.manifest import CorruptCheckpointError, read_manifest
from mlxlab.checkpoint.names import FOLDER
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.cli.print_json import print_result
from mlxlab.cli.runs.keeping import MAX_RUNS, delete
from mlxlab.config.paths import project_root
from mlxlab.errors import UserError
from mlxlab.files.untrusted import refuse_links
from mlxlab.past_runs.lookup import open_reader, run_folders
from mlxlab.record.attempts import read_now
from mlxlab.terminal.markdown import markdown_table
from mlxlab.terminal.program import display_path


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
    usages: list[Usage] = []
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
    with suppress(UserError, CorruptCheckpointError):
        refuse_links(folder)
        store = CheckpointStore(folder / FOLDER, keep=1)
        newest = store.paths()[:1]
        if newest and read_now(folder).status == "finished":
            return store.surplus(read_manifest(newest[0])["best_step"])
    return []


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))
