"""The checkpoints in the folder of a run that is about to train: none that it does not continue, and its best one."""

from dataclasses import replace

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import FOLDER, folder_name
from mlxlab.checkpoint.state import History
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, load_checkpoint
from mlxlab.errors import CheckpointUnavailableError
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.session import Session
from mlxlab.terminal.messages import log_lines
from mlxlab.training.checkpointer import split_frozen


def prepare_checkpoints(
    checkpoint: Checkpoint | None, continues: bool, context: RunContext, session: Session
) -> Checkpoint | None:
    """Sets aside those that do not lead to `checkpoint`; gives a fork its first one, and the best of the other run.

    Args:
        continues: whether `checkpoint` is of the run in the folder.
        session: of the run that begins.

    Returns:
        `checkpoint`, with the best evaluation that counts for a fork.
    """
    log_lines(*set_aside_others(checkpoint if continues else None, context))
    if checkpoint is None or continues:
        return checkpoint
    history, best = best_of_fork(checkpoint)
    metadata = session.context.metadata
    checkpoint = replace(
        checkpoint, state={**checkpoint.state, "history": history, "metadata": metadata}
    )
    if context.group.rank == 0:
        store = CheckpointStore(context.run_dir / FOLDER)
        if best is not None:
            store.take_over(best)
        weights, frozen = split_frozen(session.model, checkpoint.weights)
        arrays = weights, checkpoint.optimizer
        store.save(checkpoint.step, *arrays, checkpoint.state, frozen, best_step=history.best_step)
    context.group.barrier()
    return checkpoint


def set_aside_others(resumed: Checkpoint | None, context: RunContext) -> list[str]:
    """Renames, before training, checkpoints of the folder that do not lead to the one resumed; returns messages."""
    store = CheckpointStore(context.run_dir / FOLDER)
    if resumed is not None:
        newer = store.set_aside_newer(resumed.step)
        return [
            f"set aside {path.name}: newer than the checkpoint that is resumed" for path in newer
        ]
    aside = store.set_aside_all()
    return (
        [f"set aside the checkpoints of an earlier run: {aside}; its report is replaced"]
        if aside
        else []
    )


def best_of_fork(checkpoint: Checkpoint) -> tuple[History, Checkpoint | None]:
    """The history that a fork starts with, and the best checkpoint so far unless the fork starts from it.

    Early stopping and the final evaluation need the weights of the best evaluation. Where the other run has removed
    them, the evaluation at the checkpoint, if there was one, counts as the best so far.
    """
    history = checkpoint.state["history"]
    if history.best is None or history.best_step == checkpoint.step:
        return history, None
    try:
        return history, load_checkpoint(checkpoint.path.with_name(folder_name(history.best_step)))
    except (OSError, CorruptCheckpointError, CheckpointUnavailableError):
        lost, history = history.best_step, history.without_best(checkpoint.step)
    now = "none counts" if history.best is None else f"that of step {history.best_step} counts"
    log_lines(
        f"the best evaluation, of step {lost}, has no checkpoint in {checkpoint.path.parent}; {now} instead"
    )
    return history, None
