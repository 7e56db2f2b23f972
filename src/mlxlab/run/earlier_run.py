"""The earlier run of a folder in which another one begins: it moves to `earlier-<id>` inside, a run folder itself."""

from itertools import count
from pathlib import Path

from mlxlab.checkpoint.names import FOLDER, ROUNDS, committed_paths
from mlxlab.past_runs.lookup import PREFIX
from mlxlab.record.run_file import write_run
from mlxlab.record.run_record import RunRecord
from mlxlab.run.writer import RunWriter
from mlxlab.terminal.messages import set_aside_log
from mlxlab.terminal.program import display_path

LOG = "train.log"
# All that a run leaves but its journal, which may still be uploaded; a run folder may hold files of others.
_MOVED = (
    FOLDER,
    "base",
    "inference",
    "example_losses",
    ROUNDS,
    "report.html",
    "summary.md",
    "metrics.csv",
    "mistakes.csv",
    "profile.json",
    "profile.png",
    "out_of_fold.safetensors",
    "verify.json",
    "reproduction.json",
    "run.lock",
    "resume_changes.json",
    "transfer.json",
    "ensemble.json",
)


def set_aside_earlier_run(writer: RunWriter) -> list[str]:
    """Moves what the earlier run of the folder left into a folder inside; returns a message, [] if it left nothing.

    Call it when the new run has been accepted, and before it writes anything.
    """
    folder = writer.folder
    earlier = writer.earlier
    if earlier is None or not (earlier.status != "killed" or committed_paths(folder / FOLDER)):
        return []
    target = _new_folder(folder, earlier)
    writer.forget_earlier()
    for name in _MOVED:
        if (folder / name).exists():
            (folder / name).rename(target / name)
    set_aside_log(folder / LOG, target / LOG)
    return [
        f"the earlier run of this folder, {_short_id(earlier)}, is now in {display_path(target)}"
    ]


def _short_id(record: RunRecord) -> str:
    """The start of the id; "run" where it cannot name a folder, for the run may come from a stranger."""
    short = record.id[:8]
    if short.isascii() and short.isalnum():
        return short
    return "run"


def _new_folder(folder: Path, earlier: RunRecord) -> Path:
    """Makes the folder with the record in it, so that it is a run folder from the start."""
    name = f"{PREFIX}{_short_id(earlier)}"
    target = folder / name
    for number in count(2):
        if not target.exists():
            break
        target = folder / f"{name}-{number}"
    target.mkdir()
    write_run(target, earlier)
    return target
