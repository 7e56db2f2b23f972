"""The protocol of callbacks, and when the loop calls them.

    callbacks: on_start, in the order of the config; then the checkpointer
    until control.stop_reason:
        for batch in state.data:
            annotate it for the loss; set the learning rate; seed MLX; take one optimizer step
            state.record(result)
            log the running totals, every `log_every` steps and at the end
            evaluate, at the cadence of the trainer and at the end
            agree with all processes on requests to stop or save
            callbacks: on_step, in the order of the config; then the checkpointer
    callbacks: on_end, in the order of the config; then the checkpointer

The order is a guarantee: a callback sees what earlier ones logged at the same step, and the checkpointer, which the
loop holds itself, saves what all of them did.
"""

from typing import Protocol

from mlxlab.training.context import FitContext
from mlxlab.training.state import StepResult, TrainState


class Callback(Protocol):
    """Acts at the start, after every step and at the end of a fit.

    It keeps no state that a resumed run would miss: decisions are derived from `state`. It asks the loop to stop or to
    save through `context.control`, and logs through `context.log`. An exception ends the run.

    Attributes:
        runs_on_all_ranks: True if what it does changes training, so that every process must do the same; False for
            output, which only rank 0 writes.
    """

    runs_on_all_ranks: bool

    def on_start(self, context: FitContext, state: TrainState) -> None:
        """Before the first step, or before the first one after a resume; the state is already restored."""
        ...

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        """After every step and its evaluation."""
        ...

    def on_end(self, context: FitContext, state: TrainState) -> None:
        """After the last step, whatever stopped the run; not after an exception."""
        ...
