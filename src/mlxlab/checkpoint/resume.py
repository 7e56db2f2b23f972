"""Where a run starts from: nothing, or a checkpoint named by `resume`."""

from pathlib import Path
from typing import Any

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, load_checkpoint
from mlxlab.errors import CheckpointUnavailableError, InputNotFoundError, NotAllowedError

KINDS = ("last", "best", "emergency")


class ResumePolicy:
    """What may have changed between a checkpoint and the run that goes on from it.

    Args:
        allow_data_change: go on although the data, or what was made of it, is not what it was.
    """

    def __init__(self, allow_data_change: bool) -> None:
        self.allow_data_change = allow_data_change

    def admit(self, state: dict[str, Any], data: str, tokenizer: str) -> dict[str, Any]:
        """The state of a checkpoint, fit for today's data; raises NotAllowedError if that is not allowed."""
        facts = state["facts"]
        if facts["tokenizer"] != tokenizer:
            raise NotAllowedError(
                f"the tokenizer is another one ({tokenizer[:12]}) than at the save ({facts['tokenizer'][:12]})"
            )
        if facts["data"] == data:
            return state
        if not self.allow_data_change:
            raise NotAllowedError(
                f"the data changed since the save ({facts['data'][:12]} then, {data[:12]} now);"
                " resume_policy.allow_data_change=true goes on all the same"
            )
        return state | {"data": state["data"] | {"data": data}}


def resolve_resume(resume: str | None, folder: Path) -> Checkpoint | None:
    """The checkpoint that `resume` means for a run in `folder`; None is a fresh start.

    Args:
        resume: null starts afresh; auto goes on where the run folder has checkpoints, else starts afresh; last, best
            and emergency want one there; a path is a run folder, its `checkpoints`, `.../best`, or one checkpoint.

    Raises:
        CheckpointUnavailableError: checkpoints are expected and none is usable.
        InputNotFoundError: the path does not exist.
    """
    if resume is None:
        return None
    own = CheckpointStore(folder / "checkpoints")
    if resume == "auto":
        return own.load() if own.steps() or any(own.folder.glob("rejected-*")) else None
    if resume in KINDS:
        return own.load(resume)
    return load_path(Path(resume))


def load_path(path: Path) -> Checkpoint:
    """The checkpoint at a path: a run folder, its `checkpoints`, `.../last`, `.../best`, or a checkpoint itself."""
    which = path.name if path.name in KINDS else "last"
    path = path.parent if path.name in KINDS else path
    if not path.is_dir():
        raise InputNotFoundError(f"{path}: no such folder to resume from")
    if (path / "checkpoints").is_dir():
        return CheckpointStore(path / "checkpoints").load(which)
    store = CheckpointStore(path)
    if store.steps():
        return store.load(which)
    try:
        return load_checkpoint(path)
    except CorruptCheckpointError as damage:
        raise CheckpointUnavailableError(f"{path}: {damage}") from None
