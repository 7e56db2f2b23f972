"""A signal ends a run in the middle of a long step, between two micro-batches: the step then was never begun."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from mlxlab.checkpoint.store import Checkpoint
from mlxlab.progress import activity
from mlxlab.training.callback import FitContext
from mlxlab.training.state import TrainState


class StepInterrupted(Exception):
    """A step stopped between two micro-batches; weights and optimizer are those before it."""


def allow_interruption(step: object, context: FitContext) -> None:
    """Lets a signal interrupt steps between micro-batches, in a process that no other one waits for."""
    interrupt_when = getattr(step, "interrupt_when", None)
    if interrupt_when is not None and context.group.size == 1:
        interrupt_when(lambda: context.control.stop_signal != 0)


@contextmanager
def around_step(state: TrainState, resumed: Checkpoint | None) -> Iterator[None]:
    """If the step is interrupted, its batch counts as not used, so that a resumed run begins with it.

    Says so if the first step of this process is slow.
    """
    step = state.progress.step
    learning_rate = state.optimizer.learning_rate
    is_first = step == (0 if resumed is None else resumed.step)
    try:
        with activity(f"step {step + 1}") if is_first else nullcontext():
            yield
    except StepInterrupted:
        state.optimizer.learning_rate = learning_rate
        state.data.load_state_dict(state.data_state)
        raise
