"""Decides where a run starts: at step 0, from a checkpoint of its own folder, or as a fork of another run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab.errors import InputNotFoundError
from mlxlab.tracking.journal import FILE as JOURNAL

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.experiment.rank_zero import RankContext


@dataclass(frozen=True)
class Start:
    """The start of a run.

    Attributes:
        checkpoint: what it resumes from; None starts with initial weights.
        continues: resumes the run recorded in the folder; False starts another run, a fork if there is a checkpoint.
    """

    checkpoint: "Checkpoint | None"
    continues: bool

    @property
    def inference_dir(self) -> Path | None:
        """Tokenizer and fitted encoder of the run that the checkpoint belongs to."""
        return None if self.checkpoint is None else self.checkpoint.run_dir / "inference"

    @property
    def step(self) -> int:
        """The last step whose metrics are kept: that of the checkpoint; -1 without one, as step 0 is logged again."""
        return -1 if self.checkpoint is None else self.checkpoint.step

    @property
    def fork_tags(self) -> dict[str, str]:
        """Tags that name the run and checkpoint from which a fork starts."""
        if self.checkpoint is None or self.continues:
            return {}
        uid = self.checkpoint.state["metadata"]["uid"]
        return {"forked_from.run": uid, "forked_from.checkpoint": str(self.checkpoint.path.absolute())}


def find_start(resume: str | None, ranks: "RankContext") -> Start:
    """Resolves `resume` on rank 0; the other ranks load the same checkpoint.

    Raises:
        CheckpointUnavailableError, InputNotFoundError: as `resolve_resume`; or the checkpoint lies in no run folder.
    """
    from mlxlab.checkpoint.resume import load_named, resolve_resume

    if ranks.group.rank == 0:
        checkpoint = resolve_resume(resume, ranks.run_dir)
        ranks.broadcast(str(checkpoint.path.absolute()) if checkpoint else "")
    else:
        path = ranks.broadcast("")
        checkpoint = load_named(path, ranks.run_dir) if path else None
    if checkpoint is None:
        return Start(None, resume == "auto" and (ranks.run_dir / JOURNAL).is_file())
    source = checkpoint.run_dir
    if not (source / "inference" / "config.yaml").is_file():
        raise InputNotFoundError(f"{checkpoint.path}: not in a run folder; {source}/inference/config.yaml not found")
    return Start(checkpoint, source.resolve() == ranks.run_dir.resolve())


def set_aside_older_results(start: Start, run_dir: Path) -> list[str]:
    """Renames, before training, checkpoints that are not part of the run that starts; returns messages."""
    from mlxlab.checkpoint.store import FOLDER, CheckpointStore

    store = CheckpointStore(run_dir / FOLDER)
    if start.checkpoint is not None and start.continues:
        newer = store.supersede(start.step)
        return [f"set aside {path.name}: newer than the checkpoint that is resumed" for path in newer]
    aside = store.set_all_aside()
    return [f"set aside the checkpoints of an earlier run in this folder: {aside}"] if aside else []
