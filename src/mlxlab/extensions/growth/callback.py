"""Changes the model and the settings of a run on the way, by a schedule of operations."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from mlxlab.checkpoint.state import GrowthProgress
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.config.issues import value_at
from mlxlab.errors import ConfigError, UserError
from mlxlab.extensions.growth.operations.schema import Operation
from mlxlab.extensions.growth.schedule import (
    check_progress,
    count_done,
    describe_remaining,
    due_steps,
    find_late,
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
    """Runs operations in their order, each once it is due: layers are added, weights frozen, settings changed.

    The outputs of the model stay the same at the moment of an operation, unless it says otherwise.

    Args:
        operations: each with an `id`, the name of the operation (`op`) and its options, and what it waits for (`when`);
            `then: evaluate` evaluates after it.
        on_error: what happens if an operation fails at its step, out of memory or because it would change the outputs:
            raise ends the run, skip continues without it. One that can never work is refused before the run starts.
    """

    runs_on_all_ranks = True

    def __init__(
        self, operations: Sequence[Operation], on_error: Literal["raise", "skip"], *, seed: int = 0
    ) -> None:
        self.operations, self.on_error, self.seed = list(operations), on_error, seed

    def check(self, state: TrainState, checkpoint: Checkpoint | None) -> None:
        """ConfigError if what is done was changed in the config, or an operation that is left cannot work.

        Where an operation was skipped before, one that cannot work will be skipped too, and a line says so.
        """
        progress = progress_of(checkpoint)
        check_progress(self.operations, progress, saved_operations(checkpoint))
        if remaining := self.operations[len(progress.done) :]:
            from mlxlab.extensions.growth.preview import preview

            for operation, after in zip(
                remaining, preview(remaining, state, self._skipped(progress))[1:], strict=True
            ):
                if after.misfit:
                    logger.warning(f"growth: {operation['id']} ({operation['op']}) {after.misfit}")
            due = due_steps(remaining, progress.step, 0 if checkpoint is None else checkpoint.step)
            late = find_late(remaining, due, planned_steps(state, checkpoint))
            for reason in dict.fromkeys(filter(None, late)):
                names = [
                    operation["id"]
                    for operation, each in zip(remaining, late, strict=True)
                    if each == reason
                ]
                logger.warning(f"growth: {', '.join(names)}: {reason}")

    def preview(self, state: TrainState, checkpoint: Checkpoint | None) -> str:
        """The schedule as a table."""
        if not self.operations:
            return ""
        from mlxlab.extensions.growth.preview import preview, preview_table

        progress = progress_of(checkpoint)
        check_progress(self.operations, progress, saved_operations(checkpoint))
        previews = preview(self.operations[len(progress.done) :], state, self._skipped(progress))
        step = 0 if checkpoint is None else checkpoint.step
        table = preview_table(
            self.operations, progress, previews, step, planned_steps(state, checkpoint)
        )
        return f"{table}\n{count_done(self.operations, progress)}" if progress.done else table

    def _skipped(self, progress: GrowthProgress) -> list[str]:
        """The operations that were skipped, where those that build on them may be skipped too."""
        return progress.skipped if self.on_error == "skip" else []

    def on_start(self, context: FitContext, state: TrainState) -> None:
        growth = state.progress.growth
        check_progress(self.operations, growth)
        if growth.done:
            logger.info(f"growth: {count_done(self.operations, growth)}")
            is_evaluated = growth.step in {at for at, _ in state.history.evaluations[-1:]}
            context.control.evaluation_requested |= self._evaluates_now(state) and not is_evaluated

    def needs_sync(self, state: TrainState) -> bool:
        return len(state.progress.growth.done) < len(self.operations)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        growth = state.progress.growth
        while (number := len(growth.done)) < len(self.operations) and self._is_due(
            context, state, result
        ):
            operation = self.operations[number]
            fits = self._run(context, state, result, operation)
            record_done(self.operations, growth, state.progress.step, is_skipped=not fits)
            context.control.rebuild = True
            context.control.save_requested |= context.group.rank == 0
            if operation.get("then") == "evaluate":
                # The evaluation before the operation is replaced; without one, a resumed run makes it.
                state.history.discard_evaluation(growth.step, context.monitor)
                context.control.evaluation_requested = True
                return

    def _evaluates_now(self, state: TrainState) -> bool:
        """Whether the last operation ran at this step and asked for an evaluation."""
        growth = state.progress.growth
        last = self.operations[len(growth.done) - 1] if growth.done else None
        return (
            last is not None
            and last.get("then") == "evaluate"
            and growth.step == state.progress.step
        )

    def _is_due(self, context: FitContext, state: TrainState, result: StepResult) -> bool:
        """Decided by rank 0, where the others know that there is something to decide."""
        growth = state.progress.growth
        when, steps = self.operations[len(growth.done)]["when"], state.progress.step - growth.step
        is_evaluated = result.evaluation is not None and not self._evaluates_now(state)
        metric = state.history.evaluations[-1][1] if is_evaluated else None
        if metric is None and not is_due(when, None, steps):
            return False
        decision = int(is_due(when, metric, steps)) if context.group.rank == 0 else 0
        return context.group.all_reduce_max([decision]) == [1]

    def on_end(self, context: FitContext, state: TrainState) -> None:
        if not self.operations or context.control.stop_signal:  # after a signal the run is resumed
            return
        growth = state.progress.growth
        if remaining := describe_remaining(self.operations, growth):
            logger.info(f"growth: ends with {count_done(self.operations, growth)}: {remaining}")
        context.tracker.set_tags({"growth.done": f"{len(growth.done)} of {len(self.operations)}"})

    def _run(
        self, context: FitContext, state: TrainState, result: StepResult, operation: Operation
    ) -> bool:
        """Runs one operation; False if it fails and is skipped, with the state as it was."""
        number, step = len(state.progress.growth.done) + 1, state.progress.step
        title = f"growth: {operation['id']} ({operation['op']}), {number} of {len(self.operations)}"
        change = self._keep(
            context, state, self._prepare(context, state, result, operation), operation
        )
        logger.log(
            logging.INFO if change.fits else logging.WARNING, f"step {step}: {title}: {change.text}"
        )
        context.log(state, {"growth/done": float(number), **change.metrics})
        state.history.events.append((step, f"{title}: {change.text}"))
        context.tracker.set_tags(
            {f"growth.{number}": f"step {step}: {operation['id']}: {change.text}"}
        )
        return change.fits

    def _prepare(
        self, context: FitContext, state: TrainState, result: StepResult, operation: Operation
    ) -> "Change":
        """The change of an operation, on all processes alike; where it fails and is skipped, one that does nothing."""
        from mlxlab.extensions.growth.apply import FAILURES, prepare

        groups = context.metadata["config"].get("trainer", {}).get("optimizer", {})
        change: Change | None = None
        error: Exception = ConfigError("failed in another process")
        try:
            if not result.trained:  # a resumed run makes up for the operation
                result = result._replace(batch=next(iter(context.valid), result.batch))
            change = prepare(operation, state, result, self.seed, groups)
        except FAILURES as caught:
            error = caught
        if context.group.all_reduce_max([change is None]) == [0]:
            assert change is not None
            return change
        return self._failed(operation, error)

    def _keep(
        self, context: FitContext, state: TrainState, change: "Change", operation: Operation
    ) -> "Change":
        """The change, kept; where that fails and is skipped, one that did nothing."""
        from mlxlab.extensions.growth.apply import FAILURES, keep

        try:
            keep(change, state)
        except FAILURES as error:
            if context.group.size > 1:  # others may have kept it
                raise
            return self._failed(operation, error)
        return change

    def _failed(self, operation: Operation, error: Exception) -> "Change":
        """A change that does nothing, or the error where that ends the run."""
        from mlxlab.extensions.growth.apply import skipped

        if self.on_error == "skip":
            return skipped(error)
        raise (misfit(operation, error) if isinstance(error, UserError) else error) from None


def progress_of(checkpoint: Checkpoint | None) -> GrowthProgress:
    return GrowthProgress() if checkpoint is None else checkpoint.state["progress"].growth


def saved_operations(checkpoint: Checkpoint | None) -> object:
    """The operations in the config of a checkpoint, unchecked."""
    return checkpoint and value_at(
        checkpoint.state["metadata"]["config"], "callbacks.growth.operations"
    )


def planned_steps(state: TrainState, checkpoint: Checkpoint | None) -> int | None:
    """Steps of the whole run; `state` is a new one."""
    progress = state.progress if checkpoint is None else checkpoint.state["progress"]
    return replace(state, progress=progress).planned_steps
