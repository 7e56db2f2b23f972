"""Resolves the name of a checkpoint, the same way for every command, and checks that its data is the present data."""

from dataclasses import dataclass, replace
from pathlib import Path

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.store import FOLDER, STEP, Checkpoint, CheckpointStore, load_checkpoint
from mlxlab.errors import CheckpointUnavailableError, InputNotFoundError, NotAllowedError

KEYWORDS = ("last", "best", "emergency")


@dataclass(frozen=True)
class ResumePolicy:
    """Allowed differences between a checkpoint and the run that resumes from it.

    Args:
        allow_data_change: resume although the data, or its preprocessing, has changed.
    """

    allow_data_change: bool

    def admit(self, checkpoint: Checkpoint, data: str, tokenizer: str) -> Checkpoint:
        """The checkpoint for the present data, given by its fingerprints.

        Raises:
            NotAllowedError: data or tokenizer differ from those at the save.
        """
        state, saved = checkpoint.state, checkpoint.state["metadata"]
        if saved["tokenizer"] != tokenizer:
            raise NotAllowedError(
                f"the tokenizer changed since the save ({saved['tokenizer'][:12]} then, {tokenizer[:12]} now)"
            )
        if saved["data"] == data:
            return checkpoint
        if not self.allow_data_change:
            raise NotAllowedError(
                f"the data changed since the save ({saved['data'][:12]} then, {data[:12]} now);"
                " resume_policy.allow_data_change=true resumes all the same"
            )
        return replace(checkpoint, state={**state, "data": state["data"] | {"fingerprint": data}})


def resolve_resume(resume: str | None, run_dir: Path) -> Checkpoint | None:
    """The checkpoint that `resume` names for a run in `run_dir`; None starts a new run.

    Args:
        resume: null starts a new run; auto resumes from the last checkpoint of the run folder, or starts a new run if
            it has none; anything else is the name of a checkpoint, as in `load_named`.

    Raises:
        CheckpointUnavailableError: there should be a checkpoint, and none is usable.
        InputNotFoundError: the path does not exist.
    """
    if resume == "auto":
        own = CheckpointStore(run_dir / FOLDER)
        return own.load() if own.steps() or any(own.folder.glob("rejected-*")) else None
    return None if resume is None else load_named(resume, run_dir)


def load_named(name: str, run_dir: Path) -> Checkpoint:
    """A checkpoint by its name.

    Args:
        name: last, best, emergency (saved after a signal) or step-N of `run_dir`; or the path of a run folder (its
            last), of a checkpoint, or of either with one of these keywords appended: `outputs/x/best`.

    Raises:
        CheckpointUnavailableError: no checkpoint of that name is usable.
        InputNotFoundError: the path does not exist.
    """
    if _is_keyword(name):
        return CheckpointStore(run_dir / FOLDER).load(name)
    path = Path(name).expanduser()
    which = path.name if _is_keyword(path.name) and not path.exists() else ""
    path = path.parent if which else path
    if not path.is_dir():
        keywords = ", ".join((*KEYWORDS, "step-N"))
        raise InputNotFoundError(f"{path}: not found; expected a run folder, a checkpoint, or one of {keywords}")
    store = CheckpointStore(path / FOLDER if (path / FOLDER).is_dir() else path)
    if which or store.steps() or store.folder != path:
        return store.load(which or "last")
    try:
        return load_checkpoint(path)
    except CorruptCheckpointError as error:
        raise CheckpointUnavailableError(f"{path}: {error}") from None


def _is_keyword(name: str) -> bool:
    return name in KEYWORDS or STEP.fullmatch(name) is not None
