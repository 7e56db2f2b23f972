"""Changes the model and the settings of a run on the way, by a schedule of operations."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.errors import ConfigError, UserError
from mlxlab.extensions.growth.operations.schema import Operation
from mlxlab.extensions.growth.schedule import (
    check_progress,
    count_done,
    is_due,
    misfit,
    record_done,
)
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

if TYPE_CHECKING:
    from mlxlab.extensions.growth.apply import Change

logger = logging.getLogger(__name__)


class GrowthSchedule(Callback):
    """Runs operations in their order, each once it is due: adds layers, freezes weights, and so on.

    The outputs of the model stay the same at the moment of an operation, unless it says otherwise.

    Args:
        operations: each with an `id`, the name of the operation (`op`) and its options, and what it
            waits for (`when`); `then: evaluate` evaluates after it.
    """

    runs_on_all_ranks = True

    def __init__(self, operations: Sequence[Operation], *, seed: int = 0) -> None:
        self.operations = list(operations)
        self.seed = seed

    def check(self, state: TrainState, checkpoint: Checkpoint | None) -> None:
        """ConfigError if what is done was changed, or an operation that is left cannot work."""
        progress = progress_of(checkpoint)
        check_progress(self.operations, progress)
        if len(progress.done) < len(self.operations):
            from mlxlab.extensions.growth.apply import preview

            preview(self.operations[len(progress.done) :], state)

    def preview(self, state: TrainState, checkpoint: Checkpoint | None) -> str:
        """The schedule as a table; raises as `check`."""
        if not self.operations:
            return ""
        from mlxlab.extensions.growth.apply import preview, preview_table

        progress = progress_of(checkpoint)
        check_progress(self.operations, progress)
        counts = preview(self.operations[len(progress.done) :], state)
        step = 0 if checkpoint is None else checkpoint.step
        table = preview_table(self.operations, progress, counts, step)
        if progress.done:
            table = f"{table}\n{count_done(self.operations, progress)}"
        return table

    def on_start(self, context: FitContext, state: TrainState) -> None:
        growth = state.progress.growth
        check_progress(self.operations, growth)
        if growth.done:
            logger.info(f"growth: {count_done(self.operations, growth)}")
            is_evaluated = growth.step in {at for at, _ in state.history.evaluations[-1:]}
            context.control.evaluation_requested |= self._evaluates_now(state) and not is_evaluated

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        growth = state.progress.growth
        while len(growth.done) < len(self.operations) and self._is_due(context, state, result):
            operation = self.operations[len(growth.done)]
            self._run(context, state, result, operation)
            record_done(self.operations, growth, state.progress.step)
            context.control.rebuild = True
            context.control.save_requested |= context.group.rank == 0
            if operation.get("then") == "evaluate":
                # It replaces the evaluation before the operation; a resumed run makes a missing one.
                state.history.discard_evaluation(growth.step, context.monitor)
                context.control.evaluation_requested = True
                return

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if self.operations and not context.control.stop_signal:  # After a signal it is resumed.
            logger.info(f"growth: ends with {count_done(self.operations, state.progress.growth)}")

    def _evaluates_now(self, state: TrainState) -> bool:
        """True if the last operation ran at this step and asked for an evaluation."""
        growth = state.progress.growth
        if not growth.done or growth.step != state.progress.step:
            return False
        return self.operations[len(growth.done) - 1].get("then") == "evaluate"

    def _is_due(self, context: FitContext, state: TrainState, result: StepResult) -> bool:
        """Decided by rank 0, where the others know that there is something to decide."""
        growth = state.progress.growth
        when = self.operations[len(growth.done)]["when"]
        steps = state.progress.step - growth.step
        is_evaluated = result.evaluation is not None and not self._evaluates_now(state)
        metric = state.history.evaluations[-1][1] if is_evaluated else None
        if metric is None and not is_due(when, None, steps):
            return False
        decision = int(is_due(when, metric, steps)) if context.group.rank == 0 else 0
        return context.group.all_reduce_max([decision]) == [1]

    def _run(
        self, context: FitContext, state: TrainState, result: StepResult, operation: Operation
    ) -> None:
        """Runs one operation."""
        number = len(state.progress.growth.done) + 1
        step = state.progress.step
        change = self._prepare(context, state, result, operation)
        change.keep()
        title = f"growth: {operation['id']} ({operation['op']}), {number} of {len(self.operations)}"
        text = f"{title}: {change.text}"
        logger.info(f"step {step}: {text}")
        context.log(state, {"growth/done": float(number)} | change.metrics)
        state.history.events.append((step, text))

    def _prepare(
        self, context: FitContext, state: TrainState, result: StepResult, operation: Operation
    ) -> "Change":
        """The change of an operation; raises why it fails in any process."""
        from mlxlab.extensions.growth.apply import FAILURES, prepare

        change: Change | None = None
        failure: Exception = ConfigError("failed in another process")
        try:
            if not result.trained:  # A resumed run makes up for the operation.
                result = result._replace(batch=next(iter(context.valid), result.batch))
            change = prepare(operation, state, result, self.seed)
        except FAILURES as error:
            failure = error
        has_failed = context.group.all_reduce_max([change is None]) != [0]
        if change is not None and not has_failed:
            return change
        if isinstance(failure, UserError):
            raise misfit(operation, failure) from None
        raise failure from None


def progress_of(checkpoint: Checkpoint | None) -> GrowthProgress:
    return GrowthProgress() if checkpoint is None else checkpoint.state["progress"].growth
