"""Names of checkpoints, and the run folders in which they lie. Imports no MLX."""

import os
import re
from pathlib import Path

from mlxlab.errors import CheckpointUnavailableError, InputNotFoundError
from mlxlab.record.run_file import FILE
from mlxlab.terminal.nearest import no_such_folder

FOLDER = "checkpoints"  # subfolder of a run folder
ROUNDS = "rounds"  # A run of several rounds has the run of each in `rounds/1`, `rounds/2`, ...
EMERGENCY = "-emergency"
REPLACED = "-replaced"
NAME = re.compile(rf"step-(\d{{8,18}})({EMERGENCY})?({REPLACED})?")
STEP = re.compile(r"step-(\d{1,18})")
KEYWORD = re.compile(rf"last|best|emergency|{STEP.pattern}")
KEYWORDS = "last, best, emergency, step-N"
RESUME_KEYWORDS = f"auto, {KEYWORDS}"


def folder_name(step: int) -> str:
    """The folder of the regular checkpoint of a step."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint folder; -1 for any other name."""
    match = NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def committed_paths(folder: Path) -> list[Path]:
    """Committed checkpoints in a folder, newest first; of one step the regular, emergency and replaced one."""
    if not folder.is_dir():
        return []
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir()]
    ordered = sorted(
        (int(match[1]), not match[3], not match[2], path) for match, path in matches if match
    )
    return [path for *_, path in reversed(ordered)]


def can_resume(run_dir: Path) -> bool:
    """Whether a run folder holds a checkpoint, also an unusable one, or rounds of distillation."""
    folder = run_dir / FOLDER
    return bool(committed_paths(folder)) or any(folder.glob("unusable-*")) or holds_rounds(run_dir)


def holds_rounds(run_dir: Path) -> bool:
    """Whether a run folder is that of rounds of distillation, whose record has their config."""
    return os.path.isdir(run_dir / ROUNDS) and os.path.isfile(run_dir / FILE)


def resumes_rounds(resume: str | None, run_dir: Path) -> bool:
    """Whether `resume` continues the rounds of a run folder: with their own config, so the command need not name it."""
    if resume is None or not holds_rounds(run_dir):
        return False
    run = find_resumed_run(resume)
    if run is not None:
        return run.resolve() == run_dir.resolve()
    return resume == "auto" or KEYWORD.fullmatch(resume) is not None


def check_rounds(run_dir: Path) -> None:
    """Raises CheckpointUnavailableError for rounds without a record, which has their config."""
    if any((run_dir / ROUNDS).glob(f"*/{FILE}")) and not os.path.lexists(run_dir / FILE):
        raise CheckpointUnavailableError(
            f"{run_dir}: holds rounds of distillation, which cannot be continued without {FILE}; copy it back"
            " (without resume=auto a new run begins)"
        )


def whole_run(run_dir: Path) -> Path:
    """The folder of the run of several rounds that a run is one of; else its own."""
    parent = run_dir.parent.parent
    if run_dir.parent.name == ROUNDS and holds_rounds(parent):
        return parent
    return run_dir


def split_path(name: str, keywords: str = KEYWORDS) -> tuple[Path, str]:
    """(run folder or checkpoint, keyword that was appended to its path or "").

    Args:
        keywords: those that the message on any other name lists.

    Raises:
        InputNotFoundError: the path does not exist; the message names the nearest one.
    """
    path = Path(os.path.expanduser(name))
    which = ""
    if KEYWORD.fullmatch(path.name) and not os.path.exists(path):
        which = path.name
        path = path.parent
    if not os.path.isdir(path):
        expected = f"a run folder, a checkpoint, or one of {keywords}"
        raise InputNotFoundError(no_such_folder(path, expected))
    return path, which


def find_resumed_run(resume: str | None) -> Path | None:
    """The run folder that a `resume` path belongs to; None for a keyword, or a checkpoint outside of any run.

    A resumed run continues in its own folder, and so in its own MLflow run.
    """
    if resume is None or resume == "auto" or KEYWORD.fullmatch(resume):
        return None
    path = Path(os.path.expanduser(resume)).absolute()
    folders = (path, path.parent, path.parent.parent)
    return next(
        (path for path in folders if os.path.isdir(path / FOLDER) or holds_rounds(path)),
        None,
    )
