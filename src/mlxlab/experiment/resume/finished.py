"""What a resumed run says: what it resumes from, and whether it is finished already."""

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.experiment.facts.training_facts import LIMIT_KEYS
from mlxlab.experiment.run import RunContext
from mlxlab.experiment.start import Start
from mlxlab.program import join
from mlxlab.terminal.messages import log_lines
from mlxlab.training.state import TrainState
from mlxlab.training.stop_rule import stop_rule
from mlxlab.training.trainer import Trainer


def finished_message(
    trainer: Trainer,
    state: TrainState,
    start: Start,
    checkpoint: Checkpoint | None,
    context: RunContext,
) -> str:
    """By which limits the run has ended, if it has, and was evaluated and reported; else "".

    Every process of the run gets the same. The data iterator of the state is moved to the end of the run.
    """
    is_same = start.continues and start.changes.keys() <= LIMIT_KEYS and stop_rule() is None
    if checkpoint is None or not is_same:
        return ""
    earlier, step = context.writer.earlier, checkpoint.step
    is_reported = earlier is not None and earlier.status == "finished" and earlier.is_evaluated
    if context.group.all_reduce_max([int(is_reported)]) == [0]:
        return ""
    state.data.load_state_dict(checkpoint.state["data"])
    limits = trainer.reached_limits(checkpoint.state["progress"], state.data.epoch)
    values = join(f"trainer.{key}={value}" for key, value in limits.items())
    return f"already finished at step {step} ({values})" if limits else ""


def end_finished(message: str, checkpoint: Checkpoint | None, context: RunContext) -> float:
    """Prints the message and the final state; returns the best value of the objective."""
    assert checkpoint is not None
    log_lines(message)
    if earlier := context.writer.earlier:
        print_state(earlier.training.final_state)
    best = checkpoint.state["history"].best
    return float("nan") if best is None else best


def resume_lines(trainer: Trainer, checkpoint: Checkpoint) -> list[str]:
    """What a run resumes from, and whether it is past its last step already."""
    limit, step = trainer.max_steps, checkpoint.step
    passed = limit is not None and step > limit
    return [
        f"resumed from {checkpoint.path.name}",
        *(f"skipped {line}" for line in checkpoint.skipped),
        *(
            [f"trainer.max_steps={limit} is already passed (step {step}): the run ends here"]
            if passed
            else []
        ),
    ]


def print_state(digest: str) -> None:
    print(
        f"final_state={digest} (of weights, optimizer and data: equal runs print an equal one)",
        flush=True,
    )
