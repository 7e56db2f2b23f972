"""Fits the checkpoint that a run starts from to its new state, and puts it in its place in the run folder."""

import logging
from dataclasses import replace

import mlx.core as mx

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.names import FOLDER, committed_paths, folder_name, step_of
from mlxlab.checkpoint.state import History
from mlxlab.checkpoint.store import Checkpoint, CheckpointStore, check_arrays, load_checkpoint
from mlxlab.data.dataset import RunLength
from mlxlab.errors import CheckpointUnavailableError, ConfigError
from mlxlab.past_runs.changes import Changes
from mlxlab.past_runs.collect_record import LIMIT_KEYS
from mlxlab.run.context import RunContext
from mlxlab.run.resume.policy import Transfer
from mlxlab.run.resume.start import Start
from mlxlab.run.session import Session
from mlxlab.terminal.messages import log_lines
from mlxlab.terminal.program import join, path_override, quoted
from mlxlab.training.checkpointer import saved_arrays, split_frozen
from mlxlab.training.state import TrainState
from mlxlab.training.stop_rule import stop_rule
from mlxlab.training.trainer import Trainer

logger = logging.getLogger(__name__)


def fit_checkpoint(
    start: Start, session: Session, state: TrainState
) -> tuple[Checkpoint | None, Transfer | None]:
    """The checkpoint for the data and the model of a new state, and what became of the arrays of another model.

    The data iterator of the state is moved to the position of the checkpoint.

    Raises:
        NotAllowedError: the data or the tokenizer changed since the save.
        ConfigError, CheckpointUnavailableError: its arrays are not those of the model.
    """
    plan = start.plan
    if plan is None:
        return None, None
    checkpoint, transfer = plan.policy.carry(plan, state, session.data)
    state.data.load_state_dict(checkpoint.state["data"])
    if plan.before != plan.after:
        _refuse_ended(session.trainer, state, checkpoint, plan.changes)
    _restart_schedule(session.trainer, state, checkpoint)
    _refuse_misfit(checkpoint, plan.changes, state)
    return checkpoint, transfer


def is_finished(
    start: Start,
    trainer: Trainer,
    state: TrainState,
    checkpoint: Checkpoint,
    context: RunContext,
) -> bool:
    """Whether a run has ended, and was evaluated and reported; then a line says which limits ended it.

    Every process of the run gets the same.
    """
    is_same = start.continues and start.changes.keys() <= LIMIT_KEYS and stop_rule() is None
    if not is_same:
        return False
    earlier = context.writer.earlier
    is_reported = earlier is not None and earlier.status == "finished" and earlier.is_evaluated
    if context.group.all_reduce_max([int(is_reported)]) == [0]:
        return False
    limits = trainer.reached_limits(checkpoint.state["progress"], state.data.epoch)
    if not limits:
        return False
    values = join(f"trainer.{key}={value}" for key, value in limits.items())
    logger.info(f"already finished at step {checkpoint.step} ({values})")
    if earlier is not None:
        print_state(earlier.training.final_state)
    return True


def print_state(digest: str) -> None:
    print(
        f"final_state={digest} (of weights, optimizer and data: equal runs print an equal one)",
        flush=True,
    )


def prepare_checkpoints(
    checkpoint: Checkpoint | None, start: Start, context: RunContext, session: Session
) -> Checkpoint | None:
    """Sets aside checkpoints that do not lead to this one; gives a fork its first one, and the best of the other run.

    Returns:
        The checkpoint, with the best evaluation that counts for a fork.
    """
    store = CheckpointStore(context.run_dir / FOLDER)
    if start.continues and checkpoint is not None:
        for path in store.set_aside_newer(checkpoint.step):
            logger.info(f"set aside {path.name}: newer than the checkpoint that is resumed")
        return checkpoint
    aside = store.set_aside_all()
    if aside:
        logger.info(f"set aside the checkpoints of an earlier run: {aside}; its report is replaced")
    if checkpoint is None:
        return None
    history, best = best_of_fork(checkpoint)
    checkpoint = replace(
        checkpoint,
        state={
            **checkpoint.state,
            "history": history,
            "metadata": session.context.metadata,
        },
    )
    if context.group.rank == 0:
        if best is not None:
            store.take_over(best)
        weights, frozen = split_frozen(session.model, checkpoint.weights)
        store.save(
            checkpoint.step,
            weights,
            checkpoint.optimizer,
            checkpoint.state,
            frozen,
            best_step=history.best_step,
        )
    context.group.barrier()
    return checkpoint


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
        lost = history.best_step
    history = history.without_best(checkpoint.step)
    now = "none counts"
    if history.best is not None:
        now = f"that of step {history.best_step} counts"
    log_lines(
        f"the best evaluation, of step {lost}, has no checkpoint in {checkpoint.path.parent}; {now} instead"
    )
    return history, None


def _refuse_misfit(checkpoint: Checkpoint, changes: Changes, state: TrainState) -> None:
    """Refuses a checkpoint with right checksums whose arrays do not fit the new state.

    Raises:
        ConfigError: the config was changed, so the checkpoint may be good.
        CheckpointUnavailableError: names an older one, if there is one.
    """
    weights, optimizer = saved_arrays(state)
    try:
        check_arrays(checkpoint.weights, weights, "model")
        check_arrays(checkpoint.optimizer, optimizer, "optimizer")
    except CorruptCheckpointError as error:
        path = checkpoint.path
        keys = ", ".join(key for key in changes if key not in LIMIT_KEYS)
        if keys:
            message = f"{keys}: changed since {path.name}, which does not fit: {error}"
            raise ConfigError(message) from None
        older = [each for each in committed_paths(path.parent) if step_of(each) < checkpoint.step]
        advice = ""
        if older:
            advice = f"; {quoted(path_override('resume', older[0]))} takes the one before"
        raise CheckpointUnavailableError(f"{path}: {error}{advice}") from None


def _refuse_ended(
    trainer: Trainer, state: TrainState, checkpoint: Checkpoint, changes: Changes
) -> None:
    """ConfigError for a changed model in a run without further steps, which would not save it."""
    progress = checkpoint.state["progress"]
    if trainer.reached_limits(progress, state.data.epoch):
        keys = [key for key in changes if key.startswith(("model", "data"))]
        raise ConfigError(
            f"{', '.join(keys)}: changed, but the run ended at step {progress.step}; "
            "expected a larger trainer.epochs, trainer.max_steps or trainer.max_tokens too"
        )


def _restart_schedule(trainer: Trainer, state: TrainState, checkpoint: Checkpoint) -> None:
    """Restarts a decayed schedule for the steps that a resume adds to a finished run."""
    metadata = checkpoint.state["metadata"]
    progress = checkpoint.state["progress"]
    limits = {key: metadata["config"]["trainer"][key] for key in RunLength._fields}
    limits["epochs"] = metadata.get("epochs", limits["epochs"])  # what `auto` stood for
    before = replace(trainer, **limits).with_settings(progress.settings)
    if before.length == trainer.length:
        return

    epoch = state.data.epoch
    if not before.reached_limits(progress, epoch) or trainer.reached_limits(progress, epoch):
        return

    finished = replace(state, progress=progress, total_steps=before.plan_steps(state.data))
    rate = before.lr_schedule(finished)(mx.array(progress.schedule_step))
    if float(rate) < before.learning_rate:
        progress.settings.schedule_start = int(progress.schedule_step)
        logger.info(f"trainer.schedule restarts at step {progress.step}, where the run had ended")
